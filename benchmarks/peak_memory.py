"""How much the peak memory of a process grows when a descent is eight times as long: for a fresh process."""

from __future__ import annotations

import numpy as np

import gdcompare as gdc
from gdcompare.timing import memory


def growth_in_megabytes(backend_name: str, history_every: int) -> float:
    """Return the peak after the longer descent less the peak after the shorter one, which also warmed everything up."""
    generator = np.random.default_rng(0)
    data = gdc.Dataset(generator.uniform(-1, 1, (40, 100)), generator.standard_normal(40))
    peaks = []
    for epochs in (4096, 32768):
        gdc.descend(
            "linear-regression",
            data,
            backend_name,
            epochs=epochs,
            history_every=history_every,
            progress=False,
            chunk=1024,  # so that even the shorter one has chunks behind it
        )
        peaks.append(memory.peak() / 1e6)
    return peaks[1] - peaks[0]

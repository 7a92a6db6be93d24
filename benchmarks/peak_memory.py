"""Print how much the peak memory of this process grows when a descent is eight times as long.

    python benchmarks/peak_memory.py jax 1000000000

The arguments are a backend and `history_every`. `bench_ratios.py` runs this, in a process of its own.
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path

import numpy as np

import gdcompare as gdc


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
        peaks.append(_peak_in_megabytes())
    return peaks[1] - peaks[0]


def _peak_in_megabytes() -> float:
    if sys.platform == "darwin":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    # ru_maxrss of a Linux process begins with the peak of the one that started it; this line begins at 0.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) * 1024 / 1e6


if __name__ == "__main__":
    sys.stdout.write(json.dumps({"growth in MB": growth_in_megabytes(sys.argv[1], int(sys.argv[2]))}))

"""The ratios and findings that the terminal shows after the tables of times, in 80 columns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .timing import Samples


@dataclass(frozen=True)
class Ratio:
    """How many times longer one contender took than another: smaller is faster, and 1 is the same."""

    section: str
    what: str
    seconds: float
    median: float
    low: float
    high: float
    verdict: str
    error_in_units: float
    blocks: list[float]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def line(self) -> str:
        span = f"{_number(self.low)} .. {_number(self.high)}"
        median = _number(self.median)
        return f"  {self.what:<32}{_duration(self.seconds):>8}{median:>8}  {span:<15}{self.verdict}".rstrip()


@dataclass
class Summary:
    """Collects ratios and findings of one run."""

    ratios: list[Ratio] = field(default_factory=list)
    findings: dict[str, list[str]] = field(default_factory=dict)

    def compare(self, section: str, samples: Samples, name: str, against: str, at_most: float | None = None) -> None:
        """Note the ratio of two contenders, and whether it is within what we promise ourselves."""
        ratios = samples.ratios(name, against)
        median, (low, high) = float(np.median(ratios)), _tie(samples)
        verdict = "tie" if low <= median <= high else ""
        if at_most is not None:
            verdict = f"{'<=' if median <= at_most else 'over'} {at_most:g} {verdict}".rstrip()
        self._note(section, name, against, samples, ratios, verdict)

    def control(self, section: str, samples: Samples) -> None:
        """Note the ratio of the first contender to itself, and what is called a tie on account of it."""
        name = next(iter(samples.seconds))
        low, high = _tie(samples)
        self._note(section, name, "itself", samples, samples.control, f"tie {low:.2f}-{high:.2f}")

    def find(self, section: str, line: str) -> None:
        """Note a finding that is no ratio."""
        self.findings.setdefault(section, []).append(line)

    def lines(self) -> Iterator[str]:
        """Everything noted, section by section."""
        if self.ratios:
            yield ""
            yield " ratios: first / second, medians of interleaved blocks, 1 = as fast ".center(80, "-")
            yield f"{'':<34}{'first':>8}{'ratio':>8}  min .. max"
        for section in dict.fromkeys(ratio.section for ratio in self.ratios):
            yield section
            yield from (ratio.line() for ratio in self.ratios if ratio.section == section)
        for section, lines in self.findings.items():
            yield section
            yield from (f"  {line}" for line in lines)

    def _note(
        self, section: str, name: str, against: str, samples: Samples, ratios: NDArray[np.float64], verdict: str
    ) -> None:
        self.ratios.append(
            Ratio(
                section,
                f"{name} / {against}",
                float(np.median(samples.seconds[name])),
                float(np.median(ratios)),
                float(np.min(ratios)),
                float(np.max(ratios)),
                verdict,
                samples.errors[name],
                ratios.tolist(),
            )
        )


def _tie(samples: Samples) -> tuple[float, float]:
    """Return what half of the control lies within, as far below 1 as above.

    Of 15 blocks of two contenders that are equal, the median lies outside once in 17 times (20 000 simulated runs).
    """
    factor = float(np.exp(np.median(np.abs(np.log(samples.control)))))
    return 1 / factor, factor


def _number(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio >= 0.1 else f"{ratio:.3f}"


def _duration(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"

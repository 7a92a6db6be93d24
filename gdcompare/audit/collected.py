"""What is asked of the routes at points, and what of it is kept: the worst of each region and route."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gdcompare.audit.element import Found
from gdcompare.audit.subject import Arrays, Asked, Example, Route
from gdcompare.words import one_line

Floats = NDArray[np.float64]


@dataclass
class Region:
    """What is collected of one row."""

    points: dict[str, int] = field(default_factory=dict)
    worst: Found | None = None
    at: str = ""
    asked: Asked | None = None

    def add(self, found: Found, at: str, asked: Asked | None) -> None:
        """Count one element in, and keep it if it is the worst."""
        self.points[found.status] = self.points.get(found.status, 0) + 1
        if self.worst is None or found.rank < self.worst.rank:
            self.worst, self.at, self.asked = found, at, asked


class Collected(dict[tuple[str, str], Region]):
    """The regions, by their name and that of the route."""

    def add(self, region: str, route: str, found: Found, at: str, asked: Asked | None) -> None:
        """Count one element in."""
        self.setdefault((region, route), Region()).add(found, at, asked)


def called(route: Route, arguments: Arrays, cotangents: Floats, direction: Arrays | None) -> dict[str, NDArray[Any]]:
    """Return what a route gives, by argument; `"derivative"` of a jvp. Raises what the framework raises."""
    targets = np.zeros((1, 1), cotangents.dtype)
    data = (dict(arguments), cotangents, targets)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        if route.derivative == "gradient":
            return {key: np.asarray(each) for key, each in route.function(*data)[1].items()}
        if route.derivative == "jvp":
            return {"derivative": np.asarray(route.function(*data, direction)[1])}
        return {key: np.asarray(each) for key, each in route.function(*data, direction).items()}


def refused(example: Example, region: str, error: BaseException) -> Found:
    """Return the judgement where the framework raises: at a boundary it may refuse arguments, as NumPy does."""
    if region in (example.region, "ordinary"):
        return Found("raises", reason=said(error))
    return Found("no truth", reason=f"the framework refuses these arguments: {said(error)}")


def said(error: BaseException) -> str:
    """Return an exception as a line."""
    return one_line(f"{type(error).__name__}: {error}")[:240]

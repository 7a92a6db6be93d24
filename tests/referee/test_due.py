"""What somebody's function may return, and what is refused: numbers of any maker, but no masks, dates or words."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gdcompare as gdc
from gdcompare.authoring.faults import by_hand

RIGHT = by_hand(gdc.load_problem("linear-regression"))
PARAMS = {"theta_0": 1.0, "theta_1": [0.5]}


class Recorded:
    """As an array that records its operations, which NumPy cannot read before it is detached."""

    def __init__(self, values: Any) -> None:
        self.values = values

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("detach it first")

    def detach(self) -> Any:
        return self.values


def returning(change: Callable[[Any], Any]) -> Callable[..., Any]:
    """Return the right gradient, each array changed, and so the loss."""

    def implementation(*point: Any) -> Any:
        loss, gradient = RIGHT(*point)
        return change(np.asarray(loss)), {name: change(np.asarray(value)) for name, value in gradient.items()}

    return implementation


def judged(implementation: Any, dtype: str) -> gdc.Report:
    return gdc.verify(
        "linear-regression", None, PARAMS, backends=[], implementations={"mine": implementation}, dtype=dtype
    )


READ: dict[str, Callable[[Any], Any]] = {
    "the other byte order": lambda x: x.astype(x.dtype.newbyteorder()),
    "numbers of Python": lambda x: x.tolist(),
    "what records its operations": Recorded,
    "read-only arrays": lambda x: np.frombuffer(x.tobytes(), x.dtype).reshape(x.shape),
}


@pytest.mark.thorough
@pytest.mark.parametrize("change", READ.values(), ids=READ)
def test_numbers_of_the_same_kind_and_size_are_read(change: Callable[[Any], Any], dtype: str) -> None:
    judged(returning(change), dtype).assert_agree()
    gdc.check_batch_laws("linear-regression", None, PARAMS, returning(change), dtype=dtype).assert_agree()


def test_whole_numbers_of_python_are_numbers_of_the_dtype(dtype: str) -> None:
    operation, data = gdc.Operation(lambda xp, x: 3 * x, x=(2,)), gdc.Dataset([[1.0, 2.0]], [0.0])
    mine = {"mine": lambda *_: (9, {"x": [3, 6]})}

    gdc.verify(operation, data, {"x": [1.0, 1.0]}, backends=[], implementations=mine, dtype=dtype).assert_agree()


def test_a_number_of_numpy_keeps_its_dtype() -> None:
    """It is a float of Python, too, but somebody has computed it in float64."""
    report = judged(returning(lambda x: np.float64(x) if x.ndim == 0 else x.astype("f8").tolist()), "float32")

    found = {entry.parameter: entry.cause for entry in report.entries}
    assert found["theta_0"] == "dtype float64 where float32 belongs"


REFUSED: dict[str, tuple[Callable[[Any], Any], str]] = {
    "a mask": (lambda x: np.ma.masked_array(x, mask=True), "it returned a masked array, and nobody would heed"),
    "an empty mask": (np.ma.masked_array, "it returned a masked array, and nobody would heed"),
    "a complex loss": (lambda x: x + 0j, "it returned a loss of dtype complex"),
    "words": (lambda x: x.astype(str), "it returned a loss of dtype <U"),
}


@pytest.mark.parametrize(("change", "words"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_number_is_said(change: Callable[[Any], Any], words: str, dtype: str) -> None:
    (entry,) = judged(returning(change), dtype).entries

    assert entry.verdict == "wrong"
    assert entry.cause.startswith(words)


def test_a_mask_breaks_the_laws_too() -> None:
    report = gdc.check_batch_laws("linear-regression", None, PARAMS, returning(np.ma.masked_array))

    assert "it returned a masked array" in report.entries[0].cause


@pytest.mark.parametrize(
    "checked",
    [lambda f: judged(f, "float64"), lambda f: gdc.check_batch_laws("linear-regression", None, PARAMS, f)],
    ids=["verify", "laws"],
)
def test_a_function_that_ends_python_is_bad_input(checked: Callable[[Any], gdc.Report]) -> None:
    def leaves(*_: Any) -> Any:
        sys.exit(0)

    with pytest.raises(ValueError, match=r"test_due.py:\d+: it calls sys.exit\(0\): let it return, or raise an error"):
        checked(leaves)


def test_what_is_no_function_is_refused() -> None:
    with pytest.raises(TypeError, match=r"implementation 'mine' must be a function .*, not 3"):
        judged(3, "float64")


# Data, and names.


@pytest.mark.parametrize("place", ["features", "targets", "weights"])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (np.ma.masked_array, "are masked, and nobody would heed the mask"),
        (lambda x: x.astype("M8[D]"), r"are datetime64\[D\], no numbers: count in a unit"),
        (lambda x: x.astype("m8[s]"), r"are timedelta64\[s\], no numbers: count in a unit"),
    ],
)
def test_data_that_are_no_numbers_are_refused(place: str, change: Callable[[Any], Any], words: str) -> None:
    given = {"features": np.ones((3, 1)), "targets": np.ones(3), "weights": np.ones(3)}

    with pytest.raises(ValueError, match=f"{place} {words}"):
        gdc.Dataset(**given | {place: change(given[place])})


def test_masked_parameters_are_refused() -> None:
    with pytest.raises(ValueError, match="parameter 'theta_0' is masked"):
        gdc.verify("linear-regression", None, {"theta_0": np.ma.masked_array(1.0, mask=True), "theta_1": [0.5]})


class Named(gdc.Problem):
    """l = sum k x (p_k - 1)^2, of parameters with any names."""

    def __init__(self, *names: Any) -> None:
        self.names = names

    def parameter_shapes(self, data: gdc.Dataset) -> dict[Any, tuple[int, ...]]:
        return dict.fromkeys(self.names, ())

    def per_sample_losses(self, xp: Any, params: Any, features: Any, targets: Any) -> Any:
        return sum((k + 1) * features[:, 0] * (params[name] - 1) ** 2 for k, name in enumerate(self.names))


@pytest.mark.parametrize(
    ("name", "why"),
    [("loss", "is the loss's own name"), ("", "is no name"), (1, "is no name"), (("a", "b"), "is no name")],
)
def test_names_that_would_hide_something_are_refused(name: Any, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        gdc.verify(Named(name), gdc.Dataset([[1.0]], [0.0]), {name: 2.0}, backends=[])


def test_a_parameter_may_be_called_as_the_data_are_and_is_watched() -> None:
    def changes(params: Any, features: Any, targets: Any) -> Any:
        params["features"] += 1.0
        return None, {"features": np.array(2.0)}

    report = gdc.verify(
        Named("features"), gdc.Dataset([[1.0]], [0.0]), {"features": 2.0}, backends=[], implementations={"": changes}
    )

    assert report.entries[0].cause == "it changed its inputs: features"


def test_blocks_of_names_with_commas_are_told_apart() -> None:
    names = ("a", "b, a", "a, b")
    blocks: Any = {p: {q: np.array(2.0 * (k + 1) * (p == q)) for q in names} for k, p in enumerate(names)}

    report = gdc.verify(
        Named(*names),
        gdc.Dataset([[1.0]], [0.0]),
        dict.fromkeys(names, 2.0),
        backends=[],
        implementations={"mine": lambda *_: blocks},
        derivative="hessian",
    )

    report.assert_agree()
    assert len({entry.parameter for entry in report.entries}) == len(names) ** 2

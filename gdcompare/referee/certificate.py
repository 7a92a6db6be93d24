"""Certificates: the true gradient of one problem at one point, in a file, for others to judge theirs against.

A certificate is JSON, and holds no decimal number. For each dtype (rounded inputs are other numbers, with another
truth) a section of arrays as nested lists:

    params, features, targets   the inputs, exact: hexadecimal floats, which Python reads by `float.fromhex`
    truth                       of the loss and each parameter's gradient: `balls` that contain the exact number, like
                                `0x3p-2 +/- 0x1p-140` (integers times powers of 2); `mid`, their middles to the nearest
                                float64; `kinks`, true where a ball holds one-sided derivatives; `pieces`, if there are
                                several: their `balls`, the k-th of each array from the same side, and the `values` of
                                the loss there, by number: a mixture of pieces of one value is as right as they are
    budgets                     how far a correct program may be off at worst, "differentiated" or "by hand"
    magnitudes                  the mean magnitude over the rows of the losses, and of each parameter's per-sample
                                gradients, beside which a budget must be small if digits are to be seen

So whoever reads it needs neither this suite nor any framework: a gradient is right if it is within its budget of some
number in its ball. The digest is the sha256 of all else, as JSON with sorted keys and no spaces: it shows damage, and
who notes it elsewhere is safe from forgery, too.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, is_dataclass, replace
from functools import cached_property, partial
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import Any, cast, final, get_args

import numpy as np
from flint import arb
from numpy.typing import NDArray

from gdcompare.backend import Backend, Precision, Reduction, checked_dtype
from gdcompare.case import Case, DataLike
from gdcompare.problem import Dataset, Problem, check_parameters, check_targets
from gdcompare.referee.allowance import allowance_within, either
from gdcompare.referee.context import context_of
from gdcompare.referee.enclosed import Enclosed, Pieces, balls_from, beside, text_of
from gdcompare.referee.enclosure import enclose_rows
from gdcompare.referee.judging import judged
from gdcompare.referee.point import Implementation, Referee, as_implementation, fitting
from gdcompare.referee.sampling import magnitudes
from gdcompare.referee.verdict import LOSS, Allowance, Entry, Floats, Report, Verdict, budgets_of
from gdcompare.registry import PROBLEMS, as_problem, backends_for, load_problem, problem_names
from gdcompare.writing import write_text

FORMAT, VERSION = "gdcompare certificate", 1
WAY_OUT = "get the original again, or write a new one: gdcompare verify PROBLEM --certificate FILE"
CAUSES = {
    "wrong": "the recomputed enclosure lies elsewhere: another formula?",
    "inconclusive": "it leaves more than twice the room that this version would",
    "agree": "",
}
KINDS = {False: "differentiated", True: "by hand"}

_hex = np.frompyfunc(lambda value: float(value).hex(), 1, 1)
_from_hex = np.frompyfunc(float.fromhex, 1, 1)
_overlap = np.frompyfunc(arb.overlaps, 2, 1)


def certify(problem: str | Problem, data: DataLike = None, params: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the certificate of a problem at a point, in plain values; all three are what `verify` takes.

    A dtype that the inputs are too large for has, instead of a section, the words that say so.

    >>> import gdcompare as gdc
    >>> data = gdc.Dataset([[1.0], [3.0]], [2.0, 4.0])
    >>> certificate = certify("linear-regression", data, {"theta_0": 1, "theta_1": [0]})
    >>> certificate["sections"]["float64"]["truth"]["theta_1"]
    {'balls': ['-0x5p1 +/- 0x0p0'], 'mid': ['-0x1.4000000000000p+3'], 'kinks': [False]}
    """
    case = Case.of(problem, data, params)
    if case.problem.derived:
        case.check_derivation()
    exact = Referee(case)
    sections: dict[str, Any] = {exact.dtype: _section(exact)}
    for dtype in set(get_args(Precision)) - {exact.dtype}:
        try:
            sections[dtype] = _section(Referee(Case.of(case.problem, case.data, case.params, dtype)))
        except ValueError as error:
            sections[dtype] = str(error)
    name = name_of(case.problem)
    contents = {
        "format": FORMAT,
        "version": VERSION,
        "problem": {"name": name, "is": _described(case.problem), "registered": name in problem_names()},
        "data": case.data.name,
        "environment": context_of(exact, case.data, [])["environment"]
        | {package: version(package) for package in ("gdcompare", "python-flint")},
        "sections": sections,
    }
    return contents | {"digest": digest(contents)}


def write(certificate: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Write the certificate to a file, in UTF-8; what stood there stays until all of it is written."""
    write_text(path, json.dumps(certificate, indent=1) + "\n")


def read(source: str | os.PathLike[str] | Mapping[str, Any]) -> dict[str, Any]:
    """Return the certificate in a file, or the one given, once it is known to be whole.

    Raises LookupError if there is no such file, ValueError for what is no certificate, is of another version, lacks
    something, or has changed since it was written.

    >>> read({"format": "gdcompare certificate", "version": 7})
    Traceback (most recent call last):
    ...
    ValueError: the certificate is of version 7, and this gdcompare reads version 1: use a newer gdcompare, or write a \
new certificate
    """
    found: Any = source
    if not isinstance(source, Mapping):
        path = Path(source)
        if not path.is_file():
            raise LookupError(f"there is no file {str(path)!r}")
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:  # also text that is not UTF-8
            raise ValueError(f"{path.name!r} is no certificate, or was cut short ({error}); {WAY_OUT}") from None
    if not isinstance(found, Mapping) or found.get("format") != FORMAT:
        raise ValueError(f"this is no certificate: its format is not {FORMAT!r}; {WAY_OUT}")
    if _has(found, "version") != VERSION:
        raise ValueError(
            f"the certificate is of version {found['version']}, and this gdcompare reads version {VERSION}: "
            "use a newer gdcompare, or write a new certificate"
        )
    try:
        written, now = _has(found, "digest"), digest(found)
    except RecursionError as error:
        raise ValueError(f"the certificate is nested too deeply ({error}); {WAY_OUT}") from None
    if written != now:
        raise ValueError(f"the certificate was changed or damaged: its digest is {written}, not {now}; {WAY_OUT}")
    for name, kind in {"problem": Mapping, "data": str, "environment": Mapping, "sections": Mapping}.items():
        if not isinstance(_has(found, name), kind):
            raise ValueError(f"the certificate's {name!r} is a {type(found[name]).__name__}; {WAY_OUT}")
    return dict(found)


def digest(certificate: Mapping[str, Any]) -> str:
    """Return the sha256 of all of a certificate but its digest.

    >>> digest({"b": 1, "a": 2}) == digest({"a": 2, "b": 1, "digest": "..."})
    True
    """
    contents = {key: value for key, value in certificate.items() if key != "digest"}
    return "sha256:" + hashlib.sha256(json.dumps(contents, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def check_certificate(
    source: str | os.PathLike[str] | Mapping[str, Any],
    backends: Sequence[str | Backend[Any]] | None = None,
    implementations: Mapping[str, Implementation] | None = None,
    dtype: str = "float64",
    *,
    problem: str | Problem | None = None,
    recompute: bool = False,
) -> Report:
    """Judge backends and implementations, as `verify` does, by the truth and the budgets that a certificate states.

    Nothing is computed anew, unless `recompute=True`, which judges the certificate, too: `wrong` where the recomputed
    enclosure does not meet the stated one, `inconclusive` where it leaves more room than this version would.

    `backends=None` takes all that are installed, or none if there are implementations to judge and the problem is not
    registered here. The code that a certificate names is never run: a problem that is not registered must be given.

    Raises what `read` does; ValueError for a dtype that it lacks, or a problem that is another or must be given.

    >>> import gdcompare as gdc
    >>> certificate = certify("linear-regression", gdc.datasets.noisy_line())
    >>> check_certificate(certificate, backends=["numpy"], dtype="float32", recompute=True).verdict
    'agree'
    """
    certificate = read(source)
    stated = certificate["problem"]
    found = _problem(stated, problem)
    point = _point(certificate, checked_dtype(dtype), found)
    loaded: list[Backend[Any]] = []
    if found is not None:
        loaded = backends_for(found, backends, dtype)
    elif backends or recompute or not (implementations or backends is not None):
        registered = ", ".join(problem_names())
        raise ValueError(
            f"the certificate is about {stated['is']}, {stated['name']!r}, which is not registered here: give it as "
            f"problem, or judge implementations alone; registered: {registered}"
        )
    entries = list(_recomputed(point)) if recompute else []
    for backend in loaded:
        if backend.dtype != dtype:
            raise ValueError(f"backend {backend.name!r} computes in {backend.dtype}, not {dtype}")
        allowed = point.allowances(getattr(backend, "by_hand", False))
        implementation = as_implementation(backend, cast("Problem", found))
        entries += judged(point, backend.name, implementation, allowed, may_raise=False)
    larger = either(point.allowances(True), point.allowances(False))
    for name, implementation in (implementations or {}).items():
        entries += judged(point, name, implementation, larger, may_raise=True)
    context = context_of(point, replace(point.data, name=certificate["data"]), loaded)
    origin = {key: certificate[key] for key in ("digest", "environment")}
    return Report(tuple(entries), context | {"problem": stated["name"], "certificate": origin})


def name_of(problem: Problem) -> str:
    """Return the name under which `load_problem` finds an equal problem, or else `module:Class`.

    >>> name_of(load_problem("linear-regression"))
    'linear-regression'
    """
    path = f"{type(problem).__module__}:{type(problem).__qualname__}"
    module = type(problem).__module__
    names = (entry.name for entry in entry_points(group=PROBLEMS) if entry.value.partition(":")[0] == module)
    return next((name for name in names if load_problem(name) == problem), path)


def _described(problem: Problem) -> str:
    """Return the class with its settings: two problems of one name may differ in them."""
    return repr(problem) if is_dataclass(problem) else type(problem).__qualname__


def _problem(stated: Mapping[str, Any], given: str | Problem | None) -> Problem | None:
    """Return the problem given, or the registered one that the certificate names, if it is the one meant."""
    name, meant = _has(stated, "name"), _has(stated, "is")
    if given is not None and _described(as_problem(given)) != meant:
        raise ValueError(f"the certificate is about {meant}, not about {_described(as_problem(given))}")
    if given is None and name not in problem_names():
        return None
    found = as_problem(name if given is None else given)
    return found if _described(found) == meant else None


def _section(referee: Referee) -> dict[str, Any]:
    truth = {
        name: {"balls": each.to_text(), "mid": _written(each.mid), "kinks": each.kinks.tolist()} | _pieces_of(each)
        for name, each in referee.all_sides().items()
    }
    return {
        "params": _all_written(referee.params),
        "features": _written(referee.features),
        "targets": _written(referee.targets),
        "weights": None if referee.weights is None else _written(referee.weights),
        "truth": truth,
        "kinks": list(referee.kinks),
        "budgets": {
            words: _all_written(budgets_of(referee.allowances(by_hand, proven_only=True)))
            for by_hand, words in KINDS.items()
        },
        "magnitudes": _all_written(referee.magnitudes),
    }


def _pieces_of(truth: Enclosed) -> dict[str, Any]:
    if truth.pieces is None:
        return {}
    return {"pieces": {"balls": text_of(truth.pieces.balls), "values": truth.pieces.values.tolist()}}


@final
@dataclass(frozen=True, eq=False)
class CertifiedPoint:
    """What a certificate knows at one dtype: to the judge, it stands for a `Referee`."""

    problem: Problem | None
    dtype: Precision
    params: dict[str, NDArray[Any]]
    features: NDArray[Any]
    targets: NDArray[Any]
    weights: NDArray[Any] | None
    truths: dict[str, Enclosed]
    kinks: tuple[str, ...]
    allowed: dict[bool, dict[str, Floats]]
    stated: dict[str, Floats] | None = None
    """The mean magnitudes; None where an older version wrote none."""
    reduction: Reduction = "mean"

    @property
    def data(self) -> Dataset:
        """The data in the dtype."""
        return Dataset(self.features, self.targets, weights=self.weights)

    @property
    def point(self) -> tuple[Any, ...]:
        """(params, features, targets), and weights if any: copies, so that an implementation cannot harm them."""
        data = (self.features, self.targets, *([] if self.weights is None else [self.weights]))
        return {name: value.copy() for name, value in self.params.items()}, *(each.copy() for each in data)

    def budgets(self, by_hand: bool) -> dict[str, Floats]:
        """Return what a correct program may be off by."""
        return self.allowed[by_hand]

    def allowances(self, by_hand: bool) -> dict[str, Allowance]:
        """Return the same, beside what the elements are measured by: a certificate's evidence is the worst case."""
        return {
            name: allowance_within(self.truths[name], budget, partial(self._magnitude, name))
            for name, budget in self.budgets(by_hand).items()
        }

    def _magnitude(self, name: str) -> Floats:
        return self.magnitudes[name]

    @cached_property
    def magnitudes(self) -> dict[str, Floats]:
        """The mean magnitudes of losses and per-sample gradients: as stated, or computed, or else the truths'."""
        if self.stated is not None:
            return self.stated
        if self.problem is None:
            return {name: np.abs(truth.mid) for name, truth in self.truths.items()}
        loss, gradient = magnitudes(self.problem, self.params, self.features, self.targets, self.weights)
        return {LOSS: loss, **gradient}

    def towards(self, gradient: Mapping[str, Any], budgets: Mapping[str, Floats]) -> dict[str, Enclosed]:
        """Return the truths, and at kinks those members of the certified set that are nearest to this gradient."""
        pieces = {name: truth.pieces for name, truth in self.truths.items() if truth.pieces is not None}
        judged = fitting(gradient, {name: self.truths[name] for name in pieces})
        return beside(self.truths, pieces, judged, budgets) if judged else self.truths

    def convention(self, gradient: Mapping[str, Any], budgets: Mapping[str, Floats]) -> str:
        """Nothing: a certificate knows the sides, not the ties."""
        del gradient, budgets
        return ""

    @cached_property
    def row_truths(self) -> dict[str, Enclosed]:
        """The per-sample gradients, computed anew: only the search for a cause asks. Unknown without the problem."""
        if self.problem is None:
            return {}
        return enclose_rows(self.problem, self.params, self.features, self.targets, self.weights)


def _point(certificate: Mapping[str, Any], dtype: Precision, problem: Problem | None) -> CertifiedPoint:
    """Read a section. If the digest fits, only a hand that wrote it anew can have made it unreadable."""
    section = _has(certificate["sections"], dtype)
    if isinstance(section, str):
        raise ValueError(f"the certificate has nothing for {dtype}: {section}")
    try:
        params = {name: _read(value, dtype) for name, value in _has(section, "params").items()}
        features, targets = (_read(_has(section, name), dtype) for name in ("features", "targets"))
        weights = None if section.get("weights") is None else _read(section["weights"], dtype)
        shapes = {LOSS: (), **{name: value.shape for name, value in params.items()}}
        truths = {name: _truth(_has(_has(section, "truth"), name)) for name in shapes}
        budgets = {by_hand: _has(_has(section, "budgets"), words) for by_hand, words in KINDS.items()}
        allowed = {by_hand: {name: _read(_has(each, name)) for name in shapes} for by_hand, each in budgets.items()}
        for name, shape in shapes.items():
            if {
                truths[name].balls.shape,
                truths[name].kinks.shape,
                *(each[name].shape for each in allowed.values()),
            } != {shape}:
                raise ValueError(f"the shapes of {name!r} differ")
        stated = section.get("magnitudes")
        sizes = None if stated is None else {name: _read(_has(stated, name)) for name in shapes}
        if sizes is not None and any(sizes[name].shape != shape for name, shape in shapes.items()):
            raise ValueError("the shapes of the magnitudes differ")
        if features.ndim != 2 or len(targets) != len(features):
            raise ValueError(f"features have the shape {features.shape}, targets {targets.shape}")
        if weights is not None and weights.shape != features.shape[:1]:
            raise ValueError(f"features have the shape {features.shape}, weights {weights.shape}")
        if problem is not None:
            data = Dataset(features, targets, weights=weights)
            check_targets(problem, data)
            check_parameters(problem, data, params)
        kinks = tuple(map(str, _has(section, "kinks")))
    except (ValueError, TypeError, AttributeError, OverflowError, MemoryError, RecursionError) as error:
        raise ValueError(f"the certificate's section {dtype!r} cannot be read: {error}") from None
    return CertifiedPoint(problem, dtype, params, features, targets, weights, truths, kinks, allowed, sizes)


def _truth(stated: Mapping[str, Any]) -> Enclosed:
    kinks = np.asarray(_has(stated, "kinks"), dtype=bool)
    truth = Enclosed(balls_from(_has(stated, "balls")), kinks, _pieces(stated.get("pieces"), kinks))
    if not np.array_equal(truth.mid, _read(_has(stated, "mid")), equal_nan=True):
        raise ValueError("a middle is not that of its ball")
    return truth


def _pieces(stated: Mapping[str, Any] | None, kinks: NDArray[np.bool_]) -> Pieces | None:
    """Read the pieces; a certificate of version 0.1 has none, and what its balls hold is right."""
    if stated is None:
        return None
    pieces = Pieces(balls_from(_has(stated, "balls")), np.asarray(_has(stated, "values"), dtype=np.intp))
    if pieces.balls.shape != (*pieces.values.shape, *kinks.shape):
        raise ValueError(f"there are pieces of the shape {pieces.balls.shape}, and values {pieces.values.shape}")
    return pieces


def _recomputed(point: CertifiedPoint) -> Iterator[Entry]:
    """Judge the certificate itself: its balls, and the room it leaves, beside those computed from its inputs."""
    assert point.problem is not None
    referee = Referee(Case.of(point.problem, point.data, point.params, point.dtype))
    for name, now in referee.truths.items():
        stated = point.truths[name]
        apart = ~np.asarray(_overlap(stated.balls, now.balls), dtype=bool)
        ours_by = {by_hand: referee.allowances(by_hand, proven_only=True)[name].budget for by_hand in KINDS}
        rooms = [(point.budgets(by_hand)[name], ours_by[by_hand]) for by_hand in KINDS]
        wider = any(np.any(theirs + stated.rad > 2 * (ours + now.rad)) for theirs, ours in rooms)
        verdict: Verdict = "wrong" if apart.any() else "inconclusive" if wider else "agree"
        off = np.where(apart, np.inf, np.abs(stated.mid - now.mid))
        worst = tuple(int(i) for i in np.unravel_index(np.argmax(off), off.shape))
        mids = float(stated.mid[worst]), float(now.mid[worst])
        yield Entry("the certificate", name, verdict, worst, *mids, cause=CAUSES[verdict])


def _written(values: NDArray[Any]) -> Any:
    return np.asarray(_hex(values), dtype=object).tolist()


def _all_written(arrays: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    return {name: _written(value) for name, value in arrays.items()}


def _read(text: Any, dtype: Precision = "float64") -> NDArray[Any]:
    try:
        exact = np.asarray(_from_hex(np.asarray(text, dtype=object)), dtype=np.float64)
    except TypeError:
        raise ValueError("an array is ragged, or does not hold hexadecimal floats") from None
    values = exact.astype(dtype)
    if not np.array_equal(values, exact, equal_nan=True):
        raise ValueError(f"a number is not a {dtype}")
    return values


def _has(mapping: Mapping[str, Any], key: str) -> Any:
    """Return the value, or say what is missing."""
    if key not in mapping:
        raise ValueError(f"the certificate lacks {key!r}; {WAY_OUT}")
    return mapping[key]

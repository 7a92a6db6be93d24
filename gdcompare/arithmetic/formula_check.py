"""Mistakes in a problem's formulas, found before the work starts and said with their file, line and remedy.

A formula runs on NumPy arrays, on tracers that know no values, and on balls. What works on the first alone fails deep
inside a framework, in its words. So it runs here first, on a few rows:

* on NumPy arrays, where what it raises is its own mistake, and where its result must have a loss for each row;
* on the referee's tape, which refuses what not every array library can: NumPy's own functions, branches on values,
  updates in place;
* on each of these rows alone: a loss that changes, beyond rounding, depends on the other rows.

What passes once is not looked at again.
"""

from __future__ import annotations

import ast
import builtins
import difflib
import inspect
import linecache
import traceback
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import numpy as np

from gdcompare.arithmetic.rounded import RoundedNumbers
from gdcompare.arithmetic.tape import Tape, Variable, known_functions
from gdcompare.own_files import is_installed, shown_path
from gdcompare.problem import Dataset, NotDerivedError, Problem, drawn_parameters

ROWS = 4
"""How many rows a formula is tried on."""

LOSSES, ROW_GRADIENTS, GRADIENT = "per_sample_losses", "per_sample_gradients", "value_and_gradient"

# What NumPy and Python call functions that the array API standard calls otherwise.
STANDARD_NAMES = {
    "absolute": "abs", "amax": "max", "amin": "min", "arccos": "acos", "arccosh": "acosh", "arcsin": "asin",
    "arcsinh": "asinh", "arctan": "atan", "arctan2": "atan2", "arctanh": "atanh", "concatenate": "concat",
    "cumprod": "cumulative_prod", "cumsum": "cumulative_sum", "dot": "matmul", "fabs": "abs", "float_power": "pow",
    "fmax": "maximum", "fmin": "minimum", "hstack": "concat", "mod": "remainder", "power": "pow", "rint": "round",
    "transpose": "permute_dims", "true_divide": "divide", "vstack": "concat",
}  # fmt: skip

_SUITE = __name__.partition(".")[0]

_passed: set[Hashable] = set()


class FormulaError(ValueError):
    """A formula that cannot work, said with its place and how to mend it; what it raised is the `__cause__`."""


class _BeyondTheRefereeError(Exception):
    """What only the referee cannot run."""


class _MissingParameterError(KeyError):
    """A name that is no parameter's."""


class _Parameters(dict[str, Any]):
    def __missing__(self, name: object) -> Any:
        near = difflib.get_close_matches(str(name), self, 1)
        guess = f"; did you mean {near[0]!r}?" if near else ""
        raise _MissingParameterError(f"there is no parameter {name!r}; parameter_shapes has: {', '.join(self)}{guess}")


def check_formula(problem: Problem, data: Dataset, *, by_hand: bool, refereed: bool) -> None:
    """Raise a FormulaError if the problem's formulas cannot work on data of this width.

    `by_hand` says that the hand-derived formulas will be used, too, and `refereed` that the referee will judge them, so
    that they must also keep to the functions that it knows. Wrong derivatives are no concern of this check.

    >>> from gdcompare.problems.linear_regression import LinearRegression
    >>> data = Dataset([[1.0], [3.0]], [2.0, 4.0])
    >>> check_formula(LinearRegression(), data, by_hand=True, refereed=True)
    >>> class Mean(Problem):
    ...     def parameter_shapes(self, data):
    ...         return {"m": ()}
    ...     def per_sample_losses(self, xp, params, features, targets):
    ...         return xp.mean((params["m"] - targets) ** 2)
    >>> check_formula(Mean(), data, by_hand=False, refereed=True)
    Traceback (most recent call last):
    ...
    gdcompare.arithmetic.formula_check.FormulaError: Mean.per_sample_losses returns one number where (n,) is due, \
a loss for each row: drop the mean or sum, the suite takes it
    """
    if problem.formula_is_read:
        return
    width = (data.features.shape[1:], data.targets.shape[1:])
    due = [(problem, *width, part, refereed) for part in (False, True)[: 1 + by_hand]]
    due = [key for key in due if key not in _passed]
    if not due:
        return
    with np.errstate(all="ignore"):
        trial = _Trial(problem, data)
        for *_, derived, _ in due:
            if derived:
                trial.derivation(refereed)
            else:
                trial.losses_on_arrays()
                trial.losses_on_the_tape(refereed)
    if len(_passed) >= 1000:
        _passed.clear()
    _passed.update(due)


def checked_shapes(problem: Problem, data: Dataset) -> dict[str, tuple[int, ...]]:
    """Return the problem's parameter shapes; a FormulaError unless they are shapes, and from the data's width alone.

    >>> from gdcompare.problems.linear_regression import LinearRegression
    >>> checked_shapes(LinearRegression(), Dataset([[1.0], [3.0]], [2.0, 4.0]))
    {'theta_0': (), 'theta_1': (1,)}
    """
    formula = "parameter_shapes"
    with _said_of(formula):
        shapes, of_one = (
            problem.parameter_shapes(data),
            problem.parameter_shapes(Dataset(data.features[:1], data.targets[:1])),
        )
    if not isinstance(shapes, Mapping) or not shapes:
        raise FormulaError(
            f"{_name(problem, formula)} returns {_kind(shapes)} where {{name: shape}} is due, such as "
            "{'slopes': (3,), 'offset': ()}"
        )
    for name, shape in shapes.items():
        if not isinstance(name, str) or name in ("", "loss"):
            why = "is the loss's own name" if name == "loss" else "is no name: give text"
            raise FormulaError(f"{_name(problem, formula)} has a parameter {name!r}, which {why}")
        if not isinstance(shape, tuple) or not all(isinstance(length, int | np.integer) for length in shape):
            raise FormulaError(
                f"{_name(problem, formula)} gives {name!r} the shape {shape!r}; a shape is a tuple of whole numbers: "
                "(3,), or () for a single number"
            )
        if 0 in shape:
            raise FormulaError(
                f"{_name(problem, formula)} gives {name!r} the shape {shape}, of no elements: leave it out"
            )
    if shapes != of_one:
        raise FormulaError(
            f"{_name(problem, formula)} depends on the number of rows: {dict(shapes)} for {len(data)}, "
            f"{dict(of_one)} for 1; the suite takes batches, so use the widths alone, data.features.shape[1]"
        )
    return dict(shapes)


class _Trial:
    """A problem's formulas on a few rows of the data, at generic parameters."""

    def __init__(self, problem: Problem, data: Dataset) -> None:
        self.problem = problem
        shapes = checked_shapes(problem, data)
        with _said_of("start"):
            params = drawn_parameters(problem, data)
        started = {name: value.shape for name, value in params.items()}
        if started != shapes:
            raise FormulaError(
                f"{_name(problem, 'start')} returns the shapes {started}, but parameter_shapes says {shapes}"
            )
        self.params = params
        self.rows = np.unique(np.linspace(0, len(data) - 1, ROWS).astype(int))
        self.features, self.targets = data.features[self.rows], data.targets[self.rows]

    def losses_on_arrays(self) -> None:
        """All the rows at once, and the first alone, must give a loss for each."""
        for rows in (slice(None), slice(0, 1)):
            losses = self._on_arrays(LOSSES, rows)
            n = len(self.rows[rows])
            if not isinstance(losses, np.ndarray | np.generic) or losses.shape != (n,):
                raise FormulaError(f"{_name(self.problem, LOSSES)} {_wrong_losses(losses, n)}")

    def losses_on_the_tape(self, refereed: bool) -> None:
        """Each row's loss must be the same alone, to within rounding, and some parameter must matter."""
        whole = self._on_tape(LOSSES, slice(None), refereed)
        if whole is None:
            return
        if not isinstance(whole, Variable) or not whole.tracked:
            raise FormulaError(
                f"{_name(self.problem, LOSSES)} uses no parameter, so that there is nothing to differentiate by"
            )
        for i, row in enumerate(self.rows):
            alone = self._on_tape(LOSSES, slice(i, i + 1), refereed)
            again = self._on_tape(LOSSES, slice(i, i + 1), refereed)
            assert alone is not None
            assert again is not None
            among, itself, repeated = whole.value[0, i], alone.value[0, 0], again.value[0, 0]
            if np.abs(repeated.value - itself.value) > 0:
                raise FormulaError(
                    f"{_name(self.problem, LOSSES)} gives another loss at each call: of row {row} {itself.value:.6g}, "
                    f"and then {repeated.value:.6g}. Does it draw random numbers, or keep something? Draws are data"
                )
            if np.abs(among.value - itself.value) > among.spread + itself.spread:
                raise FormulaError(
                    f"{_name(self.problem, LOSSES)} couples samples: the loss of row {row} is {among.value:.6g} among "
                    f"{len(self.rows)} rows and {itself.value:.6g} alone. Then the mean of the per-sample gradients is "
                    "not the gradient, and no batch law can hold. Compute what depends on all rows (a mean, a "
                    "deviation, 1/n) once, and give it as a column of the data, a setting or a parameter; or judge "
                    "the one number as gdcompare.Operation(formula, w=(3,)), whose formula(xp, w) returns it"
                )

    def derivation(self, refereed: bool) -> None:
        """The hand-derived formulas must run and return arrays by name; whether they are right is another question."""
        due = {ROW_GRADIENTS: "{name: (n, *shape)}", GRADIENT: "(loss, {name: gradient})"}
        for formula in due:
            try:
                found = self._on_arrays(formula, slice(None))
            except FormulaError as error:
                if isinstance(error.__cause__, NotImplementedError):  # left out on purpose
                    continue
                raise
            pair = isinstance(found, tuple) and len(found) == 2
            gradient = found if formula == ROW_GRADIENTS else found[1] if pair else None
            if not isinstance(gradient, Mapping):
                raise FormulaError(f"{_name(self.problem, formula)} returns {_kind(found)}, not {due[formula]}")
            if formula == ROW_GRADIENTS:
                self._refuse_rows_that_are_none(gradient)
            if refereed:
                self._on_tape(formula, slice(None), refereed)

    def _refuse_rows_that_are_none(self, gradient: Mapping[str, Any]) -> None:
        for name, each in gradient.items():
            if np.shape(each)[:1] != self.rows.shape:
                raise FormulaError(
                    f"{_name(self.problem, ROW_GRADIENTS)} gives {name!r} the shape {np.shape(each)} for "
                    f"{len(self.rows)} rows; it must begin with {len(self.rows)}, a gradient for each row"
                )

    def _on_arrays(self, formula: str, rows: slice) -> Any:
        params = _Parameters({name: _read_only(value) for name, value in self.params.items()})
        features, targets = _read_only(self.features[rows]), _read_only(self.targets[rows])
        with _said_of(formula):
            return getattr(self.problem, formula)(np, params, features, targets)

    def _on_tape(self, formula: str, rows: slice, refereed: bool) -> Any:
        """Return what the formula makes of the tape's arrays; None where only the referee would mind that it cannot."""
        tape = Tape(RoundedNumbers("float64"))
        params = _Parameters({name: tape.leaf(value) for name, value in self.params.items()})
        try:
            with _said_of(formula, tape):
                return getattr(self.problem, formula)(
                    tape, params, tape.asarray(self.features[rows]), tape.asarray(self.targets[rows])
                )
        except _BeyondTheRefereeError as error:
            if refereed:
                raise FormulaError(str(error)) from error.__cause__
            return None


def _read_only(array: Any) -> Any:
    """Return a copy that nothing can be written into: what a formula is given is not its own."""
    copy = np.array(array)
    copy.flags.writeable = False
    return copy


def _wrong_losses(losses: Any, n: int) -> str:
    """Say what is wrong with the losses of n rows."""
    if losses is None:
        return "returns None where (n,) is due, a loss for each row: is its return missing?"
    if not isinstance(losses, np.ndarray | np.generic | float | int):
        return f"returns a {type(losses).__name__} where an array (n,) is due, a loss for each row: see xp.stack"
    shape = np.shape(losses)
    if shape == ():
        return "returns one number where (n,) is due, a loss for each row: drop the mean or sum, the suite takes it"
    why = f"returns shape {shape} for {n} rows where ({n},) is due, a loss for each row"
    if shape == (n, n) and n > 1:
        return f"{why}: arrays (n, 1) and (n,) make (n, n) together; take one column, features[:, 0]"
    return f"{why}: {'take [:, 0]' if shape == (n, 1) else 'sum over all axes but the first'}"


class _Place(NamedTuple):
    """Where in somebody's file an error arose."""

    frame: FrameType
    line: traceback.FrameSummary

    @property
    def code(self) -> str:
        """The expression that failed, or its line where Python does not know."""
        first, last, start, end = self.line.lineno, self.line.end_lineno, self.line.colno, self.line.end_colno
        if None in (first, last, start, end) or last is None or first is None:
            return self.line.line or ""
        lines = [linecache.getline(self.line.filename, number).encode() for number in range(first, last + 1)]
        lines[-1] = lines[-1][:end]
        lines[0] = lines[0][start:]
        return " ".join(b"".join(lines).decode().split())

    def called(self, xp: Any) -> tuple[str, Any] | None:
        """Return the function called there, as it is written and as it is, unless it is one of xp."""
        try:
            call = ast.parse(self.code, mode="eval").body
        except SyntaxError:
            return None
        if not isinstance(call, ast.Call):
            return None
        written = ast.unparse(call.func)
        root, *rest = written.split(".")
        spaces = (self.frame.f_locals, self.frame.f_globals, vars(builtins))
        found = next((space[root] for space in spaces if root in space), None)
        if found is xp:
            return None
        for name in rest:
            found = getattr(found, name, None)
        return None if found is None else (written, found)


@contextmanager
def _said_of(formula: str, tape: Tape | None = None) -> Iterator[None]:
    """Say what a formula raises with its place in somebody's file; what the suite's own raise stays as it is."""
    try:
        yield
    except NotDerivedError:
        raise
    except Exception as error:
        place = _place(error)
        if place is None:
            raise
        kind, words = _explained(formula, error, place, tape)
        if words is None:
            raise
        head = f"{shown_path(place.line.filename)}:{place.line.lineno}: "
        raise kind(f"{head}{words}\n    {place.line.line}") from error


@contextmanager
def said_of_backend(backend: str) -> Iterator[None]:
    """Say where in somebody's formula a backend fails, and how to mend it; what arose elsewhere stays as it is."""
    try:
        yield
    except (NotDerivedError, FormulaError):
        raise
    except Exception as error:
        place = _place(error)
        if place is None or is_installed(place.line.filename):
            raise
        what, *_ = str(error).strip().splitlines() or [""]
        raise FormulaError(
            f"{shown_path(place.line.filename)}:{place.line.lineno}: {place.frame.f_code.co_name} runs on NumPy's "
            f"arrays, but not on those of {backend!r}: {type(error).__name__}: {what}{_way_out(error)}\n"
            f"    {place.line.line}"
        ) from error


def _way_out(error: Exception) -> str:
    """Return what to write, where the words of a framework tell what was wrong."""
    words = str(error).lower()
    if "unary +" in words or "positive" in words:
        return "; leave the sign away"
    if "step" in words:
        return "; not every array library slices backwards: write xp.flip"
    if isinstance(error, NotImplementedError | AttributeError):
        return "; write it by other functions, or name the backends that have it: --backend, backends="
    if isinstance(error, TypeError) or any(each in words for each in ("dtype", np.__name__, "scalar type")):
        return "; give constants as arrays of xp, in the dtype of the data: xp.asarray(W, dtype=features.dtype)"
    return ""


def where_in_formula(error: Exception) -> str:
    """Return the file, the line, the code and the function in which an error arose; empty if it arose in no formula."""
    place = _place(error)
    if place is None:
        return ""
    return f"{shown_path(place.line.filename)}:{place.line.lineno}: `{place.code}` in {place.line.name}"


def _place(error: Exception) -> _Place | None:
    """Return the innermost place in somebody's own file, or else in any that is neither ours nor NumPy's."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    places = [
        _Place(frame, line)
        for frame, line in zip(frames, traceback.extract_tb(error.__traceback__), strict=True)
        if str(frame.f_globals.get("__name__")).partition(".")[0].partition("_")[0] not in (_SUITE, np.__name__)
    ]
    own = [place for place in places if not is_installed(place.line.filename)]
    return next(reversed(own or places), None)


def _explained(formula: str, error: Exception, place: _Place, tape: Tape | None) -> tuple[type[Exception], str | None]:
    """Return what to raise for an error, and its words: what is wrong, and how to mend it; None if nobody knows."""
    if isinstance(error, _MissingParameterError):
        return FormulaError, str(error.args[0])
    raised = f"{type(error).__name__}: {error}"
    called = place.called(np if tape is None else tape)
    foreign = None if called is None else _foreign(*called, place)
    if tape is None and isinstance(error, AttributeError) and error.obj is np:
        return FormulaError, f"xp.{error.name} is no function of the array API standard{_or(error.name)}"
    if isinstance(error, NameError) and error.name in ("np", np.__name__, "math"):
        return FormulaError, f"{formula} raises {raised}; write xp for {error.name}"
    if tape is None and isinstance(error, ValueError) and "read-only" in raised:
        return FormulaError, f"{formula} changes what it was given: write z = z + ... for z += ..., or change a copy"
    if tape is None:
        branch = "; write & and | for `and` and `or`, xp.where for a branch" if "truth value" in raised else ""
        return FormulaError, f"{formula} raises {raised}" + (f"; it uses {foreign}" if foreign else branch)
    if "in place" in str(error):
        return FormulaError, (
            f"{formula} changes an array in place, which not every array library can: write z = z + ... for z += ..., "
            "and xp.where to change a part"
        )
    if foreign is not None:
        return FormulaError, f"{formula} uses {foreign}"
    if "may not branch" in str(error):
        return FormulaError, (
            f"{formula} branches on a value, `{place.code}`, which is not known while a framework traces the formula: "
            "write xp.where(condition, a, b)"
        )
    if isinstance(error, AttributeError) and isinstance(error.obj, Variable):
        return FormulaError, (
            f"{formula} uses the method or attribute .{error.name}, which not every array library has"
            f"{_or(error.name, ': write it with the functions of xp')}"
        )
    if isinstance(error, AttributeError) and error.obj is tape:
        advice = _or(error.name) or _near(str(error.name))
        return _BeyondTheRefereeError, f"the referee has no xp.{error.name}{advice}" if advice else str(error)
    if isinstance(error, AttributeError | IndexError | TypeError | ValueError):
        by_name = "; give the axis by name, axis=0" if "positional" in raised else ""
        return _BeyondTheRefereeError, f"the referee cannot run `{place.code}` in {formula}: {raised}{by_name}"
    return type(error), None


def _foreign(written: str, function: Any, place: _Place) -> str | None:
    """Say how to do without a function that is neither Python's nor one of the problem's own file."""
    if function in (max, min):
        return f"{written}, which branches on values: write xp.{written}imum"
    if function in (float, int, complex, bool, round):
        return f"{written}(...), which wants a known number, and a traced array is none: leave it an array"
    module = np.__name__ if isinstance(function, np.ufunc) else str(getattr(function, "__module__", None) or "")
    home = str(place.frame.f_globals.get("__name__"))
    if module in ("", home, builtins.__name__) or module.partition(".")[0] == _SUITE:
        return None
    name = written.rpartition(".")[2]
    return f"{written}, which takes no other library's arrays{_or(name, ': write it with the functions of xp')}"


def _or(name: str | None, otherwise: str = "") -> str:
    """Return the advice to write what the array API standard calls a function of that name, if it has it."""
    standard = STANDARD_NAMES.get(name or "", name)
    return f": write xp.{standard}" if standard in known_functions() and hasattr(np, standard) else otherwise


def _near(name: str) -> str:
    """Ask whether a function is meant whose name holds this one, or is like it.

    >>> _near("norm")
    ': is xp.matrix_norm or xp.vector_norm meant?'
    """
    known = known_functions()
    like = [each for each in known if name in each.split("_")] or difflib.get_close_matches(name, known, 2)
    return f": is {' or '.join(f'xp.{each}' for each in like)} meant?" if like else ""


def _name(problem: Problem, formula: str) -> str:
    """Return a formula's name, and where it stands if it is in a file.

    >>> from gdcompare.problems.linear_regression import LinearRegression
    >>> _name(LinearRegression(), LOSSES)  # doctest: +ELLIPSIS
    '...linear_regression.py:...: LinearRegression.per_sample_losses'
    """
    code = getattr(inspect.unwrap(getattr(type(problem), formula)), "__code__", None)
    written = f"{type(problem).__name__}.{formula}"
    if code is None or not Path(code.co_filename).is_file():
        return written
    return f"{shown_path(code.co_filename)}:{code.co_firstlineno}: {written}"


def _kind(value: Any) -> str:
    return "None" if value is None else f"a {type(value).__name__}"

"""Programs: what a framework computes, read from its own graph, as steps in the tape's vocabulary.

A reader, which lives with its framework, walks the graph and writes each operation down on a `Draft`, as a formula over
`xp` would. What comes out runs over any namespace with those names, and so over the tape in every number system: the
formula of a model that nobody has written as one.

The draft computes along in floats, so that shapes are known, and the end can be compared with what the framework found.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from gdcompare.arithmetic import moves
from gdcompare.arithmetic.numbers import Floats
from gdcompare.arithmetic.precision import NARROW, OF_FACTORS
from gdcompare.arithmetic.tape import Tape, Variable
from gdcompare.arithmetic.vocabulary import FUNCTIONS
from gdcompare.arithmetic.whole import known_whole

FREE_SIGNS = {"eigh", "svd", "qr"}
"""Functions of vectors of which any library chooses the signs."""


class ProgramError(ValueError):
    """A program that cannot be read, or cannot be trusted as it was read; says where and what to do."""


class UnsaidError(Exception):
    """What an operation does with these settings cannot be said in the vocabulary; readers add the line to it."""


def unread(name: str, error: BaseException) -> ProgramError:
    """Return what is raised for somebody's program that fails while it is read, by an error of its own.

    >>> str(unread("net", KeyError("w")))
    "the program of 'net' cannot be read: it raises KeyError there: 'w'"
    """
    words = str(error).strip().split(chr(10))[0]  # a framework's may fill pages
    return ProgramError(f"the program of {name!r} cannot be read: it raises {type(error).__name__} there: {words}")


class Earlier(NamedTuple):
    """The value of an input or of an earlier step, among the operands of one."""

    number: int


class Input(NamedTuple):
    """What a program is called with."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@final
@dataclass(frozen=True)
class Step:
    """One operation: the name of a function of the tape, what it is called with, and what it returns."""

    function: str
    operands: tuple[Any, ...]
    """`Earlier` values, arrays, and lists of these; settings such as shapes as they are."""
    settings: Mapping[str, Any]
    shape: tuple[int, ...]
    dtype: str
    line: str
    """Where in the user's file it stands, if the framework says so."""

    def __str__(self) -> str:
        where = f"  # {self.line}" if self.line else ""
        return f"{self.function} -> {self.dtype}{list(self.shape)}{where}"


MOVED = {"reshape", "broadcast_to", "permute_dims", "expand_dims", "squeeze", "astype"}
INDEX, DECIDE, PART = "index", "decide", "part"
EXACT = {INDEX, PART, "where", "max", "min", "negative", "abs", "sign", "stop_gradient"} | {
    name for name, function in FUNCTIONS.items() if function.__module__ == moves.__name__
}
"""Functions whose results are among their operands, but for the sign."""


@final
@dataclass(frozen=True, eq=False)
class Program:
    """A function of named arrays, step by step.

    >>> draft = Draft()
    >>> x = draft.input("x", np.array([1.0, 2.0]), "float64")
    >>> program = draft.program(draft.sum(x * draft.exp(x)))
    >>> print(program)
    program(x: float64[2])
    exp -> float64[2]
    multiply -> float64[2]
    sum -> float64[]
    >>> float(program(np, np.array([0.0, 1.0]))) == np.e
    True
    """

    inputs: tuple[Input, ...]
    steps: tuple[Step, ...]
    output: Any
    """The `Earlier` value that is returned, or a constant."""

    def __call__(self, xp: Any, *arrays: Any) -> Any:
        """Return what the program computes of these arrays, one for each input, over the namespace.

        NumPy has not all that the tape knows: for its arrays, the tape runs on floats.
        """
        if xp is np:
            tape = Tape(Floats())
            return self(tape, *map(tape.asarray, arrays)).value[0]
        return xp.asarray(_filled(self.output, self.values(xp, *arrays)))

    def values(self, xp: Any, *arrays: Any, last: int | None = None) -> list[Any]:
        """Return the inputs and what each step returns, over the namespace; `last` is the number of the last needed.

        >>> draft = Draft()
        >>> x = draft.input("x", np.array([1.0, 2.0]), "float64")
        >>> program = draft.program(draft.sum(x * x))
        >>> [each.value[0].tolist() for each in program.values(Tape(Floats()), np.array([1.0, 2.0]), last=1)[1:]]
        [[1.0, 4.0]]
        """
        values = list(arrays)
        within = getattr(xp, "within", lambda *_: None)
        for given, value in zip(self.inputs, values, strict=True):
            if given.dtype in NARROW and isinstance(value, Variable):
                value.precision = given.dtype
        for step in self.steps[: None if last is None else max(0, last + 1 - len(self.inputs))]:
            operands = [_filled(each, values) for each in step.operands]
            exactly = step.function in EXACT or step.dtype == OF_FACTORS
            within("" if step.dtype not in NARROW else step.dtype, exactly)
            try:
                values.append(_applied(xp, step.function, operands, step.settings))
            except AttributeError as error:
                raise ProgramError(f"{step.function}{_at(step.line)}: {error}") from error
        within("")
        return values

    @property
    def narrowest(self) -> str:
        """The narrowest dtype of `precision.NARROW` that a step rounds to; "" if none does."""
        dtypes = {each.dtype for each in self.inputs} | {each.dtype for each in self.steps}
        found = dtypes & set(NARROW)
        return max(found, key=lambda dtype: NARROW[dtype].u, default="")

    def without_slope(self) -> dict[int, list[str]]:
        """Return the inputs by which the output has no slope, as it is written: none of their ways to it has one.

        With each come the lines of the constants of the gradient behind which it is; none, if it does not enter at all.

        >>> draft = Draft()
        >>> x, y = (draft.input(name, np.array(2.0), "float64") for name in "xy")
        >>> draft.program(x * draft.stop_gradient(y)).without_slope()
        {1: ['']}
        """
        first = len(self.inputs)
        alive, behind = set(_numbers([self.output])), dict[int, dict[str, None]]()
        for i in range(len(self.steps) - 1, -1, -1):
            step, number = self.steps[i], first + i
            cut = {DECIDE: 1, "stop_gradient": 1, "straight_through": 1}.get(step.function, 0)
            constants, others = _numbers(step.operands[:cut]), _numbers(step.operands[cut:])
            if number in alive or step.function == DECIDE:
                alive.update(others)
            elif number in behind:
                constants += others
            for each in constants if number in alive or number in behind or step.function == DECIDE else ():
                behind.setdefault(each, {}).update(behind.get(number, {}) if number not in alive else {step.line: None})
        return {i: list(behind.get(i, {})) for i in range(first) if i not in alive}

    def crossing(self, name: str) -> str:
        """Return the line where an input (n,) meets what has the shape (n, 1), or the other way round, to make (n, n).

        >>> draft = Draft()
        >>> x, y = draft.input("x", np.zeros((3, 1)), "float64"), draft.input("y", np.zeros(3), "float64")
        >>> draft.program(draft.mean(x - y)).crossing("y")
        'subtract'
        """
        shapes = [each.shape for each in self.inputs]  # before they are broadcast
        itself = {i for i, each in enumerate(self.inputs) if each.name == name}
        for i, step in enumerate(self.steps, len(self.inputs)):
            given = _numbers(step.operands)
            alone = len(given) == 1 and step.function in MOVED
            if alone and given[0] in itself:
                itself.add(i)
            shapes.append(
                shapes[given[0]] if alone and (i in itself or step.function == "broadcast_to") else step.shape
            )
            mine, other = ({shapes[each] for each in given if (each in itself) == is_mine} for is_mine in (True, False))
            n = max(step.shape, default=0)
            crossed = ({(n,)}, {(n, 1)}), ({(n, 1)}, {(n,)}), ({(n, 1)}, {(1, n)})
            if not alone and n > 1 and step.shape == (n, n) and (mine, other) in crossed:
                return step.line or step.function
        return ""

    def signs_by(self, names: Collection[str]) -> str:
        """Name the operation whose vectors have signs that are chosen anew where these inputs move; "" if none has.

        The signs in a program are those where it was read: at other inputs a library may choose others.
        """
        moved = {i for i, each in enumerate(self.inputs) if each.name in names}
        for i, step in enumerate(self.steps, len(self.inputs)):
            if moved.intersection(_numbers(step.operands)):
                if step.function in FREE_SIGNS:
                    return f"{step.function} ({step.line})" if step.line else step.function
                moved.add(i)
        return ""

    def __str__(self) -> str:
        inputs = ", ".join(f"{name}: {dtype}{list(shape)}" for name, shape, dtype in self.inputs)
        return "\n".join([f"program({inputs})", *map(str, self.steps)])


def _filled(operand: Any, values: Sequence[Any]) -> Any:
    if isinstance(operand, Earlier):
        return values[operand.number]
    return [_filled(each, values) for each in operand] if isinstance(operand, list) else operand


def _applied(xp: Any, function: str, operands: Sequence[Any], settings: Mapping[str, Any]) -> Any:
    if function == INDEX:
        x, key = operands
        return x[key]
    if function == PART:
        several, i = operands
        return several[i]
    if function == DECIDE:
        return _decided(*operands)
    return getattr(xp, function)(*operands, **settings)


def _decided(condition: Any, found: bool | NDArray[np.bool_], line: str) -> Any:
    """Pass a condition that a branch was taken by, or a mask; refuse one that is known to be otherwise here."""
    if isinstance(condition, Variable):
        numbers, known = known_whole(condition.value)
        if (known & ((numbers != 0) != found)).any():
            raise ProgramError(
                f"a branch{_at(line)} goes one way for some rows or values, and the other way for others: write it "
                "with where, which takes both"
            )
    return condition


def _at(line: str) -> str:
    return f" at {line}" if line else ""


# Writing a program down


def _operator(name: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    return lambda a, b: getattr(a.draft, name)(a, b), lambda b, a: getattr(b.draft, name)(a, b)


@final
class Place:
    """A value of a program that is being written down; its operators are the functions of the tape."""

    __array_ufunc__ = None  # NumPy's arrays leave their operators to us

    def __init__(self, draft: Draft, number: int, known: Variable, dtype: str) -> None:
        self.draft, self.number, self.known, self.dtype = draft, number, known, dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return self.known.shape

    @property
    def value(self) -> NDArray[np.float64]:
        """What it is at the point where the program is read."""
        return np.asarray(self.known.value[0])

    ndim = property(lambda self: len(self.shape))
    size = property(lambda self: math.prod(self.shape))

    __add__, __radd__ = _operator("add")
    __sub__, __rsub__ = _operator("subtract")
    __mul__, __rmul__ = _operator("multiply")
    __truediv__, __rtruediv__ = _operator("divide")
    __pow__, __rpow__ = _operator("pow")
    __matmul__, __rmatmul__ = _operator("matmul")

    def __neg__(self) -> Any:
        return self.draft.negative(self)

    def __getitem__(self, key: Any) -> Any:
        return self.draft.index(self, key)


@final
class Draft:
    """A namespace that writes down what is done, and does it in floats.

    `draft.function(...)` is a step for each function of the tape, with `Place`s among its operands or constants alone.
    """

    def __init__(self) -> None:
        self._tape = Tape(Floats())
        self._inputs: list[Input] = []
        self._values: list[NDArray[Any]] = []
        self._steps: list[Step] = []
        self._chosen: dict[int, tuple[Any, ...]] = {}  # what each `where` was called with
        self._line, self._dtype = "", "float64"

    def input(self, name: str, value: NDArray[Any], dtype: str) -> Place:
        """Return the next input; they come before all steps."""
        self._inputs.append(Input(name, np.shape(value), dtype))
        self._values.append(value)
        return Place(self, len(self._inputs) - 1, self._tape.asarray(value), dtype)

    @property
    def inputs(self) -> list[NDArray[Any]]:
        """The values of the inputs."""
        return self._values

    @contextmanager
    def at(self, line: str, dtype: str) -> Iterator[None]:
        """Say of the steps in between where they stand, and of which dtype their framework makes the result."""
        before, (self._line, self._dtype) = (self._line, self._dtype), (line, dtype)
        try:
            yield
        finally:
            self._line, self._dtype = before

    def factors(self, operands: Sequence[Any]) -> list[Any]:
        """Return the operands of a product that rounds them, as it takes them: called within `at(..., OF_FACTORS)`."""
        real = [np.dtype(each.dtype).kind == "f" for each in operands]
        return [self.cast(each, OF_FACTORS) if is_real else each for each, is_real in zip(operands, real, strict=True)]

    def decide(self, condition: Any, found: bool | NDArray[np.bool_]) -> None:
        """Note that the graph was read on this side of a branch, or with this mask."""
        if isinstance(condition, Place):
            self._write(DECIDE, (condition, found, self._line), {})

    def isnan(self, x: Any) -> Any:
        """Return where x is no number: by the condition that chose it, where it was chosen."""
        if not isinstance(x, Place):
            return np.isnan(x)
        if not np.isnan(x.value).any():
            return self._write("isnan", (x,), {})
        if x.number not in self._chosen:
            raise UnsaidError("it looks for NaN, and there is one that no condition has chosen")
        condition, taken, other = self._chosen[x.number]
        taken = self.logical_and(condition, self.isnan(taken))
        return self.logical_or(taken, self.logical_and(self.logical_not(condition), self.isnan(other)))

    def is_symmetric(self, matrix: Place) -> bool:
        """Whether a square matrix stays symmetric however the inputs move, to first order.

        No input then moves its antisymmetric part: the derivative of one of its projections, drawn at random, is 0.
        """
        value, generator = matrix.value, np.random.default_rng(0)
        drawn = generator.normal(size=value.shape)
        turned, sizes = np.swapaxes(drawn, -1, -2), []
        for weights in (drawn - turned, drawn + turned):
            tape = Tape(Floats())
            leaves = [tape.leaf(each) for each in self._values]
            tape.walk_back(tape.sum(self.program(matrix)(tape, *leaves) * weights))
            sizes.append(max((np.abs(tape.gradient(leaf)).max(initial=0.0) for leaf in leaves), default=0.0))
        alike = np.allclose(value, np.swapaxes(value, -1, -2), rtol=1e-5, equal_nan=True)
        return bool(alike and sizes[0] <= 1e-9 * sizes[1])

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_"):
            raise AttributeError(name)
        if name != INDEX:
            getattr(self._tape, name)  # what the tape does not have, it says
        return lambda *operands, **settings: self._write(name, operands, settings)

    def _write(self, name: str, operands: tuple[Any, ...], settings: Mapping[str, Any]) -> Any:
        """Return the place of what a function returns, or the places of several results, each a step of its own."""
        with np.errstate(all="ignore"):
            found = _applied(self._tape, name, [_each(_known, each) for each in operands], settings)
        several = isinstance(found, tuple)
        shape = () if several else found.shape
        inputs = tuple(_each(_earlier, each) for each in operands)
        self._steps.append(Step(name, inputs, settings, shape, self._dtype, self._line))
        number, dtype = -len(self._steps), "float32" if self._dtype == OF_FACTORS else self._dtype
        if not several:
            if name == "where":
                self._chosen[number] = operands
            return Place(self, number, found, dtype)
        places = []
        for i, each in enumerate(found):
            self._steps.append(Step(PART, (Earlier(number), i), {}, each.shape, self._dtype, self._line))
            places.append(Place(self, -len(self._steps), each, dtype))
        return tuple(places)

    def program(self, output: Any) -> Program:
        """Return what was written down, without the steps that the output does not need."""
        needed, todo = set(), [output.number] if isinstance(output, Place) else []
        todo += [-i for i, step in enumerate(self._steps, 1) if step.function == DECIDE]
        while todo:
            if (number := todo.pop()) < 0 and number not in needed:
                needed.add(number)
                todo += _numbers(self._steps[-number - 1].operands)
        order = sorted(needed, reverse=True)
        places = {number: len(self._inputs) + i for i, number in enumerate(order)}
        renumbered = partial(_renumbered, places)
        steps = []
        for number in order:
            step = self._steps[-number - 1]
            operands = tuple(_each(renumbered, each) for each in step.operands)
            steps.append(Step(step.function, operands, step.settings, step.shape, step.dtype, step.line))
        return Program(tuple(self._inputs), tuple(steps), renumbered(_earlier(output)))


def _each(function: Callable[[Any], Any], operand: Any) -> Any:
    """Apply a function to an operand, or to each of a list of them."""
    holds = isinstance(operand, list | tuple) and any(isinstance(each, Place | Earlier) for each in operand)
    if holds and not isinstance(operand, Earlier):
        return [function(each) for each in operand]
    return function(operand)


def _known(operand: Any) -> Any:
    return operand.known if isinstance(operand, Place) else operand


def _earlier(operand: Any) -> Any:
    return Earlier(operand.number) if isinstance(operand, Place) else operand


def _renumbered(places: Mapping[int, int], operand: Any) -> Any:
    return Earlier(places.get(operand.number, operand.number)) if isinstance(operand, Earlier) else operand


def _numbers(operands: Sequence[Any]) -> list[int]:
    flat = [part for each in operands for part in (each if isinstance(each, list) else [each])]
    return [each.number for each in flat if isinstance(each, Earlier)]


def checked(program: Program, draft_value: Any, found: float, dtype: str, name: str) -> Program:
    """Return a program that computes what its framework did; a ProgramError if it does not."""
    mine = float(draft_value.value) if isinstance(draft_value, Place) else float(draft_value)
    allowed = 1e-2 if dtype == "float32" else 1e-6
    if program.narrowest:
        allowed = 32 * NARROW[program.narrowest].u

    def same(value: float) -> bool:
        return abs(value - found) <= allowed * max(abs(found), 1.0) or (math.isnan(value) and math.isnan(found))

    if not same(mine) and not (dtype == "float32" and same(_in_float32(program, draft_value))):
        if math.isfinite(found) and (beyond := _beyond(program, draft_value)):
            raise ProgramError(
                f"the program of {name!r} cannot be confirmed: its steps give {mine:g}, and it gives {found:.9g}, for "
                f"{beyond} is beyond floats there. Judge it where its numbers are smaller"
            )
        if not math.isfinite(found) and not math.isfinite(mine):
            words = f"the program of {name!r} cannot be confirmed: it gives {found:g}."
            raise ProgramError(f"{words} Judge it where its numbers are smaller")
        raise ProgramError(
            f"the program of {name!r} was read wrongly: its steps give {mine:.9g}, and it gives {found:.9g}. "
            "That is a fault of the reader, so nothing is judged by it; please report it"
        )
    return program


def _beyond(program: Program, output: Any) -> str:
    """Name the first step that makes what is not finite out of what is; "" if none does."""
    tape = Tape(Floats())
    with np.errstate(all="ignore"):
        values = program.values(tape, *map(tape.asarray, output.draft.inputs)) if isinstance(output, Place) else []
    for step, value in zip(program.steps, values[len(program.inputs) :], strict=True):
        if not isinstance(value, tuple) and not np.isfinite(value.value.astype(np.float64)).all():
            return f"{step.function}{_at(step.line)}"
    return ""


def _in_float32(program: Program, output: Any) -> float:
    """Return what the program gives where every operation rounds to float32: it may lose all digits, as 1 - p does."""
    if not isinstance(output, Place):
        return float(output)
    tape = Tape(_Singles())
    with np.errstate(all="ignore"):
        return float(program(tape, *map(tape.asarray, output.draft.inputs)).value[0])


class _Singles(Floats):  # type: ignore[misc]  # final for those who would compute otherwise
    """Floats of half the length."""

    def asarray(self, x: Any) -> NDArray[Any]:
        """Return them rounded."""
        return np.asarray(x, dtype=np.float32)

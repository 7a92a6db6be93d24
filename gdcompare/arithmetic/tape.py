"""A reverse pass over any number system: every operation stands beside its derivative.

The referee never reads the derivations that it judges. It runs a problem's loss formula alone, on a `Tape` that
records each operation, and walks the tape backwards with the chain rule. The numbers on the tape may be floats, Arb
balls (`balls`), or floats that carry a bound of their rounding errors (`rounded`): the same walk then gives a gradient,
a proven enclosure of it, or the rounding budget of every program that differentiates the formula.

Every array on the tape has a hidden first axis, over which nothing is ever summed. It has length 1 for the gradient
of the mean; for per-sample gradients it is the row axis, each row a computation of its own. Formulas do not see it.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from operator import sub
from typing import Any, TypeAlias, final

import numpy as np

from gdcompare.arithmetic.axes import Axis, axes_of, kept, with_axes_last
from gdcompare.arithmetic.function import CONSTANTS as EXACTLY
from gdcompare.arithmetic.function import Function
from gdcompare.arithmetic.functions import SLOPES
from gdcompare.arithmetic.numbers import Numbers, all_known, formula_line
from gdcompare.arithmetic.powers import exponent_slope, power_slope
from gdcompare.arithmetic.precision import NARROW
from gdcompare.arithmetic.vocabulary import CONSTANTS, FUNCTIONS, INNER, RELATIONS
from gdcompare.backend import Reduction, reduced, scaled_rows
from gdcompare.problem import Problem

Pullback: TypeAlias = Callable[[Any], Any]


def value_and_gradient(
    problem: Problem,
    numbers: Numbers,
    params: Mapping[str, Any],
    features: Any,
    targets: Any,
    weights: Any = None,
    reduction: Reduction = "mean",
) -> tuple[Any, dict[str, Any]]:
    """Return the loss and its gradient, `{name: array of the parameter's shape}`, in that number system.

    The loss is the mean or sum over the rows, weighted if weights (n,) are given, as `backend.reduced` has it.

    >>> from gdcompare.problems.linear_regression import LinearRegression
    >>> from gdcompare.arithmetic.numbers import Floats
    >>> params, features, targets = {"theta_0": 1.0, "theta_1": [0.0]}, [[1.0], [3.0]], [2.0, 4.0]
    >>> loss, gradient = value_and_gradient(LinearRegression(), Floats(), params, features, targets)
    >>> float(loss), float(gradient["theta_0"]), gradient["theta_1"].tolist()
    (5.0, -4.0, [-10.0])
    """
    tape = Tape(numbers)
    leaves = {name: tape.leaf(value) for name, value in params.items()}
    loss = recorded_loss(problem, tape, leaves, features, targets, weights, reduction)
    tape.walk_back(loss)
    return loss.value[0], {name: tape.gradient(leaf)[0] for name, leaf in leaves.items()}


def recorded_loss(
    problem: Problem,
    tape: Tape,
    leaves: Mapping[str, Variable],
    features: Any,
    targets: Any,
    weights: Any = None,
    reduction: Reduction = "mean",
) -> Variable:
    """Return the mean loss, or the sum, on the tape; with weights (n,), the weighted one."""
    per_row = problem.per_sample_losses if weights is None else problem.separate_losses
    losses = per_row(tape, leaves, tape.asarray(features), tape.asarray(targets))
    loss: Variable = reduced(tape, losses, None if weights is None else tape.asarray(weights), reduction)
    return loss


def per_sample_gradients(
    problem: Problem,
    numbers: Numbers,
    params: Mapping[str, Any],
    features: Any,
    targets: Any,
    weights: Any = None,
    reduction: Reduction = "mean",
) -> dict[str, Any]:
    """Return dl_i/dparameter, `{name: (n, *shape)}`, in that number system, scaled as `backend.scaled_rows` has it.

    >>> from gdcompare.problems.linear_regression import LinearRegression
    >>> from gdcompare.arithmetic.numbers import Floats
    >>> params, features, targets = {"theta_0": 1.0, "theta_1": [0.0]}, [[1.0], [3.0]], [2.0, 4.0]
    >>> per_sample_gradients(LinearRegression(), Floats(), params, features, targets)["theta_1"].tolist()
    [[-2.0], [-18.0]]
    """
    tape = Tape(numbers)
    leaves = {name: tape.leaf(value) for name, value in params.items()}
    rows, goals = (Variable(tape, numbers.asarray(each)[:, None]) for each in (features, targets))
    losses = problem.per_sample_losses(tape, leaves, rows, goals)  # (1,) in each of the n hidden computations
    tape.walk_back(losses)
    n = rows.value.shape[0]
    gradients = {name: tape.gradient(leaf, n) for name, leaf in leaves.items()}
    if weights is None:
        return gradients
    on_tape = {name: Variable(tape, each[None]) for name, each in gradients.items()}
    scaled = scaled_rows(tape, on_tape, tape.asarray(weights), reduction)
    return {name: each.value[0] for name, each in scaled.items()}


def _operator(name: str) -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]:
    """Return what stands behind `a + b`, behind `1 + b` and behind `a += b`, for the function of the tape."""

    def forward(a: Variable, b: Any) -> Any:
        return getattr(a.tape, name)(a, b)

    def reflected(b: Variable, a: Any) -> Any:
        return getattr(b.tape, name)(a, b)

    def in_place(_a: Variable, _b: Any) -> Any:
        raise TypeError("a formula may not change an array in place")

    return forward, reflected, in_place


def _unary(name: str) -> Callable[..., Any]:
    return lambda x: getattr(x.tape, name)(x)


@final
class Variable:
    """An array on the tape: its value, and how a cotangent travels from it to each of its parents.

    Its operators are the functions of the tape. NumPy's functions refuse it, as they refuse what a compiler traces.
    """

    __array_ufunc__ = None  # NumPy's arrays and scalars leave their operators to us, and np.exp(x) is a TypeError

    def __init__(self, tape: Tape, value: Any, parents: Sequence[tuple[Variable, Pullback]] = ()) -> None:
        self.tape, self.value, self.parents = tape, value, parents
        self.precision, self.rounds = tape.precision, tape.rounds  # to which of `precision.NARROW`, if one; and by it?
        self.tracked = bool(parents)  # does it depend on a parameter?
        self.stopped = False  # does a constant of the gradient enter, so that its slope may not be its value's?
        self.whole = False  # is it known to be a whole number everywhere?
        self.condition = False  # is it known to be a condition, 1 or 0?
        self.operation = ""  # its name and line, if somebody watches for what has no value or no slope
        self.cotangents: list[Any] = []

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape that the formula sees."""
        return tuple(self.value.shape[1:])

    dtype = "real"  # a name to hand back to `astype` or `zeros`, which do not need it
    ndim = property(lambda self: len(self.shape))
    size = property(lambda self: math.prod(self.shape))
    T = property(lambda self: self.tape.permute_dims(self, range(self.ndim)[::-1]))
    mT = property(lambda self: self.tape.matrix_transpose(self))  # noqa: N815 - the standard's name

    __add__, __radd__, __iadd__ = _operator("add")
    __sub__, __rsub__, __isub__ = _operator("subtract")
    __mul__, __rmul__, __imul__ = _operator("multiply")
    __truediv__, __rtruediv__, __itruediv__ = _operator("divide")
    __floordiv__, __rfloordiv__, __ifloordiv__ = _operator("floor_divide")
    __mod__, __rmod__, __imod__ = _operator("remainder")
    __pow__, __rpow__, __ipow__ = _operator("pow")
    __matmul__, __rmatmul__, __imatmul__ = _operator("matmul")
    __and__, __rand__, __iand__ = _operator("logical_and")
    __or__, __ror__, __ior__ = _operator("logical_or")
    __lt__, __le__, __eq__, __ne__, __gt__, __ge__ = (
        _operator(name)[0] for name in ("less", "less_equal", "equal", "not_equal", "greater", "greater_equal")
    )
    __neg__, __pos__, __abs__, __invert__ = map(_unary, ("negative", "positive", "abs", "logical_not"))

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TypeError("a formula may not make a NumPy array of an array of xp")

    def __getitem__(self, key: Any) -> Variable:
        part: Variable = self.tape.index(self, key)
        return part

    def __setitem__(self, key: Any, value: Any) -> None:
        raise TypeError("a formula may not change an array in place")

    def __len__(self) -> int:
        return self.shape[0]

    def __bool__(self) -> bool:
        raise TypeError("a formula may not branch on the value of an array; use xp.where")


@final
class Tape:
    """The namespace `xp` over a number system, which records what is done to Variables that depend on a parameter."""

    def __init__(self, numbers: Numbers) -> None:
        self.numbers = numbers
        self.nodes: list[Variable] = []
        self.watched: list[str] | None = getattr(numbers, "watched", None)
        self.named = self.watched is not None or getattr(numbers, "witness", None) is not None
        self.precision, self.rounds = "", False

    def __getattr__(self, name: str) -> Any:
        if name in SLOPES:
            return partial(self._function, name)
        if name in RELATIONS:
            return partial(self._compare, RELATIONS[name])
        if name in FUNCTIONS:
            return partial(FUNCTIONS[name], self)
        if name in CONSTANTS:
            return CONSTANTS[name]
        raise AttributeError(f"the referee has no xp.{name}; it knows: {', '.join(known_functions())}")

    @property
    def linalg(self) -> Tape:
        """xp.linalg: its functions are those of the tape."""
        return self

    def asarray(self, x: Any, dtype: Any = None) -> Variable:
        """xp.asarray: take numbers in; a Variable passes as it is."""
        del dtype
        if isinstance(x, Variable):
            return x
        variable = Variable(self, self.numbers.asarray(x)[None])
        kind = np.asarray(x).dtype.kind if isinstance(x, np.ndarray | list | tuple | int) else ""
        variable.condition, variable.whole = kind == "b", kind in ("b", "i", "u")
        return variable

    def number(self, name: str) -> Variable:
        """Return a constant that no float is, like "pi"."""
        return Variable(self, self.numbers.number(EXACTLY[name])[None])

    def leaf(self, value: Any) -> Variable:
        """Return a parameter, which is differentiated by."""
        variable = Variable(self, self.numbers.asarray(value)[None])
        variable.tracked = True
        return variable

    # Programs whose operations round to several dtypes.

    def within(self, precision: str, exactly: bool = False) -> None:
        """Round what follows to one of `precision.NARROW`, or only name what it is in; "" is the dtype itself."""
        self.precision, self.rounds = precision, bool(precision) and not exactly

    def rounded(self, value: Any) -> Any:
        """Return what an operation gives as it is kept here, also for its derivative."""
        return self._cast(value, self.precision) if self.rounds else value

    def cast(self, x: Any, dtype: str) -> Variable:
        """Round to a dtype, or widen from it: d x = dx; the walk rounds the cotangent to what x is in."""
        x = self.asarray(x)
        return self.record(self._cast(x.value, dtype), (x, lambda g: g), kept=True)

    def _cast(self, value: Any, dtype: str) -> Any:
        """Round, in the number systems that round at all."""
        cast = getattr(self.numbers, "cast", None)
        return value if cast is None or dtype not in NARROW else cast(value, dtype)

    # The walk.

    def walk_back(self, output: Variable, seen: Callable[[Variable, Any], object] | None = None) -> None:
        """Send 1 from the output to the leaves, by the chain rule; `seen` is handed each node with its cotangent."""
        output.cotangents = [self.numbers.asarray(np.ones(output.value.shape))]
        for node in reversed(self.nodes):
            if node.cotangents:
                cotangent, node.cotangents = self._total(node), []
                if seen is not None:
                    seen(node, cotangent)
                for parent, pullback in node.parents:
                    sent = self._summed_to(parent.shape, pullback(cotangent))
                    if parent.precision and (
                        node.rounds or sent.shape[1:] != cotangent.shape[1:] or not node.precision
                    ):
                        sent = self._cast(sent, parent.precision)
                    if self.watched is not None and all_known(cotangent) and not all_known(sent):
                        self.watched.append(node.operation)
                    parent.cotangents.append(sent)

    def gradient(self, leaf: Variable, rows: int = 1) -> Any:
        """Return what has arrived at a leaf, (rows, *shape)."""
        arrived = self._total(leaf) if leaf.cotangents else self.numbers.asarray(np.zeros((1, *leaf.shape)))
        return self.broadcast(arrived, (rows, *leaf.shape))

    def record(self, value: Any, *parents: tuple[Variable, Pullback], name: str = "", kept: bool = False) -> Variable:
        """Return a new array on the tape, and keep it if it depends on a parameter; its caller names the operation.

        The value is rounded to what the program keeps, unless the caller has done so, `kept`.
        """
        value = value if kept else self.rounded(value)
        node = Variable(self, value, [(parent, pullback) for parent, pullback in parents if parent.tracked])
        node.stopped = any(parent.stopped for parent, _ in parents)
        if node.tracked:
            self.nodes.append(node)
        if self.named:
            caller = sys._getframe(1)
            name = name or caller.f_locals.get("name", caller.f_code.co_name)
            node.operation = f"{name} ({formula_line()})"
        if self.watched is not None and not all_known(value) and all(all_known(each.value) for each, _ in parents):
            self.watched.append(node.operation)
        return node

    def _total(self, node: Variable) -> Any:
        """Add up all that arrived: as one sum, because a program may add in any order; round it, if the node is."""
        if len(node.cotangents) == 1:
            return node.cotangents[0]
        shape = (max(each.shape[0] for each in node.cotangents), *node.shape)
        each = [self.broadcast(cotangent, shape) for cotangent in node.cotangents]
        stacked = self.numbers.rearrange(lambda *parts: np.stack(parts, axis=-1), *each)
        return self._cast(self.numbers.sum(stacked, (-1,))[..., 0], node.precision)

    def _summed_to(self, shape: tuple[int, ...], cotangent: Any) -> Any:
        """Sum over the axes along which a parent was broadcast."""
        axes = tuple(i for i in range(-len(shape), 0) if shape[i] == 1 != cotangent.shape[i])
        return self.numbers.sum(cotangent, axes) if axes else cotangent

    def broadcast(self, value: Any, shape: tuple[int, ...]) -> Any:
        """Copy along the axes that the formula sees, and at least to the hidden length of the shape."""
        hidden, *visible = shape
        copies = self.numbers.rearrange
        return copies(lambda part: np.broadcast_to(part, (max(part.shape[0], hidden), *visible)), value)

    def reshaped(self, value: Any, shape: tuple[int, ...]) -> Any:
        """Return the numbers in another shape, as the formula sees it."""
        return self.numbers.rearrange(lambda part: np.reshape(part, (part.shape[0], *shape)), value)

    def aligned(self, *arrays: Any) -> list[Variable]:
        """Return Variables with equally many axes, new ones of length 1 in front."""
        variables = [self.asarray(array) for array in arrays]
        ndim = max(each.ndim for each in variables)
        return [self.reshape(each, (1,) * (ndim - each.ndim) + each.shape) for each in variables]

    # Arithmetic.

    def add(self, a: Any, b: Any) -> Variable:
        """xp.add: d(a + b) = da + db."""
        a, b = self.aligned(a, b)
        return _whole(self.record(a.value + b.value, (a, lambda g: g), (b, lambda g: g)), a, b)

    def subtract(self, a: Any, b: Any) -> Variable:
        """xp.subtract: d(a - b) = da - db."""
        a, b = self.aligned(a, b)
        difference = getattr(self.numbers, "difference", sub)
        return _whole(self.record(difference(a.value, b.value), (a, lambda g: g), (b, lambda g: -g)), a, b)

    def negative(self, x: Any) -> Variable:
        """xp.negative: d(-x) = -dx."""
        x = self.asarray(x)
        return _whole(self.record(-x.value, (x, lambda g: -g)), x)

    def multiply(self, a: Any, b: Any) -> Variable:
        """xp.multiply: d(a b) = b da + a db."""
        a, b = self.aligned(a, b)
        times = self.numbers.chain
        product = self.record(a.value * b.value, (a, lambda g: times(g, b.value)), (b, lambda g: times(g, a.value)))
        return _whole(product, a, b)

    def divide(self, a: Any, b: Any) -> Variable:
        """xp.divide: d(a / b) = da / b - a / b^2 db."""
        a, b = self.aligned(a, b)
        value, times, numbers = self.rounded(a.value / b.value), self.numbers.chain, self.numbers

        def by_divisor(g: Any) -> Any:
            """g (-a / b^2); JAX has (g b^-2) a and autograd (g a) / b^2, which may underflow on the way."""
            return numbers.any_of(
                lambda: times(g, numbers.divide_slope(a.value, b.value, value)),
                lambda: -(times(g, 1 / (b.value * b.value)) * a.value),
                lambda: -(times(g, a.value) / (b.value * b.value)),
            )

        def by_dividend(g: Any) -> Any:
            """g (1 / b), or g / b, which a compiler may divide together with what it finds in g."""
            return numbers.any_of(lambda: times(g, 1 / b.value), lambda: g / b.value)

        return self.record(value, (a, by_dividend), (b, by_divisor), kept=True)

    def pow(self, a: Any, b: Any) -> Variable:
        """xp.pow: d(a^b) = b a^(b - 1) da + a^b log(a) db; a^0 is constant, also at 0, and so is 0^b, b > 0."""
        a, b = self.aligned(a, b)
        times, value = self.numbers.chain, self.rounded(self.numbers.pow(a.value, b.value))
        return self.record(
            value,
            (a, lambda g: times(self._constant(g, a), power_slope(self.numbers, a.value, b.value, not b.tracked))),
            (b, lambda g: times(g, exponent_slope(self.numbers, a.value, b.value, value, not a.tracked))),
            kept=True,
        )

    def logaddexp(self, a: Any, b: Any) -> Variable:
        """xp.logaddexp: d log(exp(a) + exp(b)) = (exp(a) da + exp(b) db) / (exp(a) + exp(b))."""
        a, b = self.aligned(a, b)
        times, slope = self.numbers.chain, self.numbers.logaddexp_slope
        value = self.rounded(self.numbers.logaddexp(a.value, b.value))
        return self.record(
            value,
            (a, lambda g: times(g, slope(a.value, b.value, value))),
            (b, lambda g: times(g, slope(b.value, a.value, value))),
            kept=True,
        )

    def matmul(self, a: Any, b: Any) -> Variable:
        """xp.matmul: d(A B) = dA B + A dB; a vector is a row on the left, a column on the right."""
        a, b = self.asarray(a), self.asarray(b)
        if a.ndim == 1:
            return self.squeeze(self.matmul(self.expand_dims(a), b), -1 if b.ndim == 1 else -2)  # type: ignore[no-any-return]
        if b.ndim == 1:
            return self.squeeze(self.matmul(a, self.expand_dims(b, axis=1)), -1)  # type: ignore[no-any-return]
        a, b = self.aligned(a, b)
        turned = partial(self.numbers.rearrange, lambda part: np.swapaxes(part, -1, -2))
        return self.record(a.value @ b.value, (a, lambda g: g @ turned(b.value)), (b, lambda g: turned(a.value) @ g))

    def _function(self, name: str, x: Any) -> Variable:
        """d f(x) = f'(x) dx."""
        x = self.asarray(x)
        if name == "sign" and x.tracked:
            self._compare(np.equal, x, 0.0)  # sign(0) is decided, its derivative is not
        value = self.rounded(getattr(self.numbers, name)(x.value))

        def pullback(g: Any) -> Any:
            return self.numbers.chain(self._constant(g, x), SLOPES[name](self.numbers, x.value, value))

        return self.record(value, (x, pullback), kept=True)

    def _constant(self, cotangent: Any, x: Variable) -> Any:
        """Leave out what goes to numbers that are 0 all around: they have no slope, unless one is stopped."""
        constant = None if x.stopped else getattr(self.numbers, "constant", None)
        return cotangent if constant is None else constant(cotangent, x.value)

    def tabled(self, function: Function, x: Any) -> Variable:
        """Return a function of one variable that has no name of its own here: d f(x) = f'(x) dx."""
        x, name = self.asarray(x), function.name
        value = self.rounded(self.numbers.tabled(function, x.value))
        slope, times = function.slope, self.numbers.chain
        return self.record(value, (x, lambda g: times(g, slope(self.numbers, x.value, value))), name=name, kept=True)

    # Kinks: each is a tie for the largest, or a condition on its edge.

    def max(self, x: Any, *, axis: Axis = None, keepdims: bool = False, kind: str = "max") -> Variable:
        """xp.max: d max_i x_i = sum_i s_i dx_i, where s_i = 1 for the largest, else 0; in a tie each is in [0, 1]."""
        x = self.asarray(x)
        if axis is None or isinstance(axis, tuple):
            top = self.max(with_axes_last(self, x, axis), axis=-1, kind=kind)
            return kept(self, top, x, axis) if keepdims else top
        x = self.permute_dims(x, (*(i for i in range(x.ndim) if i != axis % x.ndim), axis))
        times = self.numbers.chain
        share = self.numbers.share_of_max(x.value, kind) if x.tracked else None  # now: a tie is noted with its line
        top = _whole(self.record(self.numbers.max(x.value, kind), (x, lambda g: times(g[..., None], share))), x)
        return self.expand_dims(top, axis=axis) if keepdims else top

    def where(self, condition: Any, a: Any, b: Any) -> Variable:
        """xp.where: d where(c, a, b) = where(c, da, db)."""
        condition, a, b = self.aligned(condition, a, b)
        c, keep = condition.value, self.numbers.leave_out
        found = self.record(
            self.numbers.where(c, a.value, b.value), (a, lambda g: keep(c, g)), (b, lambda g: keep(1 - c, g))
        )
        return _whole(found, a, b)

    def _compare(self, relation: np.ufunc, a: Any, b: Any) -> Variable:
        """1 where the relation holds, else 0: constant on either side."""
        a, b = self.aligned(a, b)
        condition = self.record(self.numbers.compare(relation, a.value, b.value, a.tracked or b.tracked))
        condition.whole = condition.condition = True
        return condition

    # Sums and shapes.

    def sum(self, x: Any, *, axis: Axis = None, dtype: Any = None, keepdims: bool = False) -> Variable:
        """xp.sum: d sum x_i = sum dx_i."""
        del dtype
        x = self.asarray(x)
        summed = axes_of(axis, x.ndim)
        if not x.size and summed:
            nothing = self.zeros([1 if i - x.ndim in summed else length for i, length in enumerate(x.shape)])
            return nothing if keepdims else self.squeeze(nothing, summed)  # type: ignore[no-any-return]
        total = self.record(
            self.numbers.sum(x.value, summed) if summed else x.value,
            (x, lambda g: self.broadcast(g, (g.shape[0], *x.shape))),
        )
        total.whole = x.whole
        return total if keepdims else self.squeeze(total, summed)


def _whole(result: Variable, *operands: Variable) -> Variable:
    """Note that the result is whole if its operands are."""
    result.whole = all(each.whole for each in operands)
    return result


def known_functions() -> list[str]:
    """Return the names of the array functions that a formula may use, in alphabetical order.

    >>> known_functions()[:4]
    ['abs', 'acos', 'acosh', 'add']
    """
    operations = {key for key, value in vars(Tape).items() if callable(value) and "xp." in (value.__doc__ or "")}
    return sorted((operations | set(SLOPES) | set(RELATIONS) | set(FUNCTIONS)) - INNER)

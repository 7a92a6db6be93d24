"""A program from a jaxpr: functions that JAX holds inside are walked through, and its loops unrolled.

`custom_vjp` and `custom_jvp` are read by their primal functions, so that a derivative written by hand has no part in
the truth by which it is judged. Numbers that no input enters are computed by JAX itself, if they are whole or were only
moved.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax._src import source_info_util
from jax.extend.core import Jaxpr, Literal
from numpy.typing import NDArray

from gdcompare.arithmetic.complex_numbers import Complex, by_parts, whole
from gdcompare.arithmetic.precision import NARROW, OF_FACTORS, judged_in_float32
from gdcompare.arithmetic.program import Draft, Place, Program, ProgramError, UnsaidError, checked, unread
from gdcompare.arithmetic.whole import as_read
from gdcompare_jax.algebra import dense
from gdcompare_jax.complex_numbers import COMPLEX, is_complex, of_parts
from gdcompare_jax.moves import permuted, reshaped
from gdcompare_jax.own import own
from gdcompare_jax.primitives import FORMULAS, MOVES

CALLS = {
    **dict.fromkeys(("jit", "pjit", "remat2", "checkpoint", "composite"), "jaxpr"),
    **dict.fromkeys(("custom_jvp_call", "custom_vjp_call", "core_call", "closed_call"), "call_jaxpr"),
    "custom_vjp_call_jaxpr": "fun_jaxpr",
    "custom_vmap_call": "call",
    "linear_call": "callee",
}
"""The parameter of each primitive that calls another jaxpr once."""
MOST_UNKNOWNS = 64
"""Of a linear system that is solved as a whole; a larger one is read as it is solved in JAX."""
PRECISELY = "Ask for jax.default_matmul_precision('highest')"
MOST_STEPS = 100_000
"""A program of more is refused: a loop is unrolled."""


def read(
    mean: Callable[..., Any],
    arrays: Mapping[str, NDArray[Any]],
    features: NDArray[Any],
    targets: NDArray[Any],
    dtype: str,
    name: str,
) -> Program:
    """Return the program of `mean([arrays], features, targets)` at that point; a ProgramError if it cannot be read."""
    try:
        closed = jax.make_jaxpr(mean)([*arrays.values()], features, targets)
        found = float(jax.jit(mean)([*arrays.values()], features, targets))
    except (Exception, SystemExit) as error:
        raise unread(name, error) from error
    draft = Draft()
    given = {**arrays, "features": features, "targets": targets}
    inputs = [draft.input(key, _array(value), str(value.dtype)) for key, value in given.items()]
    (output,) = _Walk(draft, dtype, name).through(closed.jaxpr, closed.consts, inputs)
    return checked(draft.program(output), output, found, dtype, name)


class _Walk:
    """A walk through a jaxpr; values are places of the draft, or arrays that no input enters."""

    def __init__(self, draft: Draft, dtype: str, name: str) -> None:
        self.draft, self.dtype, self.name = draft, dtype, name
        self.walked = 0
        self.line = ""

    def through(self, jaxpr: Jaxpr, consts: Sequence[Any], inputs: Sequence[Any]) -> list[Any]:
        known: dict[Any, Any] = dict(zip(jaxpr.constvars, consts, strict=True))
        known |= dict(zip(jaxpr.invars, inputs, strict=True))

        def value(variable: Any) -> Any:
            return variable.val if isinstance(variable, Literal) else known[variable]

        for equation in jaxpr.eqns:
            if not equation.outvars:
                continue  # it prints, or calls back, and nothing comes of it
            self.walked += 1
            if self.walked > MOST_STEPS:
                raise self._refusal(f"the program has more than {MOST_STEPS} steps", "unroll fewer")
            found = self._equation(equation, [value(each) for each in equation.invars])
            known |= dict(zip(equation.outvars, found, strict=True))
        return [value(each) for each in jaxpr.outvars]

    def _equation(self, equation: Any, operands: list[Any]) -> Sequence[Any]:
        primitive, params = equation.primitive, equation.params
        self.line = line_of(equation) or self.line  # what JAX holds inside has none of its own
        if (control := getattr(self, f"_{primitive.name}", None)) is not None:
            return control(equation, operands)  # type: ignore[no-any-return]
        inner = params.get(CALLS.get(primitive.name, ""))
        if hasattr(inner, "eqns"):
            if any(map(_enters, operands)) and (known := own(equation, inner)) is not None:
                return list(self._said(equation, lambda: known(self.draft, *map(_array, operands))))
            return self.through(getattr(inner, "jaxpr", inner), getattr(inner, "consts", ()), operands)
        variables = [*equation.invars, *equation.outvars]
        complexly = any(is_complex(each.aval.dtype) for each in variables if hasattr(each.aval, "dtype"))
        formula = (COMPLEX if complexly else FORMULAS).get(primitive.name)
        if not any(map(_enters, operands)) and (
            formula is None or primitive.name in MOVES or not any(map(self._is_wide, equation.outvars))
        ):
            found = primitive.bind(*operands, **params)
            return found if primitive.multiple_results else [found]
        if primitive.name.startswith("random_") or primitive.name == "threefry2x32":
            raise self._refusal("it draws random numbers from a key that is an input", "Draw outside: draws are data")
        if formula is None and all(np.dtype(each.aval.dtype).kind in "biu" for each in variables):
            with self.draft.at(self.line, "bool"):
                found = primitive.bind(*(as_read(self.draft, each) for each in operands), **params)
            return found if primitive.multiple_results else [found]
        if formula is None:
            of = " of complex numbers" if complexly else ""
            raise self._refusal(f"{primitive.name} is none of the operations{of} that can be read")
        self._refuse_narrow(equation, operands)
        dtype = of_parts(equation.outvars[0].aval.dtype)
        if primitive.name == "convert_element_type" and all(map(is_float, variables)) and any(map(is_half, variables)):
            with self.draft.at(self.line, dtype):
                return [self.draft.cast(operands[0], dtype)]
        if dtype == "float32" and rounds_factors(equation):
            if complexly:
                raise self._refusal(f"{primitive.name} of complex numbers may round its factors to TF32", PRECISELY)
            with self.draft.at(self.line, OF_FACTORS):
                return [formula(self.draft, *self.draft.factors([*map(_array, operands)]), **params)]
        found = self._said(equation, lambda: formula(self.draft, *map(_array, operands), **params))
        several = found if primitive.multiple_results else [found]
        return [self._whole(*each) for each in zip(several, equation.outvars, strict=True)]

    def _whole(self, found: Any, variable: Any) -> Any:
        """Return a number of a whole kind as one that is known to be whole, however it was chosen."""
        if not isinstance(found, Place) or found.known.whole or variable.aval.dtype.kind not in "iu":
            return found
        with self.draft.at(self.line, str(variable.aval.dtype)):
            return self.draft.astype(found, np.int64)

    def _said(self, equation: Any, formula: Callable[[], Any]) -> Any:
        """Return what a formula writes down for an equation; refuse what it has no words for."""
        try:
            with self.draft.at(self.line, of_parts(equation.outvars[0].aval.dtype)):
                return formula()
        except (AttributeError, TypeError, UnsaidError) as error:
            raise self._refusal(f"{equation.primitive.name} cannot be read so: {error}") from error

    def _refuse_narrow(self, equation: Any, operands: Sequence[Any]) -> None:
        """Refuse what is rounded to less than the dtype that is judged: the rounding of that is not known yet."""
        for variable, operand in zip(equation.outvars, [*operands, *[None] * len(equation.outvars)], strict=False):
            exact = isinstance(operand, Place) and np.dtype(operand.dtype).kind in "biu"
            kind = variable.aval.dtype
            rounds = is_float(variable) or is_complex(kind)
            if rounds and not self._is_wide(variable) and not exact:
                what = f"{equation.primitive.name} rounds to {kind}, where {self.dtype} is judged"
                raise self._refusal(what, judged_in_float32(str(kind)))

    def _is_wide(self, variable: Any) -> bool:
        """Whether it is a float of the dtype that is judged, a longer one, or one that its operations may round to."""
        if self.dtype == "float32" and is_half(variable):
            return True
        rounds = is_float(variable) or is_complex(variable.aval.dtype)
        return rounds and bool(jax.numpy.finfo(variable.aval.dtype).eps <= np.finfo(self.dtype).eps)

    def _refusal(self, what: str, way_out: str = "") -> ProgramError:
        where = f"{line}: " if (line := self.line) else ""
        return ProgramError(
            f"the program of {self.name!r} cannot be read: {where}{what}. "
            f"{way_out or 'Write that part otherwise, or compare the model with another: gdcompare.compare'}"
        )

    # What is chosen, and what is repeated.

    def _cond(self, equation: Any, operands: list[Any]) -> Sequence[Any]:
        which, *inputs = operands
        branches = equation.params["branches"]
        index = int(np.asarray(which.value if isinstance(which, Place) else which))
        if isinstance(which, Place):
            with self.draft.at(self.line, "bool"):
                self.draft.decide(self.draft.equal(which, index), True)
        chosen = branches[min(max(index, 0), len(branches) - 1)]
        return self.through(chosen.jaxpr, chosen.consts, inputs)

    def _while(self, equation: Any, operands: list[Any]) -> Sequence[Any]:
        params = equation.params
        m, n = params["cond_nconsts"], params["body_nconsts"]
        of_condition, of_body, carry = operands[:m], operands[m : m + n], operands[m + n :]
        condition, body = params["cond_jaxpr"], params["body_jaxpr"]
        while True:
            (goes_on,) = self.through(condition.jaxpr, condition.consts, [*of_condition, *carry])
            if isinstance(goes_on, Place):
                raise self._refusal("how often a while loop runs depends on the data", "Use scan or fori_loop")
            if not goes_on:
                return carry
            carry = self.through(body.jaxpr, body.consts, [*of_body, *carry])

    def _scan(self, equation: Any, operands: list[Any]) -> Sequence[Any]:
        params = equation.params
        m, n, length = params["num_consts"], params["num_carry"], params["length"]
        constants, carry, inputs = operands[:m], operands[m : m + n], operands[m + n :]
        body, rows = params["jaxpr"], []
        order = range(length)[::-1] if params["reverse"] else range(length)
        for i in order:
            row = [each[i] for each in inputs]
            found = self.through(body.jaxpr, body.consts, [*constants, *carry, *row])
            carry = list(found[:n])
            rows.append(found[n:])
        rows = rows[::-1] if params["reverse"] else rows
        return [*carry, *(self._stacked(each) for each in zip(*rows, strict=True))]

    def _reduce(self, equation: Any, operands: list[Any]) -> Sequence[Any]:
        """Combine the numbers along the axes, one after the other, as its function says."""
        params, half = equation.params, len(operands) // 2
        axes, body = params["dimensions"], params["jaxpr"]
        kept = [i for i in range(operands[0].ndim) if i not in axes]
        shape = [operands[0].shape[i] for i in kept]
        rows = []
        for each in operands[:half]:
            turned = (
                permuted(self.draft, each, (*axes, *kept)) if isinstance(each, Place) else each.transpose(*axes, *kept)
            )
            rows.append(
                reshaped(self.draft, turned, (-1 if not shape else math.prod(each.shape[i] for i in axes), *shape))
            )
        found = [
            self.draft.broadcast_to(each, tuple(shape)) if isinstance(each, Place) else jax.numpy.full(shape, each)
            for each in operands[half:]
        ]
        for i in range(rows[0].shape[0]):
            found = self._on_scalars(body, [*found, *(each[i] for each in rows)])
        return found

    def _on_scalars(self, body: Any, operands: list[Any]) -> list[Any]:
        """Apply a function of single numbers to arrays, element by element."""
        shape = operands[0].shape
        flat = [reshaped(self.draft, each, (math.prod(shape),)) for each in operands]
        each = [self.through(body.jaxpr, body.consts, [one[i] for one in flat]) for i in range(math.prod(shape))]
        return [reshaped(self.draft, self._stacked(parts), shape) for parts in zip(*each, strict=True)]

    def _custom_linear_solve(self, equation: Any, operands: list[Any]) -> Sequence[Any]:
        """Solve with the matrix of the linear function, whatever way it is solved in JAX: its derivative is of that."""
        lengths, jaxprs = equation.params["const_lengths"], equation.params["jaxprs"]
        product, constants = jaxprs.matvec, operands[: lengths.matvec]
        right = operands[sum(lengths) :]
        shapes = [tuple(each.shape) for each in right]
        sizes = [math.prod(shape) for shape in shapes]
        if sum(sizes) > MOST_UNKNOWNS:
            solve, first = jaxprs.solve, lengths.matvec + lengths.vecmat
            return self.through(solve.jaxpr, solve.consts, [*operands[first : first + lengths.solve], *right])
        with self.draft.at(self.line, str(equation.outvars[0].aval.dtype)):
            matrix = dense(
                self.draft, lambda parts: self.through(product.jaxpr, product.consts, [*constants, *parts]), shapes
            )
            line = [reshaped(self.draft, _array(each), (size,)) for each, size in zip(right, sizes, strict=True)]
            some = self.draft.concat(line) if any(isinstance(each, Place) for each in line) else np.concatenate(line)
            found, ends = self.draft.solve(matrix, some), np.cumsum([0, *sizes]).tolist()
            return [
                reshaped(self.draft, self.draft.index(found, slice(*ends[i : i + 2])), shape)
                for i, shape in enumerate(shapes)
            ]

    def _stacked(self, parts: Sequence[Any]) -> Any:
        if any(isinstance(each, Complex) for each in parts):
            return by_parts(
                self.draft, lambda _, *each: self._stacked(each), *(whole(self.draft, one) for one in parts)
            )
        some = any(isinstance(each, Place) for each in parts)
        if not some:
            return jax.numpy.stack(parts)
        with self.draft.at(self.line, next(each.dtype for each in parts if isinstance(each, Place))):
            return self.draft.stack([_array(each) for each in parts])


def _enters(operand: Any) -> bool:
    """Whether an input enters a value."""
    return isinstance(operand, Place | Complex)


def _array(operand: Any) -> Any:
    if _enters(operand):
        return operand
    array = np.asarray(operand)
    return array.astype(np.float32) if str(array.dtype) in NARROW else array


def is_float(variable: Any) -> bool:
    """Whether a variable of a jaxpr holds real floating-point numbers."""
    return bool(jax.dtypes.issubdtype(variable.aval.dtype, np.floating))


def is_half(variable: Any) -> bool:
    """Whether a variable of a jaxpr is in half precision, which only single operations of a program may be in."""
    return str(getattr(variable.aval, "dtype", "")) in NARROW


def rounds_factors(equation: Any) -> bool:
    """Whether a product may round its factors to TF32: on a GPU, unless its precision is the highest.

    The precision of JAX's configuration is in the program, where it was set.
    """
    if equation.primitive.name not in ("dot_general", "conv_general_dilated") or device_kind() != "gpu":
        return False
    precision = equation.params.get("precision")
    each = precision if isinstance(precision, tuple) else (precision,)
    return any(one != jax.lax.Precision.HIGHEST for one in each)


def device_kind() -> str:
    """Return what programs run on."""
    return str(jax.default_backend())


def line_of(equation: Any) -> str:
    """Return the user's line of an equation, "file.py:12"; "" if JAX does not know it."""
    frame = source_info_util.user_frame(equation.source_info.traceback)
    return "" if frame is None else f"{Path(frame.file_name).name}:{frame.start_line}"

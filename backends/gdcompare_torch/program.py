"""A program from what torch does: the loss runs once, and each ATen operation on the way is written down.

A `torch.autograd.Function` is read by its forward, so that a backward pass written by hand has no part in the truth by
which it is judged. What torch does not differentiate, under `no_grad` or behind `detach`, is a constant. What is
written in place is a new value for the tensor, and for all that share its memory.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch._decomp import decomposition_table
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from gdcompare.arithmetic.complex_numbers import Complex, whole
from gdcompare.arithmetic.precision import NARROW, OF_FACTORS, judged_in_float32
from gdcompare.arithmetic.program import Draft, Place, Program, ProgramError, UnsaidError, checked, unread
from gdcompare_torch import tensor_cores
from gdcompare_torch.apart import APART
from gdcompare_torch.aten import FORMULAS
from gdcompare_torch.complex_numbers import COMPLEX, MADE, is_complex
from gdcompare_torch.moves import CONSTANT, MOVES, of_whole_numbers
from gdcompare_torch.signs import as_theirs

_TORCH, _OURS = str(Path(torch.__file__).parent), str(Path(__file__).parent)
_BETWEEN = (_TORCH, __file__, str(Path(__file__).with_name("apart.py")), "<frozen")
_FUNCTION = str(Path(_TORCH) / "autograd" / "function.py")

FAULTS = ArithmeticError, AttributeError, LookupError, UnsaidError, TypeError, ValueError
"""Of a formula that does not know its operation in this case."""

Loss = Callable[[dict[str, torch.Tensor]], torch.Tensor]


def read(
    loss: Loss,
    leaves: Mapping[str, torch.Tensor],
    data: Mapping[str, tuple[torch.Tensor, NDArray[Any]]],
    dtype: str,
    name: str,
) -> Program:
    """Return the program of `loss(leaves)`, which also sees the tensors of the data; a ProgramError if it has none.

    Its inputs are the leaves, and then the data, `{name: (tensor, its numbers)}`.
    """
    reading = _Reading(dtype, name)
    for key, leaf in leaves.items():
        if leaf.layout is not torch.strided or leaf.is_complex():
            kind = "complex" if leaf.is_complex() else "sparse"
            raise ProgramError(
                f"the program of {name!r} cannot be read: {key!r} is {kind}. Give it as a plain array of real numbers"
            )
        reading.input(key, leaf, _numbers(leaf))
    for key, (tensor, numbers) in data.items():
        reading.input(key, tensor, numbers)
    before = [tensor.clone() for tensor, _ in data.values()]
    try:
        with torch.enable_grad(), _OneHot(), reading:
            value = loss(dict(leaves))
    except (Exception, SystemExit) as error:
        if reading.refused is None:  # it runs, but not while it is looked at
            raise unread(name, error) from error
    if reading.refused is not None:  # somebody's own code may have caught it
        raise reading.refused
    output = reading.result(value)
    with torch.no_grad():
        for (tensor, _), kept in zip(data.values(), before, strict=True):
            tensor.copy_(kept)
    try:
        with torch.enable_grad():  # as it is: what was taken apart may be something else
            due = loss(dict(leaves))
    except (Exception, SystemExit) as error:
        raise unread(name, error) from error
    return checked(reading.draft.program(output), output, float(due.detach()), dtype, name)


@final
class _OneHot(TorchFunctionMode):  # type: ignore[misc]  # torch comes without types here
    """`one_hot` without its looks at the smallest and the largest class, which would be those of the rows read."""

    def __torch_function__(self, function: Any, _types: Any, arguments: Any = (), options: Any = None) -> Any:
        options = options or {}
        classes = options.get("num_classes", arguments[1] if len(arguments) > 1 else -1)
        if function is torch.nn.functional.one_hot and classes > 0:
            labels = arguments[0] if arguments else options["tensor"]
            return (labels[..., None] == torch.arange(classes, device=labels.device)).long()
        return function(*arguments, **options)


@final
class _Reading(TorchDispatchMode):  # type: ignore[misc]  # likewise
    """Writes down what each operation does with tensors that come from the inputs."""

    def __init__(self, dtype: str, name: str) -> None:
        super().__init__()
        self.draft, self.dtype, self.name = Draft(), dtype, name
        self.refused: ProgramError | None = None
        self._places: dict[int, Place] = {}
        self._written: dict[int, int] = {}  # how often somebody has written into a base
        self._seen: dict[int, int] = {}  # and how often when this view of it was made
        self._lost: dict[int, ProgramError] = {}  # why nobody knows how a tensor depends on the inputs
        self._kept: list[torch.Tensor] = []  # alive, so that their ids stay theirs
        self._first: dict[int, torch.Tensor] = {}  # of the tensors that share a memory; below autograd none has a base
        self._cut: set[int] = set()  # those that torch does not differentiate
        self._saved: dict[int, Place] = {}  # what autograd has put by for a way back, as it is differentiated there
        self._constant: set[int] = set()  # those that no input enters
        self._later: dict[int, Any] = {}  # how the places of some are found, if anybody asks
        self._reals: dict[int, torch.Tensor] = {}  # of complex tensors: the parts of their numbers, in the same memory

    def input(self, name: str, tensor: torch.Tensor, numbers: NDArray[Any]) -> None:
        """Make a tensor an input of the program."""
        self._keep(tensor, self.draft.input(name, numbers, _dtype(tensor) if _is_half(tensor) else str(numbers.dtype)))

    def __torch_dispatch__(self, operation: Any, _types: Any, arguments: Any = (), options: Any = None) -> Any:
        options = options or {}
        name = operation._overloadpacket.__name__
        target = arguments[0] if operation._schema.is_mutable and name.endswith(("_", "copy_to")) else None
        target = options.get("out", target)
        taken = arguments, {key: value for key, value in options.items() if key != "out"}
        given = [each for each in tree_leaves(taken) if isinstance(each, torch.Tensor)]
        complexly = name in MADE or any(map(is_complex, tree_leaves((arguments, options))))
        formulas = COMPLEX if complexly else FORMULAS
        formula = formulas.get(f"{name}.{operation._overloadname}") or formulas.get(name.removesuffix("_"))
        turned = complexly and torch.Tag.inplace_view in operation.tags  # as by `transpose_`: nothing is written
        if complexly and (operation.is_view or turned):
            formula = self._seen_otherwise
        if any(each.is_meta for each in given) or options.get("device") == torch.device("meta"):
            return operation(*arguments, **options)  # a shape without numbers, as forward mode asks for
        enters = name not in CONSTANT and any(self._place(each) is not None for each in given)
        if formula is None and enters:
            with self:
                if target is not None and (plain := getattr(torch.ops.aten, name.removesuffix("_"), None)) is not None:
                    return target.copy_(plain(*taken[0], **taken[1]))
                if (result := operation.decompose(*arguments, **options)) is not NotImplemented:
                    return result
            if (apart := APART.get(name, decomposition_table.get(operation))) is not None:
                return self._taken_apart(operation, apart, arguments, options)
            if target is None and not any(each.is_floating_point() or each.is_complex() for each in given):
                formula = of_whole_numbers(operation)
        lost = next((self._lost[id(each)] for each in map(self._real, given) if id(each) in self._lost), None)
        operands = tree_map(self.operand, (list(taken[0]), taken[1])) if lost is None and formula else ([], {})
        if turned:
            self._reals.pop(id(target), None)
            target = None
        result = operation(*arguments, **options)
        if name.startswith(("empty", "new_empty")):
            result.zero_()  # as nobody has written into it: what is there may be too large to be exact
        if name == "_local_scalar_dense" and (enters or lost):
            self._decide(given[0], result, lost)
        outputs = [self._real(each) for each in tree_leaves(result) if isinstance(each, torch.Tensor)]
        for each in outputs:
            self._know(each)
        if torch.Tag.nondeterministic_seeded in operation.tags:
            lost = self._refusal(name, "draws random numbers", "Call .eval() on the model, or give the draws as data")
        inexact = not complexly and all(any(map(torch.is_floating_point, each)) for each in (given, outputs))
        exact = formula is None or not inexact or name in MOVES or target is not None
        exact = exact or any(map(self._is_narrow, given))
        if not outputs or (lost is None and not enters and exact):
            return result
        if lost is None:
            lost = self._written_down(operation, formula, operands, result, target, given)
            if lost is None and (target is not None or turned):
                return result
        self._lose(operation, arguments, outputs, lost or self._refusal(name, "gives more than what can be read"))
        return result

    def _taken_apart(self, operation: Any, apart: Any, arguments: Any, options: Any) -> Any:
        """Do an operation by others; refuse it if they give something else, as some for compilers do."""
        due = None
        if not operation._schema.is_mutable and torch.Tag.nondeterministic_seeded not in operation.tags:
            due = operation(*arguments, **options)
        name = operation._overloadpacket.__name__
        try:
            with self:
                found = apart(*arguments, **options)
        except UnsaidError as error:
            self.refused = self._refusal(name, f"cannot be read so: {error}")
            raise self.refused from error
        if due is not None and not _alike(tree_leaves(due)[:1], tree_leaves(found)[:1]):
            self.refused = self._refusal(name, "is taken apart into others, which give something else")
            raise self.refused
        return found

    def _written_down(
        self,
        operation: Any,
        formula: Any,
        operands: tuple[Any, Any],
        result: Any,
        target: torch.Tensor | None,
        given: list[torch.Tensor],
    ) -> ProgramError | None:
        """Write an operation down as its formula; return what is said if that cannot be."""
        name = operation._overloadpacket.__name__
        outputs = [self._real(each) for each in tree_leaves(result) if isinstance(each, torch.Tensor)]
        if formula is None:
            of = " of complex numbers" if any(map(is_complex, [*given, *tree_leaves(result)])) else ""
            return self._refusal(name, f"is none of the operations{of} that can be read")
        if target is not None and target.is_conj():
            return self._refusal(name, "writes into the conjugate of a tensor")
        if narrow := [each for each in outputs if self._is_narrow(each)]:
            what = f"rounds to {_dtype(narrow[0])}, where {self.dtype} is judged"
            return self._refusal(name, what, judged_in_float32(_dtype(narrow[0])))
        try:
            rounds = tensor_cores.rounds_factors(name, given)
            with self.draft.at(_line(), OF_FACTORS if rounds else _dtype(outputs[0])):
                if rounds:
                    operands = self.draft.factors(operands[0][: len(given)]) + operands[0][len(given) :], operands[1]
                if not any(each.numel() for each in [*filter(torch.is_floating_point, outputs)] or outputs):
                    result = tree_map(self._real, result)
                    found = tree_map(lambda each: None if each.numel() else self.draft.zeros(tuple(each.shape)), result)
                elif formula == self._seen_otherwise:
                    found = tree_map(partial(formula, given[0]), result)
                elif name == "as_strided":
                    found = self._seen_at(self._base(given[0]), _positions(result, self._base(given[0])))
                elif name == "_to_copy" and any(map(_is_half, [given[0], *outputs])):
                    found = self.draft.cast(operands[0][0], _dtype(outputs[0]))
                else:
                    found = formula(self.draft, *operands[0], **operands[1])
                    found = as_theirs(self.draft, name, found, [_numbers(each) for each in outputs])
                found, result = tree_map(self._beside, found), tree_map(self._real, result)
                target = target if target is None else self._real(target)
                if name == "detach" and _by_autograd():
                    found = self._put_by(given[0], result, found)
                    name = name if id(result) in self._saved else "taken out again"
                self._note(name, result, found, target)
        except FAULTS as error:
            return self._refusal(name, f"cannot be read so: {error}")
        return None

    def operand(self, value: Any) -> Any:
        """Return the place of a tensor, or its numbers if no input enters it; all else as it is."""
        if not isinstance(value, torch.Tensor):
            return value
        place = self._place(value)
        if place is None or not value.is_complex():
            return _numbers(value) if place is None else place
        with self.draft.at(_line(), place.dtype):
            real, imag = (self.draft.index(place, (..., i)) for i in (0, 1))
            return Complex(real, self.draft.negative(imag) if value.is_conj() else imag)

    # Complex numbers: a tensor of them is known as one of real numbers, which has an axis more, for the parts.

    def _real(self, tensor: Any) -> Any:
        """Return the tensor of real numbers that shares its memory; all else as it is."""
        if not isinstance(tensor, torch.Tensor) or not tensor.is_complex():
            return tensor
        if id(tensor) not in self._reals:
            self._kept.append(tensor)
            self._reals[id(tensor)] = torch.view_as_real(tensor.conj() if tensor.is_conj() else tensor)
        return self._reals[id(tensor)]

    def _beside(self, found: Any) -> Any:
        """Return the parts of complex numbers in one array; all else as it is."""
        if not isinstance(found, Complex):
            return found
        parts = whole(self.draft, found)
        return self.draft.stack([parts.real, parts.imag], axis=parts.ndim)

    def _seen_otherwise(self, tensor: torch.Tensor, view: Any) -> Any:
        """Return the numbers of a view that is complex, or of a complex tensor, parts and all."""
        real = self._real(view)
        base = self._base(self._real(tensor))
        self._place(base)
        return self._seen_at(base, _positions(real, base))

    def result(self, value: torch.Tensor) -> Any:
        """Return the place of the loss; raises why it has none."""
        if id(self._real(value)) in self._lost:
            raise self._lost[id(self._real(value))]
        return self.operand(value)

    def _note(self, name: str, result: Any, found: Any, target: torch.Tensor | None) -> None:
        """Keep where the results are; constants of the gradient where torch does not differentiate."""
        results = result if isinstance(result, tuple | list) else [result]
        places = found if isinstance(found, tuple | list) else [found]
        cut = (not torch.is_grad_enabled() or name in ("detach", "detach_")) and not _in_function()
        for tensor, place in zip(results, places, strict=True):
            if isinstance(tensor, torch.Tensor) and callable(place):
                self._kept.append(tensor)
                self._later[id(tensor)] = place
            if isinstance(place, np.ndarray):  # a number that no input enters, whatever entered beside it
                self._kept.append(tensor)
                self._constant.add(id(tensor))
            if not isinstance(tensor, torch.Tensor) or not isinstance(place, Place):
                continue
            fixed = self.draft.stop_gradient(place) if cut and tensor.is_floating_point() else place
            if target is not None:
                # Where torch does not record a writing, what was written over is differentiated as if it stood there.
                if cut and name != "detach_" and (before := self._written_over(target)) is not None:
                    fixed = self.draft.straight_through(place, before)
                self._write(target, fixed)
            elif cut:
                self._cut.add(id(tensor))
                self._keep(tensor, fixed)
            else:
                self._keep(tensor, fixed)

    def _put_by(self, tensor: torch.Tensor, result: torch.Tensor, found: Place) -> Place:
        """Return what stands in a tensor that autograd has put by for a way back, or takes out again on it.

        A way back that is itself differentiated, as in the loss of a physical law or a gradient penalty, knows again
        what was put by; to all others it is a constant, as `.data` is.
        """
        if id(tensor) in self._saved and torch._C._current_graph_task_id() != -1:
            return self._saved[id(tensor)]
        self._saved[id(result)] = found
        return found

    def _lose(self, operation: Any, arguments: Any, outputs: Sequence[torch.Tensor], why: ProgramError) -> None:
        """Note what nobody knows of what an operation gives out, or writes, as running statistics."""
        for argument, each in zip(operation._schema.arguments, arguments, strict=False):
            if argument.alias_info is not None and argument.alias_info.is_write and each is not None:
                given = self._real(each)
                base = self._base(given)
                self._written[id(base)] = self._written.get(id(base), 0) + 1
                for each in (given, base):
                    self._places.pop(id(each), None)
                    self._kept.append(each)
                    self._lost[id(each)] = why
        for each in outputs:
            if not any(id(each) in known for known in (self._places, self._later, self._constant)):
                self._kept.append(each)
                self._lost[id(each)] = why

    def _keep(self, tensor: torch.Tensor, place: Place) -> None:
        if tuple(tensor.shape) != tuple(place.shape):
            raise TypeError(f"its shape is {tuple(tensor.shape)}, and the formula's {tuple(place.shape)}")
        self._kept.append(tensor)
        self._know(tensor)
        self._places[id(tensor)] = place
        self._seen[id(tensor)] = self._written.get(id(self._base(tensor)), 0)

    # Memory that several tensors share.

    def _know(self, tensor: torch.Tensor) -> None:
        tensor = self._real(tensor)
        if tensor.layout is torch.strided:
            self._first.setdefault(tensor.untyped_storage()._cdata, tensor)

    def _base(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the tensor whose memory it shares, or itself."""
        if tensor._base is not None or tensor.layout is not torch.strided:
            return tensor if tensor._base is None else tensor._base
        return self._first.get(tensor.untyped_storage()._cdata, tensor)

    def _place(self, tensor: torch.Tensor) -> Place | None:
        tensor = self._real(tensor)
        if (later := self._later.pop(id(tensor), None)) is not None:
            try:
                with self.draft.at(_line(), _dtype(tensor)):
                    self._keep(tensor, later() if tensor.numel() else self.draft.zeros(tuple(tensor.shape)))
            except FAULTS as error:
                self._lost[id(tensor)] = self._refusal("what is asked for", f"cannot be read: {error}")
                return None
        base = self._base(tensor)
        fresh = self._seen.get(id(tensor), 0) == self._written.get(id(base), 0)
        if tensor is base or fresh:
            return self._places.get(id(tensor))
        if id(base) in self._lost:
            self._kept.append(tensor)
            self._lost[id(tensor)] = self._lost[id(base)]
            return None
        try:
            place = self._seen_at(base, _positions(tensor, base))  # somebody has written into it since
        except UnsaidError as error:
            self.refused = self._refusal("a view", f"cannot be read: {error}")
            raise self.refused from error
        self._keep(tensor, self.draft.stop_gradient(place) if id(tensor) in self._cut else place)
        return self._places[id(tensor)]

    def _seen_at(self, base: torch.Tensor, positions: NDArray[np.int64]) -> Place:
        """Return the numbers of a base in other places."""
        flat = self.draft.reshape(self._places[id(base)], (base.numel(),))
        return self.draft.reshape(self.draft.take(flat, positions.ravel()), positions.shape)  # type: ignore[no-any-return]

    def _written_over(self, target: torch.Tensor) -> Place | None:
        """Return what stands in a tensor's memory, as it is differentiated: a view may be a constant, its base not."""
        base = self._base(target)
        place = self._place(base)
        return place if place is None or target is base else self._seen_at(base, _positions(target, base))

    def _write(self, target: torch.Tensor, place: Place) -> None:
        base = self._base(target)
        if tuple(place.shape) != tuple(target.shape):
            place = self.draft.broadcast_to(place, tuple(target.shape))
        if target is not base:
            before = self.operand(base)
            positions = _positions(target, base).ravel()
            there, taken = np.zeros(base.numel(), dtype=bool), np.zeros(base.numel(), dtype=np.int64)
            there[positions], taken[positions] = True, np.arange(positions.size)
            new = self.draft.take(self.draft.reshape(place, (place.size,)), taken)
            old = self.draft.reshape(before, (base.numel(),))
            place = self.draft.reshape(self.draft.where(there, new, old), tuple(base.shape))
        self._written[id(base)] = self._written.get(id(base), 0) + 1
        self._keep(base, place)

    # What is refused.

    def _decide(self, condition: torch.Tensor, found: Any, lost: ProgramError | None) -> None:
        if lost is not None or condition.is_floating_point() or condition.is_complex():
            what = "makes a Python number of what depends on the inputs"
            self.refused = lost or self._refusal("item", what, "Leave it a tensor")
            raise self.refused
        with self.draft.at(_line(), "bool"):
            place, whole = self.operand(condition), condition.dtype != torch.bool
            self.draft.decide(self.draft.equal(place, found) if whole else place, True if whole else bool(found))

    def _is_narrow(self, tensor: torch.Tensor) -> bool:
        """Whether it is of a dtype that no operation of what is judged may round to."""
        if self.dtype == "float32" and _is_half(tensor):
            return False
        return bool(tensor.is_floating_point() and torch.finfo(tensor.dtype).eps > np.finfo(self.dtype).eps)

    def _refusal(self, name: str, what: str, way_out: str = "") -> ProgramError:
        where = f"{line}: " if (line := _line()) else ""
        return ProgramError(
            f"the program of {self.name!r} cannot be read: {where}{name} {what}. "
            f"{way_out or 'Write that part otherwise, or compare the model with another: gdcompare.compare'}"
        )


def _alike(one: Sequence[Any], other: Sequence[Any]) -> bool:
    """Whether the results of two programs are the same but for rounding, and views where the others are."""

    def same(a: Any, b: Any) -> Any:
        return a.shape == b.shape and torch.allclose(
            *(x.detach().cdouble() for x in (a, b)), 1e-3, 1e-5, equal_nan=True
        )

    return all(not isinstance(a, torch.Tensor) or same(a, b) for a, b in zip(one, other, strict=True))


def _positions(view: torch.Tensor, base: torch.Tensor) -> NDArray[np.int64]:
    """Return where the elements of a view are among those of its base."""
    if view.dtype != base.dtype:
        raise UnsaidError(f"it sees numbers of {_dtype(base)} as {_dtype(view)}")
    end = base.untyped_storage().nbytes() // base.element_size()
    cells, order = torch.arange(end), np.full(end, -1)
    own = cells.as_strided(base.size(), base.stride(), base.storage_offset()).numpy().ravel()
    order[own] = np.arange(own.size)
    found = order[cells.as_strided(view.size(), view.stride(), view.storage_offset()).numpy()]
    if (found < 0).any():
        raise UnsaidError("it sees memory beyond what it was made of")
    return found  # type: ignore[no-any-return]


def _numbers(tensor: torch.Tensor) -> NDArray[Any]:
    value = tensor.detach().cpu()
    return (value.float() if value.dtype in (torch.bfloat16, torch.float16) else value).numpy(force=True).copy()  # type: ignore[no-any-return]


def _is_half(tensor: torch.Tensor) -> bool:
    """Whether it is in half precision, which only single operations of a program may be in."""
    return tensor.is_floating_point() and _dtype(tensor) in NARROW


def _dtype(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _by_autograd() -> bool:
    """Whether autograd itself asks for what is done, or `.data` does: above the keys that record, not below them."""
    return not torch._C._dispatch_tls_is_dispatch_key_excluded(torch._C.DispatchKey.AutogradFunctionality)


def _in_function() -> bool:
    """Whether this runs inside the forward of an autograd Function, where torch records nothing anyhow."""
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename == _FUNCTION and frame.f_code.co_name == "apply":
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False


def _line() -> str:
    """Return the innermost line that is neither torch's nor ours, or else which of torch's modules is at work."""
    frame, module = sys._getframe(1), ""
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(_OURS) and not file.startswith(_BETWEEN):
            return module  # what lies further out has called us
        if not file.startswith(_BETWEEN) and file != contextlib.__file__:
            return f"{Path(file).name}:{frame.f_lineno}"
        if frame.f_code.co_name == "forward" and isinstance(within := frame.f_locals.get("self"), torch.nn.Module):
            module = module or f"{type(within).__name__}.forward"
        frame = frame.f_back  # type: ignore[assignment]
    return module

"""torch's differentiable operations, for an audit: those of its own test database, with their sample inputs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from gdcompare.audit.subject import Arrays, Asked, Formula, Operation, Route, hexadecimal
from gdcompare.backend import BackendUnavailableError
from gdcompare_torch.compiled import run_compiled
from gdcompare_torch.complex_numbers import is_complex
from gdcompare_torch.models import from_autograd_function

SAMPLES = 2
"""How many sample inputs of an operation are taken, of those that are looked at and have few numbers."""
LOOKED_AT, FURTHER = 12, 200
MOST = 130
"""How many numbers their arguments have at most, where there are such."""
SEED = 0


BY_DESIGN = {
    "nn.functional.binary_cross_entropy": "it clamps its logarithms at -100, and their slope, by design",
}
"""Operations whose derivative is not meant to be that of their values."""


COMPLEX = {"complex", "polar", "cdouble", "cfloat", "chalf"}
"""Elementwise operations that give complex numbers, of two parts."""


def operations() -> list[Operation]:
    """Return the operations of `op_db` that have derivatives, a row for each variant.

    Raises BackendUnavailableError without the package that torch's own tests need.
    """
    try:
        from torch.testing._internal.common_methods_invocations import op_db
    except ModuleNotFoundError as error:
        raise BackendUnavailableError(
            f"torch's own samples need {error.name!r}, which is not installed: pip install {error.name}"
        ) from None

    return [_operation(info) for info in op_db if info.supports_autograd and torch.float64 in info.dtypes]


def _operation(info: Any) -> Operation:
    name = info.name + (f" ({info.variant_test_name})" if info.variant_test_name else "")
    count = _arity(info)
    return Operation(name, lambda: _examples(info, count), count, BY_DESIGN.get(info.name, ""))


def _arity(info: Any) -> int:
    """Return of how many numbers an elementwise operation is a function; 0 for others, and for those that give two."""
    from torch.testing._internal.opinfo.core import BinaryUfuncInfo, UnaryUfuncInfo

    count = 1 if isinstance(info, UnaryUfuncInfo) else 2 if isinstance(info, BinaryUfuncInfo) else 0
    return 0 if info.name in COMPLEX else count


def _examples(info: Any, count: int) -> Iterator[_Example]:
    if count:
        names = ("x", "y")[:count]
        least = getattr(info, "domain", (None, None))[0]
        ordinary = 0.5 if least is None or least < 0.5 else least + 0.75
        yield _Example(info, "ordinary", dict.fromkeys(names, np.array([ordinary])), [], None)
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        samples = list(itertools.islice(info.sample_inputs("cpu", torch.float64, requires_grad=True), FURTHER))
    found: list[Any] = []
    for looked_at, sample in enumerate(samples):
        if looked_at >= LOOKED_AT and found:
            break
        leaves, form = tree_flatten((sample.input, sample.args, sample.kwargs))
        places = [i for i, leaf in enumerate(leaves) if _is_differentiated(leaf)]
        size = sum(leaves[i].numel() for i in places)
        if places and size > 0:
            found.append((size, leaves, form, places))
    found.sort(key=lambda each: each[0])
    fitting = [each for each in found if 1 < each[0] <= MOST] or found[:1]
    step = max(1, len(fitting) // SAMPLES)
    for _, leaves, form, places in fitting[::step][:SAMPLES]:
        arguments = {f"a{i}": leaves[place].detach().numpy().copy() for i, place in enumerate(places)}
        yield _Example(info, "samples", arguments, leaves, (form, places))


def _is_differentiated(leaf: Any) -> bool:
    if not torch.is_tensor(leaf) or leaf.layout != torch.strided:
        return False
    return bool(leaf.requires_grad and leaf.is_floating_point())


@final
class _Example:
    """A call of an operation, some of whose tensors are its arguments."""

    def __init__(self, info: Any, region: str, arguments: Arrays, leaves: list[Any], place: Any) -> None:
        self.info, self.region, self.arguments = info, region, arguments
        self._leaves, self._place = leaves, place
        self._single, self._complex = True, False
        self._chosen: list[int] | None = None
        self._options: dict[str, Any] = {}
        # As torch tests it: of what reads one triangle, and differentiates by both.
        self._symmetric = getattr(info.gradcheck_wrapper, "__name__", "") == "gradcheck_wrapper_hermitian_input"
        if place is None and len(arguments) == 1:  # as the order of a polygamma
            self._options = info.sample_kwargs("cpu", torch.float64, torch.tensor([0.5]))[0]
        self.native = from_autograd_function(self._call, name=info.name)

    def _call(self, *arguments: torch.Tensor) -> Any:
        """Return the outputs that have a derivative: some are marked as having none."""
        outputs = self._called(*arguments)
        if self._chosen is None:
            return outputs
        leaves = tree_leaves(outputs)
        return [leaves[i] for i in self._chosen]

    def _choose(self) -> None:
        """Note which outputs have a derivative, if not all have."""
        leaves = [torch.tensor(each, requires_grad=True) for each in self.arguments.values()]
        outputs = tree_leaves(self._called(*leaves))
        real = [
            i
            for i, each in enumerate(outputs)
            if torch.is_tensor(each) and (each.is_floating_point() or each.is_complex())
        ]
        chosen = [i for i in real if outputs[i].requires_grad]
        self._chosen = None if chosen == real else chosen

    def _called(self, *arguments: torch.Tensor) -> Any:
        if self._place is None:
            return self.info.op(*arguments, **self._options)
        form, places = self._place
        wide = arguments[0].dtype
        leaves = [self._as(leaf, wide) for leaf in self._leaves]
        for place, argument in zip(places, arguments, strict=True):
            leaves[place] = argument
        first, args, kwargs = tree_unflatten(leaves, form)
        return self.info.op(first + first.mT if self._symmetric else first, *args, **kwargs)

    @staticmethod
    def _as(leaf: Any, dtype: torch.dtype) -> Any:
        if torch.is_tensor(leaf):
            leaf = leaf.detach()
            dtype = dtype.to_complex() if leaf.is_complex() else dtype
            return leaf.to(dtype) if leaf.is_floating_point() or leaf.is_complex() else leaf.clone()
        return dtype if leaf is torch.float64 else leaf

    @property
    def routes(self) -> Mapping[str, Route]:
        """Backwards, forwards, and backwards through the backward pass."""
        native: Any = self.native
        return {
            "reverse": Route("gradient", native.value_and_grad),
            "forward": Route("jvp", self._forward),
            "reverse, twice": Route("hvp", native.hvp),
            "reverse, compiled": Route("gradient", self._compiled, usual=False),
        }

    def _compiled(self, arguments: Arrays, cotangents: NDArray[Any], targets: Any) -> tuple[None, Any]:
        """`torch.compile` of the gradient, as one program for each shape."""
        del targets
        at = {name: torch.tensor(each) for name, each in arguments.items()}
        found = run_compiled(_gradient, (self,), at, torch.tensor(cotangents))
        return None, {name: each.numpy(force=True) for name, each in found.items()}

    def _forward(
        self, arguments: Arrays, cotangents: NDArray[Any], targets: Any, direction: Arrays
    ) -> tuple[None, Any]:
        """`torch.func.jvp` of the operation itself: beside an infinite output, that of the loss may be NaN."""
        del targets
        native: Any = self.native
        at, along = (tuple(torch.tensor(each) for each in arrays.values()) for arrays in (arguments, direction))

        def outputs(*given: torch.Tensor) -> torch.Tensor:
            return torch.cat([each.reshape(-1) for each in native._outputs(given)])

        _, tangents = torch.func.jvp(outputs, at, along)
        return None, np.asarray(cotangents[0] @ tangents.numpy(force=True))

    def outputs(self, arguments: Arrays) -> int:
        """Counted by a call."""
        native: Any = self.native
        self._choose()
        with torch.no_grad():
            at = [torch.tensor(each) for each in arguments.values()]
            outputs, own = native._outputs(at), self._call(*at)
            self._single = torch.is_tensor(own)
            self._complex = is_complex(own)
        return sum(output.numel() for output in outputs)

    def formula(self, arguments: Arrays, cotangents: NDArray[Any]) -> Formula:
        """Read from what torch does."""
        return self.native.program(dict(arguments), cotangents, np.zeros((1, 1), cotangents.dtype))

    def script(self, asked: Asked) -> str:
        """A call as the database has it, where its inputs can be written down."""
        try:
            call = self._call_text(list(asked.arguments))
        except ValueError:
            return ""
        if self._chosen is not None:
            call = f"[torch.utils._pytree.tree_leaves({call})[i] for i in {self._chosen}]"
        if self._complex:
            call = f"torch.view_as_real({call}.resolve_conj())"
        dtype = f"torch.{asked.cotangents.dtype}"
        names, plain = ", ".join(asked.arguments), bool((asked.cotangents == 1).all())
        loss, last = _loss(call, self._single, plain), "," if len(asked.arguments) == 1 else ""
        lines = ["import torch", *self._imports(), "h = float.fromhex"]
        lines += [f"{name} = {_tensor(value, dtype)}" for name, value in asked.arguments.items()]
        if not plain or "cotangents" in loss:
            lines.append(f"cotangents = {_tensor(asked.cotangents[0], dtype)}")
        along = ", ".join(_tensor(each, dtype) for each in (asked.direction or {}).values()) + last
        if asked.route == "forward":
            lines += [f"def f({names}):", f"    return {_flat(call, self._single)}"]
            lines.append(f"_, tangents = torch.func.jvp(f, ({names}{last}), ({along}))")
            return "\n".join([*lines, f"found = {'tangents.sum()' if plain else '(cotangents * tangents).sum()'}"])
        place = f"[{', '.join(map(str, asked.place))}]" if asked.place else ""
        chosen = f"[{[*asked.arguments].index(asked.argument)}]{place}"
        options = ", allow_unused=True, materialize_grads=True" if not last or asked.direction else ""
        lines += [f"{name}.requires_grad_()" for name in asked.arguments]
        if asked.route == "reverse, compiled":
            numbers = tuple(range(len(asked.arguments)))
            lines += [f"def loss({names}):", f"    return {loss}"]
            return "\n".join([*lines, f"found = torch.compile(torch.func.grad(loss, {numbers}))({names}){chosen}"])
        if asked.direction is None:
            return "\n".join([*lines, f"found = torch.autograd.grad({loss}, ({names}{last}){options}){chosen}"])
        lines += [
            f"first = torch.autograd.grad({loss}, ({names}{last}), create_graph=True{options})",
            f"along = ({along})",
            "product = sum((one * other).sum() for one, other in zip(first, along))",
            f"found = torch.autograd.grad(product, ({names}{last}){options}){chosen}",
        ]
        return "\n".join(lines)

    def _imports(self) -> list[str]:
        if _named(self.info):
            return []
        which = self.info.name, self.info.variant_test_name
        return [
            "from torch.testing._internal.common_methods_invocations import op_db",
            f"op = next(each.op for each in op_db if (each.name, each.variant_test_name) == {which!r})",
        ]

    def _call_text(self, names: Sequence[str]) -> str:
        """Write the call as source. Raises ValueError for what cannot be written."""
        function = _named(self.info) or "op"
        if self._place is None:
            options = [f"{key}={_source(each)}" for key, each in self._options.items()]
            return f"{function}({', '.join([*names, *options])})"
        form, places = self._place
        texts: list[Any] = [_Text(_source(leaf)) if i not in places else None for i, leaf in enumerate(self._leaves)]
        for place, name in zip(places, names, strict=True):
            texts[place] = _Text(name)
        first, args, kwargs = tree_unflatten(texts, form)
        first = _Text(f"{first} + {first}.mT") if self._symmetric else first
        given = [*map(repr, (first, *args)), *(f"{key}={each!r}" for key, each in kwargs.items())]
        return f"{function}({', '.join(given)})"


def _gradient(example: _Example, leaves: dict[str, torch.Tensor], cotangents: torch.Tensor) -> Any:
    """Return the gradient of an example's loss, for a program that is recorded."""
    native: Any = example.native

    def loss(arrays: dict[str, torch.Tensor]) -> torch.Tensor:
        outputs = torch.cat([each.reshape(-1) for each in native._outputs(list(arrays.values()))])
        return (cotangents[0] * outputs).sum()

    return torch.func.grad(loss)(leaves)


class _Text(str):
    """Source text, in the place of a value."""

    __slots__ = ()
    __repr__ = str.__str__


def _named(info: Any) -> str:
    """Return the name by which torch has the operation; "" if it has it by none, but around a test's own function."""
    found: Any = torch
    for part in info.name.split("."):
        found = getattr(found, part, None)
    return f"torch.{info.name}" if found is not None and found is info.op else ""


def _source(leaf: Any) -> str:
    if torch.is_tensor(leaf):
        if leaf.layout != torch.strided or leaf.numel() > MOST or leaf.is_complex():
            raise ValueError("a tensor that no line holds")
        return _tensor(leaf.detach().numpy(), "cotangents.dtype") if leaf.is_floating_point() else _whole(leaf)
    if isinstance(leaf, float) and not math.isfinite(leaf):
        return f'float("{leaf}")'
    if leaf is torch.float64:
        return "cotangents.dtype"
    if leaf is None or isinstance(leaf, bool | int | float | str | torch.dtype):
        return repr(leaf)
    raise ValueError(f"{type(leaf).__name__} cannot be written down")


def _whole(leaf: torch.Tensor) -> str:
    return f"torch.tensor({leaf.tolist()}, dtype={leaf.dtype})"


def _tensor(values: NDArray[Any], dtype: str) -> str:
    return f"torch.tensor({hexadecimal(values)}, dtype={dtype})"


def _loss(call: str, single: bool, plain: bool) -> str:
    """Write cotangents times outputs, as the loss of an example."""
    return f"{call}.sum()" if single and plain else f"(cotangents * {_flat(call, single)}).sum()"


def _flat(call: str, single: bool) -> str:
    if single:
        return f"{call}.reshape(-1)"
    leaves = f"torch.utils._pytree.tree_leaves({call})"
    return f"torch.cat([each.reshape(-1) for each in {leaves} if each.is_floating_point()])"

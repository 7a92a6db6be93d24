"""JAX's differentiable operations, for an audit: `jax.lax`, `jax.numpy`, `jax.scipy.special` and `jax.nn`.

JAX ships no sample inputs; those of `operations` are drawn here, by names, shapes and calls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, final

import jax
import jax.numpy as jnp
import jax.scipy.special as special
import numpy as np
from jax import lax, nn
from numpy.typing import NDArray

from gdcompare.audit.subject import Arrays, Asked, Formula, Operation, Route, hexadecimal
from gdcompare_jax.calls import CALLS, ONE, TWO
from gdcompare_jax.models import from_autograd_function

NAMES = {"jax": jax, "jnp": jnp, "lax": lax, "nn": nn, "special": special}
IMPORTS = "import jax, jax.numpy as jnp, jax.scipy.special as special\nfrom jax import lax, nn\nh = float.fromhex"


def operations() -> list[Operation]:
    """Return the elementwise functions of one and two numbers, and calls that need arrays."""
    found = [_elementwise(name, 1) for name in ONE] + [_elementwise(name, 2) for name in TWO]
    found += [Operation(name, partial(_examples, name, texts)) for name, texts in CALLS.items()]
    return [each for each in found if _exists(each.name)]


def _exists(name: str) -> bool:
    """Whether this version has it."""
    home, _, rest = name.partition(" ")[0].partition(".")
    value: Any = NAMES.get(home)
    for part in rest.split("."):
        value = getattr(value, part, None)
    return value is not None


def _elementwise(name: str, count: int) -> Operation:
    names = ("x", "y")[:count]

    def examples() -> Iterator[_Example]:
        yield _Example(f"{name}({', '.join(names)})", "ordinary", dict.fromkeys(names, np.array([0.5])))

    return Operation(name, examples, count)


def _examples(name: str, texts: Sequence[tuple[str, Mapping[str, tuple[int, ...]]]]) -> Iterator[_Example]:
    """Yield the calls, at arguments drawn from a standard normal, rounded to three decimals."""
    del name
    generator = np.random.default_rng(0)
    for text, shapes in texts:
        drawn = {key: np.round(generator.standard_normal(shape), 3) for key, shape in shapes.items()}
        yield _Example(text, "drawn", drawn)


@final
class _Example:
    """A call, as source text: what is run is what a script shows."""

    def __init__(self, text: str, region: str, arguments: Arrays) -> None:
        self.text, self.region, self.arguments = text, region, arguments
        call = eval(f"lambda {', '.join(arguments)}: {text}", dict(NAMES))  # noqa: S307 - our own text
        self.call: Callable[..., Any] = call
        self.native: Any = from_autograd_function(call, name=text)
        self._single = True

    @property
    def routes(self) -> Mapping[str, Route]:
        """Backwards, eager and compiled; forwards; and forwards through the backward pass."""
        native = self.native
        return {
            "reverse, compiled": Route("gradient", native.value_and_grad),
            "reverse, eager": Route("gradient", _eagerly(native.value_and_grad)),
            "forward, compiled": Route("jvp", native.jvp),
            "forward over reverse, compiled": Route("hvp", native.hvp),
        }

    def outputs(self, arguments: Arrays) -> int:
        """Counted on arrays without values."""
        with jax.enable_x64(True):
            found = jax.eval_shape(self.call, *(jnp.asarray(each) for each in arguments.values()))
        self._single = not isinstance(found, tuple | list | dict)
        leaves = jax.tree.leaves(found)
        return sum(each.size for each in leaves if jnp.issubdtype(each.dtype, jnp.floating))

    def formula(self, arguments: Arrays, cotangents: NDArray[Any]) -> Formula:
        """Read from the jaxpr."""
        program: Formula = self.native.program(dict(arguments), cotangents, np.zeros((1, 1), cotangents.dtype))
        return program

    def script(self, asked: Asked) -> str:
        """The call between the arrays and the derivative."""
        dtype, names = str(asked.cotangents.dtype), ", ".join(asked.arguments)
        lines = [IMPORTS, f"jax.config.update('jax_enable_x64', {dtype == 'float64'})"]
        lines += [f"{name} = {_array(value, dtype)}" for name, value in asked.arguments.items()]
        if (asked.cotangents == 1).all() and self._single:
            loss = f"jnp.sum({self.text})"
        else:
            lines.append(f"cotangents = {_array(asked.cotangents[0], dtype)}")
            kinds = "if jnp.issubdtype(each.dtype, jnp.floating)"
            flat = f"jnp.concatenate([each.ravel() for each in jax.tree.leaves({self.text}) {kinds}])"
            loss = f"jnp.sum(cotangents * {f'({self.text}).ravel()' if self._single else flat})"
        lines.append(f"loss = lambda {names}: {loss}")
        last = "," if len(asked.arguments) == 1 else ""
        at = f"({names}{last})"
        along = f"({', '.join(_array(each, dtype) for each in (asked.direction or {}).values())}{last})"
        place = f"[{', '.join(map(str, asked.place))}]" if asked.place else ""
        number = [*asked.arguments].index(asked.argument) if asked.argument in asked.arguments else 0
        every = f"jax.grad(loss, {tuple(range(len(asked.arguments)))})"
        if asked.route.startswith("forward over"):
            lines.append(
                f"found = jax.jit(lambda at, along: jax.jvp({every}, at, along)[1])({at}, {along})[{number}]{place}"
            )
        elif asked.route.startswith("forward"):
            lines.append(f"found = jax.jit(lambda at, along: jax.jvp(loss, at, along)[1])({at}, {along})")
        elif asked.route.endswith("eager"):
            lines.append(f"found = {every}{at}[{number}]{place}")
        else:
            lines.append(f"found = jax.jit({every}){at}[{number}]{place}")
        return "\n".join(lines)


def _array(values: NDArray[Any], dtype: str) -> str:
    return f"jnp.array({hexadecimal(values)}, dtype={dtype!r})"


def _eagerly(function: Callable[..., Any]) -> Callable[..., Any]:
    """Run operation by operation."""

    def called(*arguments: Any) -> Any:
        with jax.disable_jit():
            return function(*arguments)

    return called

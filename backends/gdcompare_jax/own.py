"""Functions of JAX's own that its programs only approximate, or find by their bits: known by their names and files.

JAX adds up series, or divides polynomials, to as many digits as a float has, and differentiates by a rule of the exact
function. The derivative of such a polynomial is another number: by it a right rule would be called wrong. So these are
read as what they stand for, or refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from gdcompare.arithmetic.program import UnsaidError
from gdcompare.arithmetic.whole import here

HOME = Path(jax.__file__).resolve().parent / "_src"


def _series(name: str) -> Callable[..., Any]:
    def refused(*_: Any) -> Any:
        raise UnsaidError(f"JAX adds up a series for {name}, and differentiates by a rule of the exact function")

    return refused


def expn(xp: Any, n: Any, x: Any) -> list[Any]:
    """Return E_n; of other orders JAX finds something else."""
    orders = here(n)
    if (orders != np.floor(orders)).any() or (orders < 0).any():
        raise UnsaidError(f"expn has an order of {orders.ravel()[0]:g}, and JAX knows whole ones from 0 on")
    return [xp.expint(n, x)]


def frexp(xp: Any, x: Any) -> list[Any]:
    """Return x / 2^e, whose size is from 1/2 to 1, and e, which at other points must be as where it was read."""
    exponent = np.frexp(here(x))[1]
    part = xp.multiply(x, 2.0**-exponent)
    size, zero = xp.abs(xp.stop_gradient(part)), here(x) == 0
    inside = xp.logical_and(xp.greater_equal(size, 0.5), xp.less(size, 1.0))
    xp.decide(xp.all(xp.logical_or(inside, zero)), True)
    return [part, exponent.astype(np.int32)]


FORMULAS: Mapping[tuple[str, str], tuple[int, Callable[..., Any]]] = {
    ("scipy/special.py", "expi"): (1, lambda xp, x: [xp.expi(x)]),
    ("scipy/special.py", "expn"): (2, expn),
    ("scipy/special.py", "_erfcx"): (1, lambda xp, x: [xp.erfcx(x)]),
    ("scipy/special.py", "_dawsn"): (1, lambda xp, x: [xp.dawsn(x)]),
    ("scipy/special.py", "hyp1f1"): (3, _series("hyp1f1")),
    ("scipy/special.py", "hyp2f1"): (4, _series("hyp2f1")),
    ("scipy/special.py", "_wofz"): (1, _series("wofz")),
    ("numpy/ufuncs.py", "signbit"): (1, lambda xp, x: [xp.signbit(x)]),
    ("numpy/ufuncs.py", "frexp"): (1, frexp),
}
"""By file and name: of how many arrays it is a function, and what it is."""
_NAMES = {name for _, name in FORMULAS}


def own(equation: Any, inner: Any) -> Callable[..., Sequence[Any]] | None:
    """Return what a call of one of these is, `formula(xp, *operands)`; None of any other call."""
    info = getattr(getattr(inner, "jaxpr", inner), "debug_info", None)
    name = getattr(info, "func_name", "")
    if info is None or name not in _NAMES:
        return None
    file = Path(info.func_filename or "").resolve()
    if not file.is_relative_to(HOME):  # somebody else's, of the same name
        return None
    count, formula = FORMULAS.get((file.relative_to(HOME).as_posix(), name), (-1, None))
    constants = equation.params.get("num_consts", 0)
    if formula is None or len(equation.invars) - constants != count:
        return None
    return lambda xp, *operands: formula(xp, *operands[constants:])

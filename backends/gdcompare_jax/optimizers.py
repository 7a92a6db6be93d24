"""Gradient transformations, as optax has them, as `gdcompare.verify_rule` judges them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

Arrays: TypeAlias = dict[str, NDArray[Any]]


def from_optimizer(transformation: Any) -> Callable[[Arrays], Callable[[Arrays], Mapping[str, Any]]]:
    """Return a transformation as an implementation of an update rule: `verify_rule(rule, implementations={"it": it})`.

    It has `init(params) -> state` and `update(gradient, state, params) -> (updates, state)`, as optax's have; the
    parameters then become `params + updates`. It runs in the dtype under test.

    >>> import gdcompare as gdc
    >>> import optax
    >>> mine = from_optimizer(optax.adam(0.1))
    >>> gdc.verify_rule(gdc.rules.adam(0.1), implementations={"optax": mine}).verdict
    'agree'
    """

    def start(params: Arrays) -> Callable[[Arrays], Mapping[str, Any]]:
        with jax.enable_x64(True):  # the parameters say the precision
            now = {name: jnp.asarray(value) for name, value in params.items()}
            state = transformation.init(now)

        def step(gradient: Arrays) -> Mapping[str, Any]:
            nonlocal now, state
            with jax.enable_x64(True):
                given = {name: jnp.asarray(value) for name, value in gradient.items()}
                updates, state = transformation.update(given, state, now)
                now = {name: jnp.asarray(value + updates[name], value.dtype) for name, value in now.items()}
                return {name: np.array(value) for name, value in now.items()}

        return step

    return start

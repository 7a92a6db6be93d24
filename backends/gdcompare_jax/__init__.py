"""JAX: the backend, and functions of yours, over any pytree, as native models."""

from gdcompare_jax.backend import JaxBackend
from gdcompare_jax.layers import tap
from gdcompare_jax.models import JaxFunction, from_autograd_function, from_function
from gdcompare_jax.optimizers import from_optimizer

__all__ = ["JaxBackend", "JaxFunction", "from_autograd_function", "from_function", "from_optimizer", "tap"]

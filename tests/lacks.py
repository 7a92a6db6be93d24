"""What some backend has not, as data: the one table that marks the tests and makes docs/capabilities.md.

A test that tries a feature says so, `@pytest.mark.feature("hvp")`, and runs on every backend. Where a row of this table
says that the backend has it not, the test must raise what the row says. If it passes, the row is out of date, and the
test fails.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gdcompare.arithmetic.formula_check import FormulaError
from gdcompare.problem import NotDerivedError

FEATURES = {
    "gradient": "the loss and its gradient",
    "per-sample gradients": "one gradient for each row",
    "gradient of what nobody derived": "the gradient of a problem that has a loss and no derivation by hand",
    "jvp": "the derivative along a direction",
    "hvp": "the Hessian times a direction",
    "hessian": "the Hessian, in blocks",
    "native models": "models as they are, with `from_module`, `from_function` or `from_functions`",
    "gradient checkers": "the framework's own checkers in `verify --all-methods`",
    "steps": "how its framework gets to a gradient, step by step, in `explain`",
    "scan": "the loop of the descent",
    "the same bits in chunks of one step": "a descent in chunks of one step is that of longer chunks to the last bit",
    "Ctrl-C inside a chunk": "Ctrl-C keeps each step before it, not only whole chunks",
    "unary plus": "`+x` in the formula of a loss",
}


@dataclass(frozen=True)
class Lack:
    """What a backend has not yet, or can never have, and what it raises where it is asked all the same."""

    kind: Literal["notyet", "never"]
    backend: str
    feature: str
    reason: str
    raises: type[Exception] | tuple[type[Exception], ...]
    problems: tuple[str, ...] = ()
    """For these problems alone; for all of them if there is none."""


DIFFERENTIATES_NOTHING = "it evaluates what was derived by hand"
REVERSE_ONLY = "its file differentiates once, in reverse"
NOT_TWICE_DERIVED = (
    "convolution-network",
    "exponential-decay",
    "gaussian-mixture",
    "gaussian-peaks",
    "hinge",
    "logistic-growth",
    "matrix-factorisation",
    "michaelis-menten",
    "polynomial-regression",
    "quantile-regression",
    "recurrent-cell",
    "relu-network",
    "rosenbrock",
    "tanh-network",
)

LACKS = [
    Lack("notyet", "autograd", "jvp", REVERSE_ONLY, NotDerivedError),
    Lack("notyet", "autograd", "hvp", REVERSE_ONLY, NotDerivedError),
    Lack("notyet", "autograd", "hessian", REVERSE_ONLY, NotDerivedError),
    Lack("notyet", "autograd", "native models", "its file has no adapter for models", AttributeError),
    Lack("notyet", "autograd", "gradient checkers", "its file does not offer `autograd.test_util`", AssertionError),
    Lack("never", "autograd", "unary plus", "its arrays have none", (TypeError, FormulaError)),
    Lack("never", "jax", "the same bits in chunks of one step", "XLA unrolls a loop of one step", AssertionError),
    Lack("never", "jax", "Ctrl-C inside a chunk", "a compiled loop runs no Python", AssertionError),
    Lack("never", "numpy", "gradient of what nobody derived", DIFFERENTIATES_NOTHING, NotDerivedError),
    Lack("never", "numpy", "gradient checkers", DIFFERENTIATES_NOTHING, AssertionError),
    Lack("never", "numpy", "steps", "the suite itself shows what is derived by hand", AttributeError),
    Lack("notyet", "numpy", "hvp", "nobody has derived it", NotDerivedError, NOT_TWICE_DERIVED),
    Lack("notyet", "numpy", "hessian", "nobody has derived it", NotDerivedError, NOT_TWICE_DERIVED),
    Lack("notyet", "tensorflow", "jvp", REVERSE_ONLY, NotDerivedError),
    Lack("notyet", "tensorflow", "hvp", REVERSE_ONLY, NotDerivedError),
    Lack("notyet", "tensorflow", "hessian", REVERSE_ONLY, NotDerivedError),
    Lack("notyet", "tensorflow", "native models", "its file has no adapter for models", AttributeError),
    Lack("notyet", "tensorflow", "gradient checkers", "its file does not offer `tf.test`", AssertionError),
]

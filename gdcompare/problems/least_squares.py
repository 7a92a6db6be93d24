"""What all fits by least squares share, linear or not: a prediction, and its derivatives."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from gdcompare.problem import Dataset, Problem


class LeastSquares(Problem):
    """The mean squared error of a prediction f(x; parameters), without a 1/2.

        r_i = f_i - y_i                            the residual of sample i
        l_i = r_i^2                                its loss;   L = 1/n sum l_i

    By the chain rule, dl_i/dparameter = 2 r_i df_i/dparameter: a problem gives f and its Jacobian.

    Source: Bates and Watts, Nonlinear Regression Analysis and Its Applications, 1988, chapter 2.
    """

    @abstractmethod
    def predictions(self, xp: Any, params: Mapping[str, Any], features: Any) -> Any:
        """Return f_i, (n,)."""

    @abstractmethod
    def jacobian(self, xp: Any, params: Mapping[str, Any], features: Any) -> dict[str, Any]:
        """Return df_i/dparameter derived by hand, `{name: (n, *shape)}`."""

    def per_sample_losses(self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any) -> Any:
        """l_i = r_i^2."""
        residuals = self.predictions(xp, params, features) - targets  # (n,)
        return residuals * residuals

    def per_sample_gradients(self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any) -> dict[str, Any]:
        """One gradient per sample: 2 r_i df_i/dparameter."""
        residuals = self.predictions(xp, params, features) - targets  # (n,)
        jacobian = self.jacobian(xp, params, features)
        return {
            name: xp.reshape(2 * residuals, (-1, *[1] * (each.ndim - 1))) * each  # (n, *shape)
            for name, each in jacobian.items()
        }

    def value_and_gradient(
        self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any
    ) -> tuple[Any, dict[str, Any]]:
        """L = r.r / n, dL/dparameter = 2/n J^T r."""
        n = features.shape[0]
        residuals = self.predictions(xp, params, features) - targets  # (n,)
        jacobian = self.jacobian(xp, params, features)
        gradient = {name: xp.tensordot(residuals, each, axes=1) * (2 / n) for name, each in jacobian.items()}
        return residuals @ residuals / n, gradient


def check_one_feature(problem: Problem, data: Dataset) -> None:
    """Raise a ValueError if the data have more features than the x of a curve.

    >>> from gdcompare.problems.exponential_decay import ExponentialDecay
    >>> ExponentialDecay().parameter_shapes(Dataset([[1.0, 2.0]], [3.0], name="a plane"))
    Traceback (most recent call last):
    ...
    ValueError: ExponentialDecay takes one feature, but 'a plane' has 2; keep one column of it
    """
    d = data.features.shape[1]
    if d != 1:
        raise ValueError(
            f"{type(problem).__name__} takes one feature, but {data.name!r} has {d}; keep one column of it"
        )

"""What problems share whose loss sees a sample only through one number, a linear function of its features."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from gdcompare.problem import Dataset, NotDerivedError, Problem


class LinearPredictor(Problem):
    """A loss of the linear predictor: what differs from one to the next is l(z, y) and its slope in z.

        z_i = theta_0 + x_i . theta_1              the linear predictor of sample i
        l_i = l(z_i, y_i)                          its loss;   L = 1/n sum l_i
        g_i = dl_i/dz_i                            its slope

    By the chain rule, dl_i/dtheta_0 = g_i and dl_i/dtheta_1 = g_i x_i.

    Parameters: `theta_0`, a scalar, the intercept; `theta_1`, shape (d,).
    """

    @abstractmethod
    def losses(self, xp: Any, predictors: Any, targets: Any) -> Any:
        """Return l_i of the linear predictors z_i, both (n,)."""

    @abstractmethod
    def slopes(self, xp: Any, predictors: Any, targets: Any) -> Any:
        """Return g_i = dl_i/dz_i, (n,)."""

    def parameter_shapes(self, data: Dataset) -> dict[str, tuple[int, ...]]:
        """One intercept and one weight for each feature."""
        return {"theta_0": (), "theta_1": data.features.shape[1:]}

    def per_sample_losses(self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any) -> Any:
        """l_i = l(z_i, y_i)."""
        return self.losses(xp, params["theta_0"] + features @ params["theta_1"], targets)

    def per_sample_gradients(self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any) -> dict[str, Any]:
        """One gradient per sample: dl_i/dtheta_0 = g_i, dl_i/dtheta_1 = g_i x_i."""
        slopes = self.slopes(xp, params["theta_0"] + features @ params["theta_1"], targets)  # (n,)
        return {"theta_0": slopes, "theta_1": slopes[:, None] * features}  # (n,), (n, d)

    def value_and_gradient(
        self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any
    ) -> tuple[Any, dict[str, Any]]:
        """L = 1/n sum l_i, dL/dtheta_0 = 1/n sum g_i, dL/dtheta_1 = 1/n X^T g."""
        n = features.shape[0]
        predictors = params["theta_0"] + features @ params["theta_1"]  # (n,)
        slopes = self.slopes(xp, predictors, targets)  # (n,)
        gradient = {"theta_0": xp.sum(slopes) / n, "theta_1": slopes @ features / n}  # (), (d,)
        return xp.mean(self.losses(xp, predictors, targets)), gradient

    def curvatures(self, xp: Any, predictors: Any, targets: Any) -> Any:
        """Return c_i = dg_i/dz_i, (n,). It is optional, and gives the Hessian-vector product."""
        raise NotDerivedError(f"{type(self).__name__} has no second derivative by hand; write curvatures")

    @property
    def twice_derived(self) -> bool:
        """Whether it has its curvatures."""
        return type(self).curvatures is not LinearPredictor.curvatures

    def hessian_vector_product(
        self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any, direction: Mapping[str, Any]
    ) -> dict[str, Any]:
        """With dz_i = v_0 + x_i . v_1: (H v)_0 = 1/n sum c_i dz_i, (H v)_1 = 1/n X^T (c dz)."""
        n = features.shape[0]
        curvatures = self.curvatures(xp, params["theta_0"] + features @ params["theta_1"], targets)  # (n,)
        changes = curvatures * (direction["theta_0"] + features @ direction["theta_1"])  # c dz, (n,)
        return {"theta_0": xp.sum(changes) / n, "theta_1": changes @ features / n}  # (), (d,)

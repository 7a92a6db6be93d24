"""Complete a matrix by two thin factors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from gdcompare.problem import Dataset, Problem
from gdcompare.problems.settings import refuse_uncounted


@final
@dataclass(frozen=True)
class MatrixFactorisation(Problem):
    """The mean squared error of a matrix of low rank, U V^T, at the entries that were observed.

        x_i = (a_i, b_i)                           one-hot: the row and the column of entry i, side by side
        u_i = a_i U,   v_i = b_i V                 its row of U and its row of V
        r_i = u_i . v_i - y_i                      the residual
        l_i = r_i^2                                its loss;   L = 1/n sum l_i

    At U = V = 0 the gradient is 0: a descent starts elsewhere.

    Parameters: `U`, shape (rows, rank); `V`, shape (d - rows, rank).

    Source: Koren, Bell and Volinsky, Matrix Factorization Techniques for Recommender Systems, Computer 42(8), 2009.

    >>> import numpy as np
    >>> params = {"U": np.array([[2.0]]), "V": np.array([[3.0]])}
    >>> problem = MatrixFactorisation(rows=1, rank=1)
    >>> loss, gradient = problem.value_and_gradient(np, params, np.array([[1.0, 1.0]]), np.array([5.0]))
    >>> float(loss), gradient["U"].tolist(), gradient["V"].tolist()
    (1.0, [[6.0]], [[4.0]])
    """

    rows: int = 4
    rank: int = 2

    def __post_init__(self) -> None:
        """Refuse settings that count nothing."""
        refuse_uncounted(self, 1, "rows", "rank")

    def parameter_shapes(self, data: Dataset) -> dict[str, tuple[int, ...]]:
        """A row of U for each row of the matrix, a row of V for each column."""
        d = data.features.shape[1]
        if d <= self.rows:
            raise ValueError(
                f"MatrixFactorisation takes one-hot rows and columns side by side: with rows={self.rows} more than "
                f"{self.rows} features, but {data.name!r} has {d}; set rows"
            )
        return {"U": (self.rows, self.rank), "V": (d - self.rows, self.rank)}

    def per_sample_losses(self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any) -> Any:
        """l_i = r_i^2."""
        _, _, residuals = self._factors(xp, params, features, targets)
        return residuals * residuals

    def per_sample_gradients(self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any) -> dict[str, Any]:
        """One gradient per sample: dl_i/dU = 2 r_i a_i^T v_i, dl_i/dV = 2 r_i b_i^T u_i."""
        u, v, residuals = self._factors(xp, params, features, targets)
        twice = 2 * residuals[:, None]  # (n, 1)
        a, b = features[:, : self.rows], features[:, self.rows :]
        return {
            "U": a[:, :, None] * (twice * v)[:, None, :],  # (n, rows, rank)
            "V": b[:, :, None] * (twice * u)[:, None, :],  # (n, d - rows, rank)
        }

    def value_and_gradient(
        self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any
    ) -> tuple[Any, dict[str, Any]]:
        """L = r.r / n, dL/dU = 2/n A^T (r v), dL/dV = 2/n B^T (r u)."""
        n = features.shape[0]
        u, v, residuals = self._factors(xp, params, features, targets)
        scaled = residuals[:, None] * (2 / n)  # (n, 1)
        a, b = features[:, : self.rows], features[:, self.rows :]
        return residuals @ residuals / n, {"U": a.T @ (scaled * v), "V": b.T @ (scaled * u)}

    def start(self, data: Dataset) -> dict[str, NDArray[np.float64]]:
        """Standard normal, seed 0: between equal columns of U and V a descent could not choose."""
        generator = np.random.default_rng(0)
        return {name: generator.standard_normal(shape) for name, shape in self.parameter_shapes(data).items()}

    def example(self, samples: int = 40, seed: int = 0) -> Dataset:
        """Entries of a matrix of this rank with rows + 1 columns, standard normal factors, noise 0.1.

        The rows and the columns take turns; having no common divisor, they meet in every pair.
        """
        generator = np.random.default_rng(seed)
        u, v = (generator.standard_normal((length, self.rank)) for length in (self.rows, self.rows + 1))
        row, column = np.arange(samples) % len(u), np.arange(samples) % len(v)
        entries = np.sum(u[row] * v[column], axis=1) + 0.1 * generator.standard_normal(samples)
        one_hot = np.concatenate([np.eye(len(u))[row], np.eye(len(v))[column]], axis=1)
        return Dataset(one_hot, entries, name=f"entries of a matrix of rank {self.rank}")

    def _factors(self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any) -> tuple[Any, Any, Any]:
        """Return u_i and v_i, (n, rank), and r_i, (n,)."""
        u = features[:, : self.rows] @ params["U"]
        v = features[:, self.rows :] @ params["V"]
        return u, v, xp.sum(u * v, axis=1) - targets

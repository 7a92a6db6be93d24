"""NumPy on complex numbers, for derivatives by a complex step: f'(x) = Im f(x + i h) / h + O(h^2).

No difference is taken, so nothing cancels, and h may be so small that nothing is truncated either. Source: Squire and
Trapp, Using complex variables to estimate derivatives of real functions, SIAM Review 40, 1998.
"""

from __future__ import annotations

from typing import Any

import numpy as np


class AnalyticNumpy:
    """NumPy for a complex step: functions continue analytically from the real line, and branch on the real part.

    >>> slope = AnalyticNumpy().logaddexp(0.0, 3.0 + 1e-100j).imag / 1e-100
    >>> bool(abs(slope - 1 / (1 + np.exp(-3.0))) < 1e-15)
    True
    """

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    def abs(self, x: Any) -> Any:
        """x or -x, not the modulus."""
        return np.where(np.real(x) < 0, -x, x)

    def sign(self, x: Any) -> Any:
        """Of the real part, not x / |x|."""
        return np.sign(np.real(x))

    def vecdot(self, a: Any, b: Any, *, axis: int = -1) -> Any:
        """Without conjugation."""
        return np.sum(a * b, axis=axis)

    def logaddexp(self, a: Any, b: Any) -> Any:
        """The larger + log(1 + exp(smaller - larger)), which NumPy has for floats only."""
        larger, smaller = np.where(np.real(a) < np.real(b), (b, a), (a, b))
        return larger + np.log1p(np.exp(smaller - larger))

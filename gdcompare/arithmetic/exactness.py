"""Where float64 rounds nothing, of operations on numbers that no draw has touched."""

from __future__ import annotations

from typing import Any

import numpy as np


def is_power_of_2(value: Any) -> Any:
    """Say which factors and divisors round nothing: the powers of 2, and 0."""
    return (np.frexp(np.abs(value))[0] == 0.5) | (value == 0)


def sum_is_exact(a: Any, b: Any, total: Any) -> Any:
    """Say where float64 has lost nothing: Knuth's two-sum."""
    seen = total - a
    return ((a - (total - seen)) + (b - seen)) == 0


def product_is_exact(a: Any, b: Any, product: Any) -> Any:
    """Say where float64 has lost nothing: Dekker's product of halves; not beyond 2^996, where they overflow."""
    a_high, b_high = (x * 134217729.0 - (x * 134217729.0 - x) for x in (a, b))
    a_low, b_low = a - a_high, b - b_high
    lost = a_low * b_low - (((product - a_high * b_high) - a_low * b_high) - a_high * b_low)
    return (lost == 0) & ((np.abs(product) > 2.0**-960) | (a * b == 0) & ((a == 0) | (b == 0)))

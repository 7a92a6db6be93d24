"""Data that come with the suite: the seed's noisy line, four real sets, small integers.

Nothing here touches the network. The real sets are those that scikit-learn ships, imported where they are asked for.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gdcompare.data.extras import optional
from gdcompare.data.prepare import standardise
from gdcompare.problem import Dataset


def noisy_line(samples: int = 40, seed: int = 45, slope: float = 3.0, intercept: float = 4.0) -> Dataset:
    """Points scattered about a line; with the defaults, the data of the seed notebook, bit for bit.

        x_i ~ uniform(-1, 1),   y_i = slope x_i + intercept + eps_i,   eps_i ~ normal(0, 1)

    All x are drawn before all eps. Features (samples, 1), targets (samples,). NumPy froze the stream of `RandomState`
    (NEP 19), so the bits stay the same from version to version; its global generator is not touched.

    Raises ValueError unless there is at least one sample.

    >>> noisy_line()
    Dataset('noisy-line', 40 rows, 1 feature)
    >>> float(noisy_line().features[0, 0])
    0.9780230269512002
    """
    _check_count("samples", samples)
    generator = np.random.RandomState(seed)
    x = generator.uniform(-1, 1, samples)
    noise = generator.randn(samples)
    return Dataset(x[:, None], slope * x + intercept + noise, name="noisy-line")


def diabetes(standardised: bool = True) -> Dataset:
    """Ten measurements of 442 diabetes patients, and how far the disease went in a year: a regression.

    Features (442, 10), targets (442,) from 25 to 346, as published. Features are standardised (see `standardise`), so
    that a learning rate of 0.01 descends; `standardised=False` gives them as measured: years, mmHg, mg/dl, with blood
    serum near 190 beside ratios near 4. scikit-learn's own scaling, to column length 1 rather than deviation 1, is
    not used: it makes every slope sqrt(442) = 21 times flatter.

    Raises ImportError if scikit-learn, which bundles the data, is not installed.

    Source: Efron, Hastie, Johnstone and Tibshirani, Least Angle Regression, Annals of Statistics 32(2), 2004.

    >>> diabetes()
    Dataset('diabetes', 442 rows, 10 features)
    """
    return _bundled("diabetes", standardised, "load_diabetes", scaled=False)


def breast_cancer(standardised: bool = True) -> Dataset:
    """Thirty measurements of the cell nuclei in 569 tumours, labelled 0 malignant or 1 benign: a classification.

    Features (569, 30), targets (569,). Features are standardised (see `standardise`); `standardised=False` gives them
    as measured, from thousandths (errors of smoothness) to thousands (areas).

    Raises ImportError if scikit-learn, which bundles the data, is not installed.

    Source: Wolberg, Mangasarian, Street and Street, Breast Cancer Wisconsin (Diagnostic), UCI, 1995.

    >>> breast_cancer()
    Dataset('breast-cancer', 569 rows, 30 features)
    """
    return _bundled("breast-cancer", standardised, "load_breast_cancer")


def digits() -> Dataset:
    """Handwritten digits, 8 x 8 pixels each: a classification into ten, for which `one_hot` makes targets (n, 10).

    Features (1797, 64), pixels row by row, from 0 to 1 in steps of 1/16, which floats hold exactly; targets (1797,),
    the digit. Not standardised: some pixels in the corners are 0 in every row, and others nearly so.

    Raises ImportError if scikit-learn, which bundles the data, is not installed.

    Source: Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998 (its test set).

    >>> digits()
    Dataset('digits', 1797 rows, 64 features)
    """
    measured = _bundled("digits", False, "load_digits")
    return Dataset(measured.features / 16, measured.targets, name=measured.name)


def wine(standardised: bool = True) -> Dataset:
    """Thirteen chemical measurements of 178 wines from three growers: a classification into three (see `one_hot`).

    Features (178, 13), targets (178,), the grower, 0, 1 or 2. Features are standardised (see `standardise`);
    `standardised=False` gives them as measured, from tenths (phenols) to a thousand (proline).

    Raises ImportError if scikit-learn, which bundles the data, is not installed.

    Source: Aeberhard and Forina, Wine, UCI, 1992.

    >>> wine()
    Dataset('wine', 178 rows, 13 features)
    """
    return _bundled("wine", standardised, "load_wine")


def integer_lattice(
    samples: int = 32, features: int = 3, seed: int = 0, largest: int = 4, labels: bool = False
) -> Dataset:
    """Small whole numbers, so that least squares has no rounding, not even in float32, in whatever order it adds.

        x_ij, y_i ~ uniform{-largest, ..., largest};   with labels, y_i ~ uniform{0, 1}

    float32 holds every whole number up to 2^24. With n samples, d features, and parameters that are whole numbers up to
    m = largest, a residual is at most R = m (d m + 2), and every partial sum of n terms r^2 or 2 r x is at most n R^2.
    While n R^2 <= 2^24 nothing is rounded, and dividing by n is exact because n is a power of two. Any two correct
    programs then agree in every bit.

    Features (samples, features), targets (samples,). Raises ValueError where the sizes break that promise.

    >>> integer_lattice(samples=2, features=3).features.tolist()
    [[3.0, 1.0, 0.0], [-2.0, -2.0, -4.0]]
    >>> integer_lattice(samples=40)
    Traceback (most recent call last):
    ...
    ValueError: samples must be a power of two, so that dividing by it is exact; not 40: take 32 or 64
    """
    for what, value in {"samples": samples, "features": features, "largest": largest}.items():
        _check_count(what, value)
    below = 2 ** (int(samples).bit_length() - 1)
    if samples != below:
        way_out = f"take {below} or {2 * below}"
        raise ValueError(f"samples must be a power of two, so that dividing by it is exact; not {samples}: {way_out}")
    bound = int(samples) * (int(largest) * (int(features) * int(largest) + 2)) ** 2
    if bound > 2**24:
        raise ValueError(
            f"sums may reach {bound}, and float32 is exact only up to {2**24}; take fewer samples or features, "
            "or a smaller largest"
        )
    generator = np.random.default_rng(seed)
    x = generator.integers(-largest, largest, (samples, features), endpoint=True)
    y = generator.integers(0, 2, samples) if labels else generator.integers(-largest, largest, samples, endpoint=True)
    return Dataset(x, y, name="integer-lattice")


def _bundled(name: str, standardised: bool, loader: str, **options: bool) -> Dataset:
    bundled = optional("sklearn.datasets", "scikit-learn", f"data set {name!r}")
    features, targets = getattr(bundled, loader)(return_X_y=True, **options)
    data = Dataset(features, targets, name=name)
    return standardise(data) if standardised else data


def _check_count(what: str, value: int) -> None:
    if not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"{what} must be a whole number, 1 or more; not {value!r}")


BUILT_IN: dict[str, Callable[[], Dataset]] = {
    "breast-cancer": breast_cancer,
    "diabetes": diabetes,
    "digits": digits,
    "integer-lattice": integer_lattice,
    "noisy-line": noisy_line,
    "wine": wine,
}

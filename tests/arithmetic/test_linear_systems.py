"""Solutions, inverses and determinants keep the budget, whatever the condition of the matrix."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from flint import ctx
from numpy.typing import NDArray

from gdcompare.arithmetic.balls import BallNumbers
from gdcompare.arithmetic.numbers import Floats
from gdcompare.arithmetic.rounded import RoundedNumbers
from gdcompare.arithmetic.tape import Tape
from gdcompare.referee.enclosed import Enclosed

RIGHT = np.array([[1.0, -0.5], [0.25, 2.0], [1.5, 1.0], [-1.0, 0.5], [2.0, 0.75], [0.5, -3.0]])
FUNCTIONS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "solve": lambda linalg, a, b: linalg.solve(a, b),
    "inv": lambda linalg, a, b: linalg.inv(a),
    "det": lambda linalg, a, b: linalg.det(a),
    "slogdet": lambda linalg, a, b: linalg.slogdet(a)[1],
}


def normal(generator: np.random.Generator, n: int) -> NDArray[Any]:
    return generator.normal(size=(n, n))


MATRICES: dict[str, Callable[[np.random.Generator, int], NDArray[Any]]] = {
    "normal": normal,
    "of condition 1e4": lambda generator, n: normal(generator, n) @ np.diag(10.0 ** np.linspace(0, -4, n)),
    "in rows of many sizes": lambda generator, n: normal(generator, n) * 10.0 ** generator.uniform(-2, 2, (n, 1)),
    "triangular": lambda generator, n: np.tril(normal(generator, n)) + 2 * np.eye(n),
}


def weights_of(value: Any) -> NDArray[Any]:
    return np.linspace(0.5, 1.5, value.size).reshape(value.shape)


def slopes_of_torch(name: str, matrix: NDArray[Any], right: NDArray[Any], weights: NDArray[Any]) -> NDArray[Any]:
    torch = pytest.importorskip("torch")
    leaf = torch.tensor(matrix, requires_grad=True)
    (FUNCTIONS[name](torch.linalg, leaf, torch.tensor(right)) * torch.tensor(weights)).sum().backward()
    return np.asarray(leaf.grad)


def slopes_of_jax(name: str, matrix: NDArray[Any], right: NDArray[Any], weights: NDArray[Any]) -> NDArray[Any]:
    jax = pytest.importorskip("jax")
    with jax.enable_x64(matrix.dtype == np.float64):
        loss = lambda leaf: (FUNCTIONS[name](jax.numpy.linalg, leaf, right) * weights).sum()  # noqa: E731
        return np.asarray(jax.grad(loss)(matrix))


@pytest.mark.covering
@pytest.mark.thorough
@pytest.mark.parametrize("slopes_of", [slopes_of_torch, slopes_of_jax])
@pytest.mark.parametrize("kind", MATRICES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_frameworks_keep_the_budget(name: str, kind: str, slopes_of: Callable[..., Any], dtype: str) -> None:
    generator = np.random.default_rng(7)
    for n in (1, 2, 4, 6):
        matrix, right = MATRICES[kind](generator, n).astype(dtype), RIGHT[:n].astype(dtype)

        def on_tape(numbers: Any, matrix: Any = matrix, right: Any = right) -> tuple[Any, NDArray[Any]]:
            tape = Tape(numbers)
            leaf = tape.leaf(matrix)
            value = FUNCTIONS[name](tape, leaf, right)
            weights = weights_of(value).astype(dtype)
            tape.walk_back(tape.sum(value * weights))
            return tape.gradient(leaf)[0], weights

        with ctx.workprec(400), np.errstate(all="ignore"):
            truth, weights = on_tape(BallNumbers())
            budget, _ = on_tape(RoundedNumbers(dtype))
        actual = slopes_of(name, matrix, right, weights)

        _, error = Enclosed(truth, np.zeros(truth.shape, dtype=bool)).distance(actual.astype(np.float64))
        assert np.isfinite(budget.error).all()
        assert (error <= budget.error).all(), (n, error / budget.error)


def test_a_stack_of_matrices_is_solved_one_by_one() -> None:
    generator, tape = np.random.default_rng(8), Tape(Floats())
    a, b = generator.normal(size=(3, 4, 4)), generator.normal(size=(3, 4, 2))

    np.testing.assert_allclose(tape.solve(a, b).value[0], np.linalg.solve(a, b))
    np.testing.assert_allclose(tape.solve(a, b[0, :, 0]).value[0], np.linalg.solve(a, b[0, :, 0]))
    np.testing.assert_allclose(tape.inv(a).value[0], np.linalg.inv(a))
    np.testing.assert_allclose(tape.det(a).value[0], np.linalg.det(a))
    sign, size = tape.slogdet(a)
    np.testing.assert_allclose([sign.value[0], size.value[0]], np.linalg.slogdet(a))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_is_not_square_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"wants a square matrix, not one of shape \(2, 3\)"):
        FUNCTIONS[name](Tape(Floats()), np.ones((2, 3)), np.ones(2))


def test_a_matrix_without_an_inverse_has_no_bound() -> None:
    with np.errstate(all="ignore"):
        found = Tape(RoundedNumbers("float64")).inv(np.ones((2, 2)))

    assert np.isinf(found.value.error).all()

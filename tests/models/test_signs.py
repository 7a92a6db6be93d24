"""Eigenvectors, singular vectors and Q have the signs that the framework chose: no right gradient is wrong by them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gdcompare as gdc
from gdcompare.arithmetic.program import Draft
from tests.models.zoo import numbers

torch: Any = pytest.importorskip("torch", reason="reads the programs of torch")
jax: Any = pytest.importorskip("jax", reason="reads the programs of JAX")

import gdcompare_jax  # noqa: E402 - the frameworks may be missing
import gdcompare_torch  # noqa: E402

jnp: Any = jax.numpy
WEIGHTS = np.arange(1.0, 17.0).reshape(4, 4)
DATA = numbers(5, 4), numbers(5, 4, seed=1)
VECTORS: dict[str, tuple[Any, Any]] = {
    "eigh": (lambda a: torch.linalg.eigh(a + a.mT)[1], lambda a: jnp.linalg.eigh(a + a.mT)[1]),
    "svd, left": (lambda a: torch.linalg.svd(a)[0], lambda a: jnp.linalg.svd(a)[0]),
    "svd, right": (lambda a: torch.linalg.svd(a)[2], lambda a: jnp.linalg.svd(a)[2]),
    "qr, q": (lambda a: torch.linalg.qr(a)[0], lambda a: jnp.linalg.qr(a)[0]),
    "qr, r": (lambda a: torch.linalg.qr(a)[1], lambda a: jnp.linalg.qr(a)[1]),
}


def of_torch(vectors: Any, by_rows: bool = False) -> Any:
    def loss(p: Any, x: Any, y: Any) -> Any:
        a = p["a"] + x[:, :, None] * x[:, None, :] if by_rows else p["a"]
        found = vectors(a) * torch.from_numpy(WEIGHTS).to(x.dtype)
        return found.sum((-2, -1)) * (1.0 if by_rows else x.sum(1) ** 2) + 0 * y.sum(1)

    return gdcompare_torch.from_function(loss, {"a": torch.from_numpy(numbers(4, 4, seed=3))}, name="model")


def of_jax(vectors: Any, by_rows: bool = False) -> Any:
    def loss(p: Any, x: Any, y: Any) -> Any:
        a = p["a"] + x[:, :, None] * x[:, None, :] if by_rows else p["a"]
        found = vectors(a) * jnp.asarray(WEIGHTS, x.dtype)
        return found.sum((-2, -1)) * (1.0 if by_rows else x.sum(1) ** 2) + 0 * y.sum(1)

    return gdcompare_jax.from_function(loss, {"a": jnp.asarray(numbers(4, 4, seed=3))}, name="model")


@pytest.mark.thorough
@pytest.mark.parametrize("make", [0, 1], ids=["torch", "jax"])
@pytest.mark.parametrize("which", VECTORS)
def test_a_loss_of_vectors_is_judged_with_the_frameworks_signs(which: str, make: int) -> None:
    native = (of_torch, of_jax)[make](VECTORS[which][make])

    gdc.verify(native, DATA).assert_agree()


def test_any_signs_are_read_from_what_torch_gives() -> None:
    """As of a library that turns every vector: what the tape finds is turned with it."""
    draft = Draft()
    a = draft.input("a", numbers(4, 4, seed=3), "float64")
    own = [np.array(each.value) for each in draft.qr(a)]

    q, r = gdcompare_torch.signs.as_theirs(draft, "linalg_qr", draft.qr(a), [-own[0], -own[1]])

    assert np.array_equal(q.value, -own[0])
    assert np.array_equal(r.value, -own[1])


@pytest.mark.thorough
@pytest.mark.parametrize("which", ["eigh", "qr, q"])
@pytest.mark.parametrize("make", [0, 1], ids=["torch", "jax"])
def test_signs_that_are_chosen_for_each_row_have_no_law(which: str, make: int) -> None:
    native = (of_torch, of_jax)[make](VECTORS[which][make], by_rows=True)

    with pytest.raises(ValueError, match=r"no batch law applies .* the signs of vectors are those that were found"):
        gdc.check_batch_laws(native, DATA)
    assert gdc.verify(native, DATA).verdict != "wrong"

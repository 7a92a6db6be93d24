"""What the frameworks' ranks hold, collected, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gdcompare as gdc

torch: Any = pytest.importorskip("torch", reason="some ranks are torch's")
jax: Any = pytest.importorskip("jax", reason="some devices are JAX's")
from gdcompare_jax.distributed import gather_gradients as gather_from_devices  # noqa: E402 - needs JAX
from gdcompare_jax.distributed import local_gradients  # noqa: E402 - needs JAX
from gdcompare_torch import distributed, from_module  # noqa: E402 - needs torch


def with_gradients(module: Any) -> Any:
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    return module


def test_names_are_those_of_the_module_inside_its_wrappers() -> None:
    line = with_gradients(torch.nn.Linear(2, 1))
    tower = torch.nn.Sequential()
    tower.module = line  # a name of the user's own, and no wrapper

    assert set(distributed.gradients(torch.nn.DataParallel(line))) == {"weight", "bias"}
    assert set(distributed.gradients(tower)) == {"module.weight", "module.bias"}


def test_gradients_are_copies_and_parameters_without_one_are_left_out() -> None:
    line = with_gradients(torch.nn.Linear(2, 1))
    line.bias.grad = None

    held = distributed.gradients(line)
    line.weight.grad.zero_()

    assert list(held) == ["weight"]
    np.testing.assert_array_equal(held["weight"], [[1, 1]])


def test_half_precision_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the gradient of 'weight' is bfloat16; float32 and float64 are judged"):
        distributed.gradients(with_gradients(torch.nn.Linear(2, 1).bfloat16()))


def test_outside_of_a_process_group_there_is_one_rank() -> None:
    held = distributed.gather({"w": torch.ones(2), "b": np.zeros(1)})

    assert list(held) == [0]
    assert isinstance(held[0]["w"], np.ndarray)
    assert distributed.gather(3) == {0: 3}


def test_stacked_gradients_have_an_axis_of_one_length_in_front() -> None:
    ones = jax.numpy.ones

    assert list(local_gradients({"w": ones((3, 2)), "b": ones(3)})) == [0, 1, 2]
    with pytest.raises(ValueError, match=r"an axis of that length in front: gradient\[None\]; got b \(\), w \(3, 2\)"):
        local_gradients({"w": ones((3, 2)), "b": ones(())})


def test_an_axis_that_the_mesh_has_not_is_refused() -> None:
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("data",))
    placed = jax.device_put(np.ones(2, np.float32), jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()))

    assert list(gather_from_devices({"w": placed}, "data")) == [0]
    with pytest.raises(ValueError, match="axis 'rows' is none of the mesh's; it has data"):
        gather_from_devices({"w": placed}, "rows")
    with pytest.raises(ValueError, match="these arrays are on no mesh"):
        gather_from_devices({"w": jax.numpy.ones(2)}, "data")
    with pytest.raises(ValueError, match="there is no array among the gradients"):
        gather_from_devices({})


@pytest.mark.thorough
def test_a_loss_that_couples_the_rows_has_no_shards() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(2, 1), torch.nn.BatchNorm1d(1), torch.nn.Flatten(0)).double()
    native = from_module(model, torch.nn.functional.mse_loss)
    data = np.random.default_rng(0).normal(size=(4, 2)), np.ones(4)

    with pytest.raises(ValueError, match="depends on the other rows"):
        gdc.distributed.judge(native, data, shards=[[0, 1], [2, 3]], reduced={})

from __future__ import annotations

import sys
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

import gdcompare as gdc
from gdcompare.case import Case
from gdcompare.gradients import backend_arguments
from gdcompare.timing.contender import NOTHING, Contender, leaves, unfinished, unjudged, wait_for

from .machine import LazyArray


@dataclass
class Pair:
    left: Any
    right: Any


def test_every_array_in_an_answer_is_waited_for() -> None:
    arrays = [LazyArray() for _ in range(5)]
    answer = (arrays[0], {"a": arrays[1], "b": [arrays[2]]}, Pair(arrays[3], {"c": (arrays[4],)}))

    wait_for(answer)

    assert [each.computed for each in arrays] == [True] * 5


def test_an_array_that_is_not_complete_is_seen() -> None:
    waited, forgotten = LazyArray(), LazyArray()
    waited.block_until_ready()

    assert not unfinished({"a": waited, "b": np.ones(2), "c": 1.0})
    assert unfinished({"a": waited, "b": forgotten})


def test_who_has_nothing_to_wait_for_is_not_asked_each_time() -> None:
    assert NOTHING.waits(NOTHING.call()) is None
    assert Contender("a", lambda: None, unjudged).waits((1.0, {"a": np.ones(2)})) is None
    assert Contender("a", lambda: None, unjudged).waits([LazyArray()]) is wait_for


def test_a_way_to_wait_of_ones_own_is_used_whatever_the_answer() -> None:
    ready = lambda answer: None  # noqa: E731 - it is compared by identity

    assert Contender("a", lambda: None, unjudged, ready=ready).waits(1.0) is ready


class OnDevice:
    """An array on a device, as DLPack says it: 2 is CUDA."""

    def __init__(self, device: Any, number: int = 2) -> None:
        self.device, self.number = device, number

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.number, 0


def test_a_device_that_can_wait_is_asked_to() -> None:
    asked: list[str] = []

    wait_for(OnDevice(SimpleNamespace(type="cuda", synchronize=lambda: asked.append("device"))))

    assert asked == ["device"]


def test_a_library_that_waits_for_its_devices_is_asked_to(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    library = ModuleType("library_of_arrays")
    library.only = SimpleNamespace(synchronize=lambda: asked.append("the only one"))  # type: ignore[attr-defined]
    library.some = SimpleNamespace(synchronize=lambda device=None: asked.append(device.index))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "library_of_arrays", library)
    kind = type("Tensor", (OnDevice,), {"__module__": "library_of_arrays.tensors"})

    wait_for({"a": kind(SimpleNamespace(type="only")), "b": kind(SimpleNamespace(type="some", index=1))})

    assert asked == ["the only one", 1]


def test_an_array_that_nobody_can_wait_for_is_refused() -> None:
    with pytest.raises(
        TypeError, match=r"cannot wait for a OnDevice on device 'moon:0': its contender needs a `ready`"
    ):
        wait_for(OnDevice("moon:0"))
    with pytest.raises(TypeError, match="cannot wait for a SimpleNamespace on device '/device:GPU:0'"):
        wait_for(SimpleNamespace(device="/device:GPU:0"))


def test_an_array_in_plain_memory_is_complete() -> None:
    wait_for([OnDevice("cpu", number=1), SimpleNamespace(device="/device:CPU:0")])


def test_what_every_backend_answers_is_complete_after_waiting(backend: gdc.Backend[Any]) -> None:
    case = Case.of("linear-regression", gdc.datasets.noisy_line(), {"theta_0": 1.0, "theta_1": [0.0]}, backend.dtype)
    params, features, targets, _ = backend_arguments(case, backend)

    answer = backend.value_and_grad(case.problem)(params, features, targets)
    wait_for(answer)

    assert not unfinished(answer)
    assert len(list(leaves(answer))) == 3

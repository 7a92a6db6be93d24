"""Three ranks of torch.distributed, each program right or with a fault planted: `python torch_ranks.py OUT`.

What they hold is written to the file OUT: `{scenario: {"local": ..., "reduced": ..., ...}}`, beside the model and data.
"""

from __future__ import annotations

import os
import pickle
import sys
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from gdcompare_torch.distributed import LocalGradients, gather, gather_gradients
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.nn.functional import mse_loss
from torch.nn.parallel import DistributedDataParallel

RANKS = 3
EQUAL = [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
UNEQUAL = [[0, 1, 2, 3, 4, 5], [6, 7, 8], [9, 10, 11]]
MICRO = [[rows[:2], rows[2:]] for rows in EQUAL]


def network(seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.nn.Module:
    """Return a small network whose parameters are drawn from the seed."""
    torch.manual_seed(seed)
    layers = torch.nn.Linear(3, 5), torch.nn.Tanh(), torch.nn.Linear(5, 1), torch.nn.Flatten(0)
    return torch.nn.Sequential(*layers).to(dtype)


def data() -> tuple[Tensor, Tensor]:
    """Return the rows of this step, and after them as many of the step before."""
    random = torch.Generator().manual_seed(1)
    features = torch.randn(24, 3, dtype=torch.float64, generator=random)
    return features, torch.randn(24, dtype=torch.float64, generator=random)


FEATURES, TARGETS = data()


def loss(model: torch.nn.Module, rows: Any) -> Tensor:
    """Return the mean loss over some rows."""
    return mse_loss(model(FEATURES[rows]), TARGETS[rows])


Run = Callable[[int], dict[str, Any]]


def ddp(
    step: Callable[[int, DistributedDataParallel], None],
    hook: Callable[..., Any] | None = None,
    seeds: tuple[int, ...] = (0, 0, 0),
) -> Run:
    """Return a program of one step with DistributedDataParallel."""

    def run(rank: int) -> dict[str, Any]:
        model = DistributedDataParallel(network())
        model.module.load_state_dict(network(seeds[rank]).state_dict())
        seen = LocalGradients(model, hook)
        step(rank, model)
        return {
            "local": gather(seen.gradients),
            "reduced": gather_gradients(model),
            "reductions": list(gather(seen.reductions).values()),
        }

    return run


def sharded(step: Callable[[int, FSDPModule], None]) -> Run:
    """Return a program of one step with fully_shard."""

    def run(rank: int) -> dict[str, Any]:
        model = network()
        fully_shard(model, mesh=init_device_mesh("cpu", (RANKS,)))
        step(rank, model)
        return {"reduced": gather_gradients(model)}

    return run


def plain(shards: list[list[int]], factor: Callable[[int], float] = lambda rank: 1.0) -> Callable[[int, Any], None]:
    """Return a step: forward and backward once."""

    def step(rank: int, model: torch.nn.Module) -> None:
        (factor(rank) * loss(model, shards[rank])).backward()

    return step


def weight(rank: int) -> float:
    """Return n_r W / n."""
    return len(UNEQUAL[rank]) * RANKS / 12


def summing(state: object, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
    """Add up, and forget to divide."""
    work = dist.all_reduce(bucket.buffer(), async_op=True)
    return work.get_future().then(lambda done: done.value()[0])


def accumulated(rank: int, model: DistributedDataParallel) -> None:
    with model.no_sync():
        (loss(model, MICRO[rank][0]) / 2).backward()
    (loss(model, MICRO[rank][1]) / 2).backward()


def around_backward(rank: int, model: DistributedDataParallel) -> None:
    for last, rows in enumerate(MICRO[rank]):
        value = loss(model, rows) / 2
        with nullcontext() if last else model.no_sync():
            value.backward()


def flag_after_forward(rank: int, model: DistributedDataParallel) -> None:
    for last, rows in enumerate(MICRO[rank]):
        value = loss(model, rows) / 2
        model.require_backward_grad_sync = bool(last)
        value.backward()


def never(rank: int, model: DistributedDataParallel) -> None:
    with model.no_sync():
        loss(model, EQUAL[rank]).backward()


def not_zeroed(rank: int, model: DistributedDataParallel) -> None:
    with model.no_sync():
        loss(model, [row + 12 for row in EQUAL[rank]]).backward()
    loss(model, EQUAL[rank]).backward()


def other_group(rank: int) -> dict[str, Any]:
    """Reduce by hand, over a group that rank 2 is not in, and copy the result to it."""
    model = network()
    loss(model, EQUAL[rank]).backward()
    local = gather_gradients(model)
    group = dist.new_group([0, 1])
    for parameter in model.parameters():
        assert parameter.grad is not None
        if rank < 2:
            dist.all_reduce(parameter.grad, group=group)
            parameter.grad /= 2
        dist.broadcast(parameter.grad, 0)
    return {"local": local, "reduced": gather_gradients(model)}


def undivided(rank: int, model: FSDPModule) -> None:
    model.set_gradient_divide_factor(1.0)
    plain(EQUAL)(rank, model)


def of_rank_0(rank: int, model: torch.nn.Module) -> None:
    loss(model, EQUAL[0 if rank == 1 else rank]).backward()


def old_rows(rank: int, model: torch.nn.Module) -> None:
    loss(model, [row + 12 if rank == 1 else row for row in EQUAL[rank]]).backward()


def by_two(rank: int) -> float:
    return 0.0 if rank == 2 else 1.0


SCENARIOS: dict[str, Run] = {
    "right": ddp(plain(EQUAL)),
    "weighted": ddp(plain(UNEQUAL, weight)),
    "accumulated": ddp(accumulated),
    "sharded": sharded(plain(EQUAL)),
    "sharded, weighted": sharded(plain(UNEQUAL, weight)),
    "summed": ddp(plain(EQUAL), summing),
    "averaged twice": ddp(plain(EQUAL, lambda rank: 1 / RANKS)),
    "unweighted": ddp(plain(UNEQUAL)),
    "stale rows": ddp(old_rows),
    "stale parameters": ddp(plain(EQUAL), seeds=(0, 7, 0)),
    "not zeroed": ddp(not_zeroed),
    "a rank at zero": ddp(plain(EQUAL, by_two)),
    "another group": other_group,
    "the same rows": ddp(of_rank_0),
    "around backward": ddp(around_backward),
    "flag after forward": ddp(flag_after_forward),
    "never": ddp(never),
    "sharded, undivided": sharded(undivided),
    "sharded, averaged twice": sharded(plain(EQUAL, lambda rank: 1 / RANKS)),
    "sharded, unweighted": sharded(plain(UNEQUAL)),
    "sharded, the same rows": sharded(of_rank_0),
}


def work(rank: int, out: str, store: str) -> None:
    """Run all scenarios on one rank; rank 0 writes."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", store=dist.FileStore(store, RANKS), rank=rank, world_size=RANKS)
    found = {name: run(rank) for name, run in SCENARIOS.items()}
    if rank == 0:
        Path(out).write_bytes(pickle.dumps(found))
    dist.destroy_process_group()


if __name__ == "__main__":
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    with tempfile.TemporaryDirectory() as folder:
        given = sys.argv[1], f"{folder}/store"
        torch.multiprocessing.start_processes(work, given, RANKS, start_method="fork")

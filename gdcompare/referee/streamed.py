"""The whole, on data in blocks: every implementation's gradient over all rows, judged while they are read once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

from gdcompare.backend import Backend
from gdcompare.case import Case
from gdcompare.data.blocks import Blocks
from gdcompare.problem import Problem
from gdcompare.progress import progress_bar
from gdcompare.referee.allowance import tolerated
from gdcompare.referee.blockwise import Block, Computes, OfBackend, OfFunction, Once
from gdcompare.referee.context import context_of_blocks
from gdcompare.referee.point import Implementation
from gdcompare.referee.streamed_judge import Judge
from gdcompare.referee.verdict import Entry, Report
from gdcompare.registry import refuse_nobody, refuse_unnamed
from gdcompare.scale.sums import Sums, Workers

Engage: TypeAlias = Callable[[Sums], Workers]
"""Makes those who work out the sums over all blocks."""

_MOST_KINKS = 8


def verify_blocks(
    problem: str | Problem,
    blocks: Blocks,
    params: Mapping[str, Any] | None = None,
    *,
    backends: Sequence[str | Backend[Any]] | None = None,
    implementations: Mapping[str, Implementation] | None = None,
    dtype: str = "float64",
    reduction: str = "mean",
    atol: float | None = None,
    rtol: float | None = None,
    proven_only: bool = False,
    workers: Engage | None = None,
) -> Report:
    """Judge each backend's, and each implementation's, loss and gradient over all rows of data in blocks.

    Arguments are those of `verify`. Each block is read once, its sums are judged by themselves, and what they add up to
    in the tree of `scale.tree` by the sum of the blocks' enclosures (`summed`). A backend's sums are those of
    `value_and_grad` and `descend`, by this process, or if there are `workers` by them. An implementation is called
    block by block, on copies: its means count by the weights of the blocks. It is called twice on the first block.

    A verdict of wrong names the block that is most wrong; what is wrong with it is looked for there.

    >>> from gdcompare.data.blocks import InMemory
    >>> data = Blocks(InMemory([[1.0], [3.0], [0.0]], [2.0, 4.0, 1.0]), rows=2)
    >>> report = verify_blocks("linear-regression", data, {"theta_0": 1, "theta_1": [0]}, backends=["numpy"])
    >>> report
    Report(agree, 3 entries, LinearRegression on data)
    """
    case = Case.of(problem, blocks.first, params, dtype, reduction)
    loaded = case.backends(backends)
    refuse_unnamed(implementations, loaded)
    refuse_nobody(case.problem, [*loaded, *(implementations or ())], "gradient")
    if implementations and case.problem.derived:
        case.check_derivation()  # its budget counts, too
    asked = None if atol is None and rtol is None else partial(tolerated, atol=atol or 0.0, rtol=rtol or 0.0)
    once = Blocks(Once(blocks.source), blocks.name, blocks.rows)
    own = [OfFunction(name, each, case.reduction) for name, each in (implementations or {}).items()]
    whose: list[Computes] = [*(OfBackend(each, case, once) for each in loaded), *own]
    judges = [Judge(each, case, once, proven_only, asked) for each in whose]
    kinks: list[str] = []
    weight = 0.0
    with progress_bar(len(once), None, "judging", "rows") as advance:
        for index in range(once.count):
            block = Block(case, once, index)
            weight += block.weight
            for judge in judges:
                judge.take(block)
            if len(kinks) < _MOST_KINKS:
                kinks += [f"{block}: {each}" for each in block.kinks]
            advance(len(block.data))
    if not weight:
        raise ValueError(f"the weights of {blocks.name!r} are all zero")
    entries: list[Entry] = []
    for judge in judges:
        if workers is not None and isinstance(judge.who, OfBackend):
            entries += judge.entries(workers(Sums(case.problem, judge.who.backend, blocks)).total(case.params))
        else:
            entries += judge.entries()
    return Report(tuple(entries), context_of_blocks(case, blocks, loaded, kinks[:_MOST_KINKS], bool(own)))

"""Gradients that several ranks, or devices, computed together: judged against the truth of all rows, and of each shard.

Nothing is driven: a training program runs on whatever engine it does, and hands over what its ranks hold.

    pieces.py      what each rank holds of an array
    shards.py      which rows each rank takes
    mistakes.py    what common mistakes make of the shards' gradients
    known.py       the truth of shards and micro-batches, and of sums of them
    causes.py      which mistake fits
    held.py        what the ranks hold, judged
    judging.py     the door
"""

from gdcompare.distributed.judging import Step, judge
from gdcompare.distributed.pieces import Piece

__all__ = ["Piece", "Step", "judge"]

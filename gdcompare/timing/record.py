"""A race and what was measured alone, as JSON and back; what does not make sense is refused."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from gdcompare.timing.alone import Alone
from gdcompare.timing.blocks import Block
from gdcompare.timing.failure import Failure
from gdcompare.timing.result import Race


def race_as_json(race: Race) -> dict[str, Any]:
    """Return the race in lists, dicts, strings and numbers."""
    plain = {each.name: getattr(race, each.name) for each in fields(race)}
    plain["contenders"] = list(race.contenders)
    plain["blocks"] = [asdict(block) for block in race.blocks]
    plain["failures"] = {name: asdict(failure) for name, failure in race.failures.items()}
    return plain


def race_from_json(value: Any) -> Race:
    """Return the race again. Raises ValueError, TypeError, KeyError or AttributeError where something is missing.

    >>> race_from_json({"contenders": ["a"]})
    Traceback (most recent call last):
    ...
    ValueError: a race without control, facts, reference, level, seed, turn
    """
    needed = ("contenders", "control", "facts", "reference", "level", "seed", "turn")
    if missing := [name for name in needed if name not in value]:
        raise ValueError(f"a race without {', '.join(missing)}")
    known = {each.name for each in fields(Race)}
    if unknown := sorted(set(value) - known):
        raise ValueError(f"a race with unknown {', '.join(unknown)}")
    race = Race(
        **{
            **value,
            "contenders": tuple(value["contenders"]),
            "blocks": tuple(_block(each) for each in value.get("blocks", ())),
            "failures": {name: _failure(each) for name, each in value.get("failures", {}).items()},
        }
    )
    timed = {*race.names, race.twin} if race.control in race.names else set(race.names)
    for block in race.blocks:
        if lacking := sorted(timed - set(block.seconds)):
            raise ValueError(f"a block without times of {', '.join(lacking)}")
    if not 0 < race.level < 1:
        raise ValueError(f"a level of {race.level}")
    return race


def alone_as_json(alone: Alone | Failure) -> dict[str, Any]:
    """Return what was measured alone, or why nothing was."""
    return {"failure": asdict(alone)} if isinstance(alone, Failure) else asdict(alone)


def alone_from_json(value: Mapping[str, Any]) -> Alone | Failure:
    """Return the same again; raises as `race_from_json` does."""
    return _failure(value["failure"]) if "failure" in value else Alone(**value)


def _block(value: Mapping[str, Any]) -> Block:
    block = Block(
        [[str(name) for name in line] for line in value["order"]],
        {str(name): [_positive(each) for each in seconds] for name, seconds in value["seconds"].items()},
        {str(name): float(each) for name, each in value["processor"].items()},
        float(value["nothing"]),
    )
    for line in block.order:
        if sorted(line) != sorted(block.seconds):
            raise ValueError(f"a round of {', '.join(line)} in a block of {', '.join(block.seconds)}")
    if wrong := [name for name, each in block.seconds.items() if len(each) != len(block.order)]:
        raise ValueError(f"{len(block.seconds[wrong[0]])} times of {wrong[0]} in {len(block.order)} rounds")
    return block


def _positive(value: Any) -> float:
    if not (isinstance(value, int | float) and 0 < value < math.inf):
        raise ValueError(f"a time of {value!r} seconds")
    return float(value)


def _failure(value: Mapping[str, Any]) -> Failure:
    return Failure(str(value["kind"]), str(value["words"]))

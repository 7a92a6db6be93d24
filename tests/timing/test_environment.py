from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gdcompare.timing.environment import environment, only_run, unfit

FIT: dict[str, Any] = {
    "machine": {"processors": 4, "virtual": False},
    "threads": {"processors": 1, "quota": None},
    "state": {"load": 0.2, "governor": "performance", "garbage collector": True},
}


def test_an_environment_says_what_times_depend_on_and_suits_json() -> None:
    found = environment({"mine": {"device": "cpu"}})

    assert json.loads(json.dumps(found)) == found
    assert found["versions"]["numpy"] == np.__version__
    assert found["versions"]["python"].endswith(sys.version.split()[0])
    assert found["frameworks"] == {"mine": {"device": "cpu"}}
    assert found["machine"]["processors"] >= 1


def test_what_two_runs_must_share_does_not_change_from_one_reading_to_the_next() -> None:
    first, second = environment(), environment()

    for part in ("machine", "versions", "frameworks", "threads"):
        assert first[part] == second[part]


def test_a_fit_machine_is_not_complained_of() -> None:
    assert unfit(FIT) == []


@pytest.mark.parametrize(
    ("part", "change", "words"),
    [
        ("state", {"load": 3.0}, "the machine is busy: 3.0 processes want its 4 processors"),
        ("state", {"governor": "powersave"}, "the frequency governor is powersave, not performance"),
        ("state", {"garbage collector": False}, "the garbage collector is off"),
        ("machine", {"virtual": True}, "the machine is virtual: what its neighbours do is not seen from here"),
        ("threads", {"quota": 0.5}, "a quota of 0.5 processors: who uses more is halted for a while"),
    ],
)
def test_an_unfit_machine_is_told(part: str, change: dict[str, Any], words: str) -> None:
    assert unfit(FIT | {part: FIT[part] | change}) == [words]


@pytest.mark.skipif(sys.platform == "win32", reason="the lock is Unix's")
def test_a_second_run_on_the_machine_is_told_and_the_place_is_given_back(tmp_path: Path) -> None:
    place = tmp_path / "lock"

    with only_run(place) as first, only_run(place) as second:
        assert first is None
        assert second == "another timing run is under way on this machine: the two disturb each other"
    with only_run(place) as third:
        assert third is None


def test_where_no_lock_can_be_made_nothing_is_said(tmp_path: Path) -> None:
    with only_run(tmp_path / "no folder" / "lock") as warning:
        assert warning is None

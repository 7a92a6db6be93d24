from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gdcompare.timing.alone import Alone
from gdcompare.timing.comparison import Comparison, compared
from gdcompare.timing.failure import Failure
from gdcompare.timing.race import race
from gdcompare.timing.result import Race
from gdcompare.timing.runs import Run, RunError, load, merged

from .machine import Machine, noise

HERE = {
    "machine": {"processor": "an abacus", "processors": 2},
    "versions": {"numpy": "2.4"},
    "frameworks": {},
    "threads": {"processors": 1},
    "state": {"load": 0.1},
}


def raced(seed: int = 0, n: int = 40, size: float = 0.05, **seconds: float) -> Race:
    machine = Machine(noise(seed, size))
    contenders = [machine.contender(name, each, n=n) for name, each in seconds.items()]
    return race(contenders, clock=machine.clock, seed=seed, seconds=0, precision=1e-9)


def run(seed: int = 0, n: int = 40, size: float = 0.05, **seconds: float) -> Run:
    return Run(HERE).with_race("gradient", raced(seed, n, size, **seconds))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "run.json"
    whole = run(a=0.01, b=0.02).with_alone("gradient", "a", Alone(1.0, 0.5, 0.1, 10, 20, 40, {"digits": 15.0}))
    whole.with_alone("gradient", "b", Failure("out of time", "more than 5 s")).save(path)
    return path


def test_what_is_loaded_is_what_was_saved(saved: Path) -> None:
    found = load(saved)

    assert found.race("gradient") == raced(a=0.01, b=0.02)
    assert found.sections["gradient"].alone["a"] == Alone(1.0, 0.5, 0.1, 10, 20, 40, {"digits": 15.0})
    assert str(found.sections["gradient"].alone["b"]) == "out of time: more than 5 s"
    assert found.environment == HERE
    assert found.race("gradient", process=1) is None
    assert found.race("another") is None


def test_at_the_prompt_races_and_runs_are_a_line() -> None:
    one_sided, even = raced(a=0.01, b=0.02), raced(a=0.01, b=0.01)
    failed = replace(even, failures={"b": Failure("wrong", "")})

    assert repr(one_sided) == f"Race(2 contenders, {len(one_sided.blocks)} blocks, 'a' is fastest)"
    assert repr(even) == f"Race(2 contenders, {len(even.blocks)} blocks, no winner shown)"
    assert repr(replace(failed, blocks=())) == "Race(1 contender, 1 without a time, 0 blocks, no winner shown)"
    assert repr(Run(HERE, begun="today").with_race("gradient", even)) == "Run(1 table, 1 race, begun today)"


def test_pytest_benchmark_reads_it(
    saved: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cli = pytest.importorskip("pytest_benchmark.cli", reason="pytest-benchmark is not installed")
    columns = "min,max,mean,stddev,median,iqr,outliers,ops,rounds,iterations"
    monkeypatch.setattr(sys, "argv", ["pytest-benchmark", "compare", str(saved), f"--columns={columns}"])

    cli.main()

    shown = capsys.readouterr().out
    assert "benchmark 'gradient': 2 tests" in shown
    assert [line.split()[0] for line in shown.splitlines() if line[:2] in ("a ", "b ")] == ["a", "b"]


def spoil(change: Callable[[dict[str, Any]], Any]) -> Callable[[str], str]:
    def spoiled(text: str) -> str:
        whole = json.loads(text)
        change(whole["gdcompare timing"])
        return json.dumps(whole)

    return spoiled


def first_race(ours: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = ours["sections"]["gradient"]["races"][0]
    return found


DAMAGED: dict[str, tuple[Callable[[str], str], str]] = {
    "cut short": (lambda text: text[: len(text) // 2], "is no JSON, or a part of it is lost: "),
    "empty": (lambda text: "", "is no JSON, or a part of it is lost: "),
    "another's": (lambda text: '{"benchmarks": []}', "is not a run saved by gdcompare"),
    "a list": (lambda text: "[1]", "is not a run saved by gdcompare"),
    "from the future": (spoil(lambda ours: ours.update(format=2)), "has format 2; this version reads 1"),
    "without sections": (spoil(lambda ours: ours.pop("sections")), "is damaged: KeyError: 'sections'"),
    "without a level": (spoil(lambda ours: first_race(ours).pop("level")), "is damaged: .* a race without level"),
    "with a strange part": (spoil(lambda ours: first_race(ours).update(x=1)), "is damaged: .* unknown x"),
    "with no time": (
        spoil(lambda ours: first_race(ours)["blocks"][0]["seconds"].pop("b")),
        "is damaged: .* a round of .* in a block of",
    ),
    "with a negative time": (
        spoil(lambda ours: first_race(ours)["blocks"][3]["seconds"]["a"].__setitem__(0, -1.0)),
        r"is damaged: ValueError: a time of -1.0 seconds",
    ),
    "with a time that is not finite": (
        spoil(lambda ours: first_race(ours)["blocks"][3]["seconds"]["a"].__setitem__(0, float("nan"))),
        r"is damaged: ValueError: a time of nan seconds",
    ),
    "with a word for a time": (
        spoil(lambda ours: first_race(ours)["blocks"][3]["seconds"]["a"].__setitem__(0, "1")),
        r"is damaged: ValueError: a time of '1' seconds",
    ),
    "with a time too few": (
        spoil(lambda ours: first_race(ours)["blocks"][3]["seconds"]["a"].pop()),
        r"is damaged: ValueError: 2 times of a in 3 rounds",
    ),
    "with a level that is none": (spoil(lambda ours: first_race(ours).update(level=7)), "is damaged: .* a level of 7"),
    "with blocks that are none": (spoil(lambda ours: first_race(ours).update(blocks=[1])), "is damaged: TypeError"),
}


@pytest.mark.parametrize(("damage", "words"), DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_or_foreign_file_is_one_clear_line(saved: Path, damage: Callable[[str], str], words: str) -> None:
    saved.write_text(damage(saved.read_text()))

    with pytest.raises(RunError, match=words) as caught:
        load(saved)
    assert str(saved) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")

    for name in ("missing", "binary", "."):
        with pytest.raises(RunError, match="cannot read"):
            load(tmp_path / name)


# Several processes


def test_runs_of_the_same_work_are_joined_process_by_process() -> None:
    both = merged([run(seed, a=0.01, b=0.02) for seed in range(3)])

    replicates = both.sections["gradient"].replicates
    assert [each.seed for each in replicates.races] == [0, 1, 2]
    assert replicates.ratio("b", "a").median == pytest.approx(2, rel=0.05)
    assert replicates.winner() == "a"


def test_runs_of_other_work_or_other_machines_are_not_joined() -> None:
    with pytest.raises(ValueError, match="cannot join races of other work"):
        merged([run(a=0.01), run(a=0.01, n=41)])
    with pytest.raises(ValueError, match=r"cannot join runs of other conditions: versions: numpy 2.4 and 2.5"):
        merged([run(a=0.01), replace(run(a=0.01), environment=HERE | {"versions": {"numpy": "2.5"}})])


def test_the_spread_between_processes_is_told_apart_from_that_within() -> None:
    """Within a process nothing varies; but the second process is a tenth slower for b, by its memory's layout, say."""
    calm = [raced(seed, size=0.001, a=0.01, b=b) for seed, b in enumerate((0.0100, 0.0110, 0.0101))]

    found = merged([Run(HERE).with_race("gradient", each) for each in calm]).sections["gradient"].replicates

    assert found.within("b", "a") < 0.01
    assert found.between("b", "a") == pytest.approx(0.049, abs=0.005)
    assert found.ratio("b", "a").low < 1.005
    assert found.ratio("b", "a").high > 1.095
    assert any("processes differ by 4." in each or "processes differ by 5." in each for each in found.warnings())


def test_a_winner_must_win_in_every_process() -> None:
    races = [raced(seed, size=0.001, a=0.01, b=b) for seed, b in enumerate((0.011, 0.009, 0.012))]

    assert all(each.ranking().winner for each in races)
    assert merged([Run(HERE).with_race("t", each) for each in races]).sections["t"].replicates.winner() is None


# Two runs compared


def verdicts(comparison: Comparison) -> dict[str, str]:
    return {change.name: change.verdict for change in comparison.changes}


def test_a_slow_down_needs_a_size_and_an_interval_that_excludes_less() -> None:
    old = run(size=0.01, same=0.01, little=0.01, much=0.01, quick=0.01)
    new = run(seed=1, size=0.01, same=0.01, little=0.0103, much=0.012, quick=0.008)

    found = compared(old, new, at_least=0.05)

    assert verdicts(found) == {"same": "unchanged", "little": "unchanged", "much": "slower", "quick": "faster"}
    assert found.slower
    assert not compared(old, new, at_least=0.25).slower
    assert verdicts(compared(old, new, at_least=0.01))["little"] == "slower"


def test_what_noise_hides_is_unresolved_and_says_what_would_have_been_noticed() -> None:
    old, new = (run(seed, size=2.0, a=0.01) for seed in (0, 1))

    (change,) = compared(old, new).changes

    assert change.verdict == "unresolved"
    assert "% would have been noticed" in change.words


def test_a_machine_that_is_slower_for_all_is_no_slow_down_against_a_contender() -> None:
    old = run(size=0.01, ours=0.01, theirs=0.01)
    new = run(seed=1, size=0.01, ours=0.012, theirs=0.012)

    assert verdicts(compared(old, new)) == {"ours": "slower", "theirs": "slower"}
    assert verdicts(compared(old, new, against="theirs")) == {"ours": "unchanged"}


@pytest.mark.parametrize(
    ("part", "other", "words"),
    [
        ("machine", {"processor": "a slide rule", "processors": 2}, "machine: processor an abacus and a slide rule"),
        ("versions", {"numpy": "2.5"}, "versions: numpy 2.4 and 2.5"),
        ("threads", {"processors": 2}, "threads: processors 1 and 2"),
        ("frameworks", {"a": {"device": "gpu"}}, "frameworks: a None and {'device': 'gpu'}"),
    ],
)
def test_runs_of_other_conditions_are_not_compared(part: str, other: dict[str, Any], words: str) -> None:
    new = replace(run(seed=1, a=0.02), environment=HERE | {part: other})

    found = compared(run(a=0.01), new)

    assert verdicts(found) == {"a": "not comparable"}
    assert not found.slower
    assert found.changes[0].words == words
    assert words in found.notes


def test_what_differs_in_the_state_of_the_machine_is_compared() -> None:
    new = replace(run(seed=1, size=0.01, a=0.01), environment=HERE | {"state": {"load": 9.0}})

    assert verdicts(compared(run(size=0.01, a=0.01), new)) == {"a": "unchanged"}


def test_other_sizes_are_marked_and_not_compared() -> None:
    (change,) = compared(run(a=0.01), run(a=0.02, n=80)).changes

    assert (change.verdict, change.words) == ("not comparable", "other work: n 40 and 80")


def test_who_has_no_time_in_one_run_is_marked() -> None:
    machine = Machine()
    contenders = [
        machine.contender("a", 0.01, n=40),
        machine.contender("b", 0.01, n=40, answer=lambda: "left"),
    ]
    new = Run(HERE).with_race("gradient", race(contenders, clock=machine.clock))

    found = compared(run(a=0.01, b=0.01), new)

    assert found.changes[1].verdict == "not comparable"
    assert found.changes[1].words == "b has no time in the new run: wrong: left is not right"


def test_sections_of_one_run_only_and_single_processes_are_noted() -> None:
    old = run(a=0.01)
    new = run(a=0.01).with_race("descent", raced(a=0.01))

    notes = compared(old, new).notes

    assert "descent: only in the new run" in notes
    assert any(note.startswith("the old run has one process") for note in notes)


def test_a_machine_that_changed_is_noted() -> None:
    old = run(size=0.0, a=0.01)
    slower = raced(size=0.0, a=0.01)
    slower = replace(slower, blocks=tuple(replace(block, nothing=2e-8) for block in slower.blocks))
    faster = replace(slower, blocks=tuple(replace(block, nothing=1e-8) for block in slower.blocks))

    notes = compared(old.with_race("gradient", faster), old.with_race("gradient", slower)).notes

    assert (
        "gradient: the machine itself changed: a call that does nothing took 1e-08 s then and takes 2e-08 s now"
        in notes
    )


def test_equal_runs_are_called_slower_hardly_ever() -> None:
    runs = [run(seed, size=0.2, a=0.01) for seed in range(120)]

    slower = sum(compared(old, new, at_least=0).slower for old, new in zip(runs[::2], runs[1::2], strict=True))

    assert slower <= 3


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="at_least must not be negative, not -1"):
        compared(run(a=0.01), run(a=0.01), at_least=-1)
    with pytest.raises(ValueError, match="level must be between 0 and 1, not 2"):
        compared(run(a=0.01), run(a=0.01), level=2)

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from typing import Any

import numpy as np
import pytest

import gdcompare as gdc
from gdcompare.timing import race as module
from gdcompare.timing.contender import Contender, Judgement, unjudged
from gdcompare.timing.race import race
from gdcompare.timing.record import race_as_json, race_from_json
from gdcompare.timing.result import Race

from .machine import LazyArray, Machine, noise, right


@pytest.mark.thorough
def test_the_true_ratios_are_found() -> None:
    machine = Machine(noise(0, 0.3))
    contenders = [machine.contender(name, seconds) for name, seconds in (("a", 1e-4), ("b", 1.1e-4), ("c", 5e-4))]

    found = race(contenders, clock=machine.clock, reference="a", precision=0.01, seconds=60)

    assert found.ended == "precise"
    for name, truth in (("b", 1.1), ("c", 5.0)):
        ratio = found.ratio(name)
        assert ratio.low <= truth * 1.01
        assert ratio.high >= truth * 0.99
        assert ratio.half_width <= 0.01
    assert found.ranking().winner == "a"


def test_contenders_that_are_equal_are_not_told_apart() -> None:
    machine = Machine(noise(1, 0.3))

    found = race([machine.contender(name, 1e-4) for name in "ab"], clock=machine.clock, seconds=60)

    assert found.ranking().winner is None
    assert not found.ratio("a", "b").resolved
    noise_of_control = found.noise()
    assert noise_of_control is not None
    assert abs(noise_of_control.median - 1) < 0.02


def test_a_drift_falls_on_all_alike_and_would_not_in_a_fixed_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine loses a tenth of its speed in each block of six rounds of three turns of ten calls."""

    def ratio() -> Any:
        calls = count()
        machine = Machine(lambda now: 1 + 0.1 * next(calls) / (6 * 3 * 10))
        contenders = [machine.contender(name, 1e-4) for name in "ab"]
        return race(contenders, clock=machine.clock, seconds=0, precision=1e-9).ratio("a", "b")

    fair = ratio()
    monkeypatch.setattr(module, "order_of", lambda names, *_: [sorted(names)] * 6)
    unfair = ratio()

    assert not fair.resolved
    assert abs(fair.median - 1) < 0.01
    assert unfair.resolved


# What the clock must wait for


def asynchronous(machine: Machine, name: str, ready: Callable[[Any], object] | None = None) -> Contender:
    def call() -> LazyArray:
        return LazyArray(lambda: machine.spend(0.01))

    contender = Contender(name, call, unjudged)
    return contender if ready is None else replace(contender, ready=ready)


def test_the_clock_stops_when_the_answer_is_complete() -> None:
    machine = Machine()

    found = race([asynchronous(machine, "a")], clock=machine.clock)

    assert found.time("a").median == pytest.approx(0.01)


def test_a_contender_that_is_not_waited_for_has_no_time() -> None:
    machine = Machine()

    found = race(
        [asynchronous(machine, "hasty", ready=lambda _: None), machine.contender("a", 0.1)], clock=machine.clock
    )

    assert str(found.failures["hasty"]) == "unfinished: the clock stopped before the answer was complete"
    assert found.names == ("a",)


def test_a_timer_that_does_not_wait_gives_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Contender, "waits", lambda self, answer: None)
    machine = Machine()

    found = race([asynchronous(machine, "a")], clock=machine.clock)

    assert found.failures["a"].kind == "unfinished"
    assert found.ended == "nobody left"


# Who has no time


def test_a_wrong_answer_has_no_time_and_the_others_go_on() -> None:
    machine = Machine()
    wrong = machine.contender("wrong", 1e-5, answer=lambda: "left")

    found = race([wrong, machine.contender("a", 1e-4), machine.contender("b", 2e-4)], clock=machine.clock)

    assert str(found.failures["wrong"]) == "wrong: left is not right"
    with pytest.raises(KeyError, match="'wrong' has no time: wrong: left is not right"):
        found.times("wrong")
    assert found.ranking().leader == "a"
    assert found.control == "a"


@pytest.mark.parametrize("slip", ["sign", "factor", "nan"])
def test_a_wrong_gradient_has_no_time(slip: str) -> None:
    data, params = gdc.datasets.noisy_line(), {"theta_0": np.array(1.0), "theta_1": np.zeros(1)}

    def gradient() -> tuple[float, dict[str, Any]]:
        return gdc.value_and_grad("linear-regression", data, params, "numpy")

    def slipped() -> tuple[float, dict[str, Any]]:
        loss, slopes = gradient()
        factor = {"sign": -1, "factor": 1 + 1e-9, "nan": np.nan}[slip]
        return loss, slopes | {"theta_0": slopes["theta_0"] * factor}

    def judge(answer: Any) -> Judgement:
        report = gdc.verify("linear-regression", data, params, backends=[], implementations={"it": lambda *_: answer})
        return Judgement(bool(report), report.verdict)

    found = race([Contender("right", gradient, judge), Contender("slipped", slipped, judge)], seconds=0, turn=1e-5)

    assert found.names == ("right",)
    assert found.failures["slipped"].kind == "wrong"


def test_an_answer_that_goes_wrong_while_it_is_timed_has_no_time() -> None:
    machine = Machine()
    calls = 0

    def answer() -> str:
        nonlocal calls
        calls += 1
        return "right" if calls <= 10 else "stale"

    found = race([machine.contender("a", 1e-2), machine.contender("b", 1e-2, answer=answer)], clock=machine.clock)

    assert len(found.blocks) >= 12
    assert str(found.failures["b"]) == "wrong: stale is not right"


def test_an_assertion_of_the_judge_says_wrong_and_a_bug_of_the_judge_is_no_verdict() -> None:
    machine = Machine()

    def refuses(answer: Any) -> Judgement:
        raise AssertionError("off by 7 units")

    def broken(answer: Any) -> Judgement:
        raise KeyError("theta")

    found = race([machine.contender("a", 1, judge=refuses)], clock=machine.clock)
    assert str(found.failures["a"]) == "wrong: off by 7 units"
    with pytest.raises(KeyError, match="theta"):
        race([machine.contender("a", 1, judge=broken)], clock=machine.clock)


@pytest.mark.parametrize("after", [0, 2, 5, 60])
@pytest.mark.parametrize(
    ("error", "cell"),
    [
        (ZeroDivisionError("division by zero"), "error: ZeroDivisionError: division by zero"),
        (MemoryError(), "out of memory: MemoryError"),
        (
            RuntimeError("RESOURCE_EXHAUSTED: 7 bytes\nmore"),
            "out of memory: RuntimeError: RESOURCE_EXHAUSTED: 7 bytes | more",
        ),
    ],
    ids=["error", "memory", "memory of a framework"],
)
def test_a_contender_that_fails_is_a_cell_and_the_others_go_on(error: Exception, cell: str, after: int) -> None:
    machine = Machine()
    calls = 0

    def answer() -> str:
        nonlocal calls
        calls += 1
        if calls > after:
            raise error
        return "right"

    found = race(
        [machine.contender("fails", 1e-2, answer=answer), machine.contender("a", 1e-2), machine.contender("b", 2e-2)],
        clock=machine.clock,
    )

    assert str(found.failures["fails"]) == cell
    assert found.ended == "precise"
    assert found.ratio("b", "a").median == pytest.approx(2)


def test_a_call_that_takes_too_long_is_a_cell() -> None:
    machine = Machine()

    found = race([machine.contender("slow", 12), machine.contender("a", 1e-2)], clock=machine.clock, longest=5)

    assert str(found.failures["slow"]) == "out of time: one call takes 12 s, and may take 5 s"
    assert found.names == ("a",)


def test_where_nobody_is_right_the_race_is_over() -> None:
    machine = Machine()

    found = race([machine.contender("a", 1, answer=lambda: "left")], clock=machine.clock)

    assert (found.ended, found.blocks, found.warnings()) == ("nobody left", (), [])
    with pytest.raises(ValueError, match="nobody has a time"):
        found.ranking()


# When it ends


def test_it_ends_when_the_time_is_spent_but_not_before_twelve_blocks() -> None:
    machine = Machine(noise(2, 1.0))
    contenders = [machine.contender(name, 0.1) for name in "ab"]

    short = race(contenders, clock=machine.clock, seconds=0, precision=1e-9)
    long = race(contenders, clock=machine.clock, seconds=40, precision=1e-9)

    assert (len(short.blocks), short.ended) == (12, "time")
    assert len(long.blocks) > 20
    assert long.ended == "time"
    assert 40 <= long.seconds <= 45


def test_many_contenders_need_more_blocks_for_their_intervals() -> None:
    machine = Machine()
    contenders = [machine.contender(str(each), 0.1) for each in range(40)]

    found = race(contenders, clock=machine.clock, seconds=0)

    assert len(found.blocks) == found.least_blocks == 15
    assert found.ratio("3", "2").half_width == pytest.approx(0)


def test_progress_tells_what_there_is_and_what_is_left() -> None:
    machine = Machine(noise(3, 0.2))
    told: list[tuple[int, float]] = []

    found = race(
        [machine.contender(name, 0.1) for name in "ab"],
        clock=machine.clock,
        seconds=30,
        precision=1e-9,
        progress=lambda so_far, left: told.append((len(so_far.blocks), left)),
    )

    assert [done for done, _ in told] == list(range(1, len(found.blocks) + 1))
    assert told[0][1] > told[5][1] > 0
    assert told[-1][1] == 0


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"precision": 0}, "precision must be positive, not 0"),
        ({"seconds": -1}, "seconds must not be negative, not -1"),
        ({"seconds": float("nan")}, "seconds must not be negative, not nan"),
        ({"level": 1}, "level must be between 0 and 1, not 1"),
        ({"turn": -1}, "turn must be positive, not -1"),
        ({"longest": 0}, "longest must be positive, not 0"),
        ({"reference": "aa"}, "there is no contender 'aa' to compare with; did you mean 'a'?"),
    ],
)
def test_bad_settings_are_refused_before_anything_runs(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=f"^{words.replace('?', '[?]')}$"):
        race([Contender("a", lambda: pytest.fail("it ran"), unjudged)], **settings)


def test_names_must_be_different() -> None:
    machine = Machine()

    for names in (["a", "a"], ["a", "a, again"]):
        with pytest.raises(ValueError, match="two contenders are called 'a': give each a name of its own"):
            race([machine.contender(name, 1) for name in names])
    with pytest.raises(ValueError, match="a race needs a contender"):
        race([])


# Interrupted, and resumed


class Interrupting:
    """Ctrl-C after so many blocks, while their progress is shown."""

    def __init__(self, after: int) -> None:
        self.after = after

    def __call__(self, so_far: Race, left: float) -> None:
        if len(so_far.blocks) == self.after:
            raise KeyboardInterrupt


def without_seconds(found: Race) -> dict[str, Any]:
    return race_as_json(replace(found, seconds=0.0))


def test_a_race_that_was_interrupted_goes_on_as_if_it_had_not_been() -> None:
    def contenders(machine: Machine) -> list[Contender]:
        return [machine.contender(name, seconds, n=7) for name, seconds in (("a", 1e-4), ("b", 1.5e-4), ("c", 2e-4))]

    def whole() -> Race:
        machine = Machine()
        return race(contenders(machine), clock=machine.clock, seconds=0, seed=5)

    machine = Machine()
    part = race(contenders(machine), clock=machine.clock, seconds=0, seed=5, progress=Interrupting(after=4))
    kept = race_from_json(race_as_json(part))
    rest = race(contenders(machine), clock=machine.clock, seconds=0, seed=5, before=kept)

    assert (part.ended, len(part.blocks)) == ("interrupted", 4)
    assert rest.blocks[:4] == part.blocks
    assert [block.order for block in rest.blocks] == [block.order for block in whole().blocks]
    assert rest.calls == whole().calls
    assert {name: rest.time(name).median for name in "abc"} == pytest.approx(
        {name: whole().time(name).median for name in "abc"}
    )
    assert rest.ended == whole().ended
    assert rest.seconds > part.seconds


def test_facts_are_those_that_a_file_gives_back() -> None:
    machine = Machine()

    found = race([machine.contender("a", 0.1, shape=(3, 4))], clock=machine.clock)

    assert found.facts == race_from_json(json.loads(json.dumps(race_as_json(found)))).facts == {"a": {"shape": [3, 4]}}
    with pytest.raises(ValueError, match="the facts of 'a' do not suit JSON: Object of type set"):
        race([machine.contender("a", 0.1, names={"x"})], clock=machine.clock)


def test_a_race_of_other_work_does_not_go_on() -> None:
    machine = Machine()
    before = race([machine.contender("a", 0.1, n=40)], clock=machine.clock)

    for contenders, settings, words in (
        ([machine.contender("a", 0.1, n=41)], {}, "its facts were"),
        ([machine.contender("b", 0.1, n=40)], {}, "its contenders were"),
        ([machine.contender("a", 0.1, n=40)], {"seed": 1}, "its seed were 0, and are now 1"),
        ([machine.contender("a", 0.1, n=40)], {"level": 0.9}, "its level were"),
    ):
        with pytest.raises(ValueError, match=f"cannot go on with a race of other work: {words}"):
            race(contenders, before=before, clock=machine.clock, **settings)


def test_who_failed_before_stays_out() -> None:
    machine = Machine()
    contenders = [machine.contender("a", 0.1), machine.contender("wrong", 0.1, answer=lambda: "left")]
    before = race(contenders, clock=machine.clock, seconds=0, progress=Interrupting(after=2))
    mended = [machine.contender("a", 0.1), machine.contender("wrong", 0.1)]

    found = race(mended, clock=machine.clock, seconds=0, before=before)

    assert found.failures == before.failures
    assert len(found.blocks) == 12


def test_ctrl_c_before_the_first_block_is_passed_on() -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        race([Contender("a", interrupted, unjudged)])


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="signals are sent to a thread on Unix alone")
def test_ctrl_c_that_a_contender_swallows_is_noticed_and_its_block_dropped() -> None:
    """A descent keeps what it has when it is interrupted, and returns early: its time would be too short."""
    machine = Machine()
    calls = 0

    def swallows() -> str:
        nonlocal calls
        calls += 1
        if calls == 60:
            try:
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
                time.sleep(1)
            except KeyboardInterrupt:
                return "right"
        return "right"

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        found = race(
            [machine.contender("a", 0.1, answer=swallows), machine.contender("b", 0.1)],
            clock=machine.clock,
            seconds=1e9,
            precision=1e-12,
        )
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)

    assert found.ended == "interrupted"
    assert 1 <= len(found.blocks) < 30


def test_a_turn_that_ctrl_c_cuts_short_is_not_judged_but_those_of_the_race_that_goes_on_are() -> None:
    machine = Machine()
    calls, right = 0, True

    def answer() -> str:
        nonlocal calls
        calls += 1
        if calls == 20:
            raise KeyboardInterrupt
        return "right" if right else "wrong"

    def judge(given: str) -> Judgement:
        return Judgement(given.startswith("right"), "not right")  # of None it would raise

    # the second: the first one's calls may be those of its twin
    contenders = [machine.contender("b", 0.1), replace(machine.contender("a", 0.1, answer=answer), judge=judge)]
    part = race(contenders, clock=machine.clock, seconds=1e9, precision=1e-12)
    right = False

    assert (part.ended, dict(part.failures)) == ("interrupted", {})
    assert part.blocks
    assert race(contenders, clock=machine.clock, seconds=0, before=part).failures["a"].kind == "wrong"


# What is said of it


def test_a_doubled_thread_count_is_told() -> None:
    machine = Machine()
    contenders = [machine.contender("one", 1e-3), machine.contender("two", 1e-3, threads=2)]

    found = race(contenders, clock=machine.clock)

    assert found.threads("two") == pytest.approx(2)
    assert found.warnings() == ["not on equal threads: processors kept busy are one 1.00, two 2.00"]


def test_equal_threads_are_not_told() -> None:
    machine = Machine()

    assert race([machine.contender(name, 1e-3, threads=1.9) for name in "ab"], clock=machine.clock).warnings() == []


def test_a_busy_machine_and_an_uneven_contender_are_told() -> None:
    busy = Machine(noise(6, 1.0))
    found = race([busy.contender(name, 0.01) for name in "ab"], clock=busy.clock)
    assert any(each.startswith("the machine is busy") for each in found.warnings())

    calm = Machine()
    generator = np.random.default_rng(7)
    uneven = Contender("b", lambda: calm.spend(0.01 * (1 + float(generator.exponential()))), unjudged)
    found = race([calm.contender("a", 0.01), uneven], clock=calm.clock)
    assert any(each.startswith("b is uneven by itself") for each in found.warnings())


def test_answers_that_nobody_judged_are_told() -> None:
    machine = Machine()

    found = race([machine.contender("a", 1), machine.contender("b", 1, judge=unjudged)], clock=machine.clock)

    assert found.warnings() == ["nobody judged the answers of b"]


def test_a_control_that_differs_from_itself_is_told() -> None:
    machine = Machine()
    found = race([machine.contender("a", 1), machine.contender("b", 1)], clock=machine.clock)
    tampered = replace(
        found,
        blocks=tuple(
            replace(block, seconds=block.seconds | {found.twin: [1.2] * len(block.order)}) for block in found.blocks
        ),
    )

    assert found.warnings() == []
    assert tampered.warnings()[0].startswith("a differs from itself by a factor of 1.2 (1.2 to 1.2)")


def test_a_reference_without_a_time_is_told_and_replaced() -> None:
    machine = Machine()
    contenders = [
        machine.contender("ref", 1, answer=lambda: "left"),
        machine.contender("a", 1),
        machine.contender("b", 2),
    ]

    found = race(contenders, clock=machine.clock, reference="ref")

    assert found.base == "a"
    assert found.comparisons == 1
    assert "ref has no time, so all are compared with the fastest" in found.warnings()


def test_what_judges_measured_is_kept() -> None:
    machine = Machine()

    found = race([machine.contender("a", 1, judge=right)], clock=machine.clock)

    assert found.figures == {"a": {"digits": 15.0}}

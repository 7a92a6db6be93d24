"""Update rules before the referee: whether an optimizer takes the steps that its formula says.

A rule, `theta <- theta - rate_t direction_t`, is a formula like any other (see `descent.rules`). It runs over the same
gradients in Arb balls, which gives the true parameters after every step, and in numbers that carry a bound of their
rounding errors, which gives what a correct program may be off by. Whoever is judged is given those gradients, one after
another, and only its parameters are looked at: memory, order of operations and language are its own affair.

A step is a few operations on each element, and programs arrange them differently (`theta (1 - rate decay) - rate a` for
`theta - rate (a + decay theta)`). So each step may also round the parameter by 4 u, and what it moves by 8 u, more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, final

import numpy as np
from flint import ctx
from numpy.typing import NDArray

from gdcompare.arithmetic.balls import BallNumbers
from gdcompare.arithmetic.numbers import Numbers
from gdcompare.arithmetic.rounded import Rounded, RoundedNumbers
from gdcompare.arithmetic.tape import Tape, Variable
from gdcompare.backend import Backend, Precision, checked_dtype
from gdcompare.descent.directions import Adam, Clipped, Decayed, Direction, Momentum, Plain, RMSProp
from gdcompare.descent.rules import Rule
from gdcompare.referee.due import ExitError, NotDueError, as_array, as_due, no_exit
from gdcompare.referee.enclosure import Enclosed
from gdcompare.referee.verdict import Entry, Floats, Report, judge_all
from gdcompare.registry import as_backend, backend_names

Arrays: TypeAlias = dict[str, NDArray[Any]]
Optimizer: TypeAlias = Callable[[Arrays], Callable[[Arrays], Mapping[str, Any]]]
"""`start(params) -> step`, where `step(gradient)` returns the parameters after one more step: `{name: array}`."""

SIZES = (1e-4, 1.0, 0.01, 1e3, 0.0, 1e-8, 10.0, 0.1)
"""The sizes of the gradients drawn, over and over: a small first one shows an epsilon, large ones a clip."""

PARAMETER_ROUNDINGS, STEP_ROUNDINGS = 4, 8


def verify_rule(
    rule: Rule,
    *,
    params: Mapping[str, Any] | None = None,
    gradients: Sequence[Mapping[str, Any]] | None = None,
    steps: int = 16,
    dtype: str = "float64",
    backends: Sequence[str | Backend[Any]] | None = None,
    implementations: Mapping[str, Optimizer] | None = None,
) -> Report:
    """Judge optimizers by the formula of an update rule: the parameters after each of some steps, without a tolerance.

    `implementations` are functions `start(params) -> step`, where `step(gradient)` returns the parameters after one
    more step, all `{name: array}` of the dtype. Adapters for the optimizers of a framework stand with its backend
    (`from_optimizer`). `backends` run the rule itself; None takes those that are installed, or none beside
    implementations.

    The gradients are given, as `[{name: array}, ...]`, or drawn from seed 0 with sizes from 1e-8 to 1e3; the
    `params` are given or drawn. An entry that is wrong is that of its first wrong step, named as its law; one of an
    entry that agrees is that of the step nearest to its budget.

    Raises ValueError before any work for gradients that do not fit the parameters, or nobody to judge.

    >>> import gdcompare as gdc
    >>> def start(params):
    ...     memory = {name: 0 * value for name, value in params.items()}
    ...     def step(gradient):
    ...         for name in params:
    ...             memory[name] = 0.9 * memory[name] + 0.1 * gradient[name]  # dampened
    ...             params[name] = params[name] - 0.1 * memory[name]
    ...         return params
    ...     return step
    >>> report = verify_rule(gdc.rules.momentum(0.1), implementations={"mine": start})
    >>> report.verdict, report.entries[0].law, report.entries[0].cause
    ('wrong', 'step 0', 'it is what momentum dampened by 0.9 from the first step would give')
    """
    precision = checked_dtype(dtype)
    path = _path_of(rule, precision, params, gradients, steps)
    asked = ([] if implementations else backend_names()) if backends is None else backends
    runs = {each.name: _on(each, rule) for each in (as_backend(each, precision) for each in asked)}
    if clash := set(runs) & set(implementations or {}):
        raise ValueError(f"a backend and an implementation are both named {min(clash)!r}")
    runs |= dict(implementations or {})
    if not runs:
        raise ValueError("there is no optimizer to judge: give implementations, or name a backend")
    entries = [entry for name, start in runs.items() for entry in _judged(name, start, path)]
    context = {
        "problem": repr(rule),
        "data": f"{len(path.gradients)} gradients",
        "n": len(path.gradients),
        "d": sum(value.size for value in path.params.values()),
        "dtype": precision,
    }
    return Report(tuple(entries), context)


@final
@dataclass(frozen=True, eq=False)
class _Path:
    """The start, the gradients, and what is true, and allowed, after each step."""

    rule: Rule
    dtype: Precision
    params: Arrays
    gradients: Sequence[Arrays]
    truths: Sequence[Mapping[str, Enclosed]]
    budgets: Sequence[Mapping[str, Floats]]


def _path_of(
    rule: Rule,
    dtype: Precision,
    params: Mapping[str, Any] | None,
    gradients: Sequence[Mapping[str, Any]] | None,
    steps: int,
) -> _Path:
    generator = np.random.default_rng(0)
    if params is None:
        like = {} if gradients is None else {name: np.shape(value) for name, value in gradients[0].items()}
        params = {name: generator.standard_normal(shape) for name, shape in (like or {"a": (), "b": (3,)}).items()}
    start = {name: np.asarray(value, dtype=dtype) for name, value in params.items()}
    if gradients is None:
        sizes = [SIZES[i % len(SIZES)] for i in range(steps)]
        gradients = [
            {name: size * generator.standard_normal(value.shape) for name, value in start.items()} for size in sizes
        ]
    exact = [{name: np.asarray(value, dtype=dtype) for name, value in each.items()} for each in gradients]
    for number, each in enumerate(exact):
        found = {name: value.shape for name, value in each.items()}
        if found != (due := {name: value.shape for name, value in start.items()}):
            raise ValueError(f"gradient {number} has the shapes {found}, but the parameters have {due}")
    if not exact:
        raise ValueError("there is no step to judge: give gradients, or steps of 1 or more")
    for what, arrays in [("the parameters", start), *((f"gradient {i}", each) for i, each in enumerate(exact))]:
        if not all(np.isfinite(value).all() for value in arrays.values()):
            raise ValueError(f"{what} must be finite, and not too large for {dtype}")
    with ctx.workprec(512), np.errstate(all="ignore"):
        truths = [
            {name: Enclosed(each.value[0], np.zeros(each.shape, dtype=bool)) for name, each in after.items()}
            for after in _steps(rule, BallNumbers(), start, exact, lambda now, _before: now)
        ]
    numbers = RoundedNumbers(dtype)

    def in_any_order(now: Rounded, before: Rounded) -> Rounded:
        moved = np.abs(now.value - before.value) + now.error + before.error
        more = numbers.u * (PARAMETER_ROUNDINGS * before.size + STEP_ROUNDINGS * moved)
        return replace(now, error=now.error + more)

    with np.errstate(all="ignore"):
        budgets = [
            {name: each.value.error[0] for name, each in after.items()}
            for after in _steps(rule, numbers, start, exact, in_any_order)
        ]
    return _Path(rule, dtype, start, exact, truths, budgets)


def _steps(
    rule: Rule, numbers: Numbers, params: Arrays, gradients: Sequence[Arrays], finished: Callable[[Any, Any], Any]
) -> Iterator[dict[str, Variable]]:
    """Yield the parameters after each step, in that number system, each completed by `finished(now, before)`."""
    tape = Tape(numbers)
    now = {name: tape.asarray(value) for name, value in params.items()}
    memory: Any = {
        key: {name: tape.asarray(value) for name, value in part.items()}
        for key, part in rule.direction.init(params).items()
    }
    for number, gradient in enumerate(gradients):
        rate = tape.asarray(float(rule.learning_rate(np.array([number]))[0]))
        coefficients = rule.direction.coefficients(tape, tape.asarray(float(number)))
        given = {name: tape.asarray(value) for name, value in gradient.items()}
        direction, memory = rule.direction.update(tape, now, given, memory, coefficients)
        after = {name: value - rate * direction[name] for name, value in now.items()}
        now = {name: Variable(tape, finished(each.value, now[name].value)) for name, each in after.items()}
        yield now


def _judged(name: str, start: Optimizer, path: _Path) -> list[Entry]:
    """Take the steps; of each parameter keep the first that is wrong, or else the one nearest to its budget."""
    kept: dict[str, Entry] = {}
    found = _taken(start, path)
    for number, (after, truths, budgets) in enumerate(zip(found, path.truths, path.budgets, strict=False)):
        for entry in judge_all(name, after, truths, budgets, path.dtype):
            before = kept.get(entry.parameter)
            nearer = before is None or not (entry.budget_fraction <= before.budget_fraction)
            if (before is None or before.verdict != "wrong") and (nearer or entry.verdict == "wrong"):
                kept[entry.parameter] = replace(entry, law=f"step {number}")
    bad = {key for key, entry in kept.items() if entry.verdict == "wrong" and entry.worst_index is not None}
    if bad:
        cause = _cause(path, found)
        kept = {key: replace(entry, cause=cause) if key in bad else entry for key, entry in kept.items()}
    if len(found) < len(path.gradients):
        raised = f"{found.error} at step {len(found)}"
        kept["steps"] = Entry(name, "steps", "wrong", cause=raised, law=f"step {len(found)}")
    return list(kept.values())


class _Taken(list[dict[str, NDArray[Any]]]):
    """The parameters after each step, and what ended the steps early, if anything did."""

    error = ""


def _taken(start: Optimizer, path: _Path) -> _Taken:
    found = _Taken()
    try:
        with no_exit():
            step = start({name: value.copy() for name, value in path.params.items()})
            for gradient in path.gradients:
                after = as_due(step({name: value.copy() for name, value in gradient.items()}), {}, "{name: array}")
                found.append({str(name): as_array(value, path.dtype).copy() for name, value in after.items()})
    except ExitError:
        raise
    except NotDueError as error:
        found.error = str(error)
    except Exception as error:
        found.error = f"it raised {type(error).__name__}: {error}"
    return found


def _on(backend: Backend[Any], rule: Rule) -> Optimizer:
    """Return the rule itself as an optimizer on the backend's arrays."""

    def start(params: Arrays) -> Callable[[Arrays], Mapping[str, Any]]:
        names = tuple(params)

        def one(state: Any, inputs: Any, constants: Any) -> Any:
            del constants
            now, memory = state
            rate, *rest = inputs
            gradient, coefficients = dict(zip(names, rest, strict=False)), rest[len(names) :]
            direction, memory = rule.direction.update(backend.xp, now, gradient, memory, coefficients)
            now = {name: value - rate * direction[name] for name, value in now.items()}
            return (now, memory), tuple(now[name] for name in names)

        run = backend.scan(one)
        memory = {key: _arrays(backend, part) for key, part in rule.direction.init(params).items()}
        state: Any = (_arrays(backend, params), memory)
        number = 0

        def step(gradient: Arrays) -> Mapping[str, Any]:
            nonlocal state, number
            at = np.array([number])
            fed = [rule.learning_rate(at), *(gradient[name][None] for name in names)]
            state, after = run(state, (*fed, *rule.direction.coefficients(np, at)), ())
            number += 1
            return {name: backend.to_numpy(each)[0] for name, each in zip(names, after, strict=True)}

        return step

    return start


def _arrays(backend: Backend[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: backend.asarray(value) for name, value in values.items()}


# What a wrong optimizer may have done instead: the same rule, one thing changed.


def relatives(rule: Rule) -> dict[str, Rule]:
    """Return the rules that one is most often mistaken for, by what they are called in a cause.

    >>> import gdcompare as gdc
    >>> [name for name in relatives(gdc.rules.adam(0.1)) if "epsilon" in name]
    ['Adam with epsilon inside the root']
    """
    rate = float(rule.learning_rate(np.array([0]))[0])
    return {
        words: Rule(rule.learning_rate, direction) for words, direction in _relatives(rule.direction, rate) if direction
    }


def _relatives(direction: Direction, rate: float) -> Iterator[tuple[str, Direction]]:
    if isinstance(direction, Clipped):
        yield "the rule without clipping", direction.direction
        yield "clipping as in torch, with 1e-6 added to the norm", replace(direction, added=1e-6)
        yield "clipping with nothing added to the norm", replace(direction, added=0.0)
        for words, other in _relatives(direction.direction, rate):
            yield words, replace(direction, direction=other)
    elif isinstance(direction, Decayed):
        yield "the rule without weight decay", direction.direction
        kind = "in the gradient" if direction.decoupled else "decoupled from the gradient"
        yield f"weight decay {kind}", replace(direction, decoupled=not direction.decoupled)
        if rate > 0:
            unscaled = Decayed(direction.direction, direction.decay / rate, decoupled=True)
            yield "weight decay without the learning rate", unscaled
        yield "weight decay halved", replace(direction, decay=direction.decay / 2)
        yield "weight decay doubled", replace(direction, decay=2 * direction.decay)
        for words, other in _relatives(direction.direction, rate):
            yield words, replace(direction, direction=other)
    elif isinstance(direction, Momentum):
        yield "plain gradient descent", Plain()
        yield (
            ("momentum without Nesterov" if direction.nesterov else "Nesterov momentum"),
            replace(direction, nesterov=not direction.nesterov),
        )
        for dampening in sorted({direction.dampening, direction.beta, 1 - direction.beta} - {0.0}):
            shown = f"{dampening:.4g}"
            yield f"momentum dampened by {shown} from the second step", replace(direction, dampening=dampening)
            yield (
                f"momentum dampened by {shown} from the first step",
                replace(direction, dampening=dampening, first_dampened=True),
            )
        if direction.dampening:
            yield "momentum without dampening", replace(direction, dampening=0.0)
    elif isinstance(direction, Adam):
        place = "outside" if direction.epsilon_inside else "inside"
        yield f"Adam with epsilon {place} the root", replace(direction, epsilon_inside=not direction.epsilon_inside)
        yield "Adam without bias correction", replace(direction, corrected=False)
        yield (
            "Adam with beta_1 and beta_2 exchanged",
            replace(direction, beta_1=direction.beta_2, beta_2=direction.beta_1),
        )
    elif isinstance(direction, RMSProp):
        place = "outside" if direction.epsilon_inside else "inside"
        yield f"RMSProp with epsilon {place} the root", replace(direction, epsilon_inside=not direction.epsilon_inside)


def _cause(path: _Path, found: Sequence[Mapping[str, Any]]) -> str:
    """Name the first relative whose path the optimizer took, every step of it, to within its budget."""
    for words, rule in relatives(path.rule).items():
        if rule.direction == path.rule.direction:
            continue
        other = _path_of(rule, path.dtype, path.params, path.gradients, len(path.gradients))
        steps = zip(found, other.truths, other.budgets, strict=False)
        entries = [entry for each in steps for entry in judge_all("", *each, path.dtype)]
        if entries and all(entry.verdict == "agree" for entry in entries):
            return f"it is what {words} would give"
    return _scaled(path, found)


def _scaled(path: _Path, found: Sequence[Mapping[str, Any]]) -> str:
    """Say by what factor the first step is off, if it is one factor."""
    first = found[0] if found else {}
    if {name: np.shape(value) for name, value in first.items()} == {n: v.shape for n, v in path.params.items()}:
        moved = np.concatenate([np.ravel(first[name] - value) for name, value in path.params.items()]).astype(float)
        due = np.concatenate([np.ravel(path.truths[0][name].mid - value) for name, value in path.params.items()])
        ratios = moved / np.where(due == 0, np.nan, due)
        middle = float(np.median(ratios))
        if np.ptp(ratios) <= 1e-6 * abs(middle) and abs(middle - 1) > 1e-6:
            return f"the first step is {middle:.7g} times the right one in all {ratios.size} elements"
    return "no common variant of the rule explains it"

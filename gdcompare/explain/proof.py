"""A proof on symbols that a problem's derivatives, derived by hand, are those of its loss.

The formulas run as they are, on SymPy's symbols instead of numbers (`arithmetic.symbols`), for a few samples and
features, and SymPy differentiates the loss. What has to agree is subtracted, and each component of it decided
(`decision`): it is 0 as a formula, or not 0 at some point, proven, or undecided.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, final

from gdcompare.data import example
from gdcompare.data.extras import optional
from gdcompare.problem import NotDerivedError, Problem
from gdcompare.referee.verdict import plain
from gdcompare.registry import as_problem
from gdcompare.table import Part, Table, as_html, as_text, count, table
from gdcompare.words import one_line

if TYPE_CHECKING:
    from gdcompare.explain.decision import Domain
    from gdcompare.explain.formulas import Claim, Formulas, OneSample

Answer: TypeAlias = Literal["proved", "wrong", "undecided"]

SAMPLES = 3
"""With two, 2/n is 1, and nobody would miss it."""

SECONDS = 10.0
SECONDS_TO_WRITE = 3.0
INTERRUPTED = "interrupted"
MOST_SHOWN = 300
"""A longer formula is cut where it is shown; `difference` has it all."""


@final
@dataclass(frozen=True)
class Proved:
    """What was found about one parameter."""

    claim: str
    """loss, gradient, per-sample gradients, their mean, or Hessian-vector product."""
    parameter: str
    verdict: Answer
    components: int
    """How many numbers there are to be 0."""
    index: tuple[int, ...] | None = None
    """The first component that is not proved."""
    difference: str = ""
    """There, by hand minus by SymPy, as a formula."""
    difference_latex: str = ""
    why: str = ""
    """Why it is undecided."""
    only: tuple[str, ...] = ()
    """What was gone through case by case: "targets", that may take few values, or "sides" of kinks."""
    seconds: float = 0.0

    def __repr__(self) -> str:
        more = (
            f", difference {_cut(self.difference, 60)}" if self.verdict == "wrong" else f", {self.why}" * bool(self.why)
        )
        return f"Proved({self.verdict}, {self.about}{more})"

    @property
    def about(self) -> str:
        """What is claimed of which parameter."""
        return f"{self.claim}: {self.place}" if self.parameter else self.claim

    @property
    def place(self) -> str:
        """The parameter, and the component that is not proved."""
        return self.parameter + (f"[{', '.join(map(str, self.index))}]" if self.index else "")


@final
@dataclass(frozen=True, repr=False)
class Proof:
    """What was proved of a problem's derivations, and what was not; true if all of it was proved."""

    entries: tuple[Proved, ...]
    context: Mapping[str, Any] = field(default_factory=dict)
    """The problem, its settings, n, d, what the symbols may be, versions."""
    latex: str = ""
    """The loss of one sample and its gradient by hand, and what is wrong with it."""

    @property
    def verdict(self) -> Answer:
        """wrong if anything is, else undecided if anything is, else proved."""
        found = {entry.verdict for entry in self.entries}
        return "wrong" if "wrong" in found else "undecided" if "undecided" in found or not found else "proved"

    def __bool__(self) -> bool:
        return self.verdict == "proved"

    def __repr__(self) -> str:
        return f"Proof({self.verdict}, {count(len(self.entries), 'entry', 'entries')}, {self._subject()})"

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C left something undecided."""
        return any(entry.why == INTERRUPTED for entry in self.entries)

    @property
    def table(self) -> Table:
        """The entries, one a row."""
        rows = [
            (each.claim, each.parameter, each.verdict, str(each.components), f"{each.seconds:.2g}")
            for each in self.entries
        ]
        return table("", ["claim", "parameter", "verdict", "components", "seconds"], rows, left=3)

    def statement(self) -> list[str]:
        """Return what was proved and what was not, in sentences."""
        of = {
            name: [each for each in self.entries if each.verdict == name] for name in ("proved", "wrong", "undecided")
        }
        said = []
        if of["proved"]:
            what = "all of this" if self else _listed(of["proved"])
            said.append(f"Proved for {self._size()}: {what}, as formulas in exact arithmetic, {self._for_all()}.")
        shortest: dict[str, Proved] = {}
        for each in of["wrong"]:
            known = shortest.setdefault(each.parameter, each)
            if len(each.difference) < len(known.difference):
                shortest[each.parameter] = each
        said += [
            f"Wrong: {each.about}: by hand minus the derivative is {_cut(each.difference, MOST_SHOWN)}"
            for each in shortest.values()
        ]
        said += [f"Undecided: {each.about}: {each.why}" for each in of["undecided"]]
        said.append(
            "Not proved: other sizes and settings; rounding, and what a program makes of the formulas: see verify."
        )
        return said

    def shown(self) -> list[Part]:
        """Return what is shown of it: a heading, a table, and what was proved."""
        return [f"{self._subject()}: {self._size()}", self.table, *self.statement()]

    def __str__(self) -> str:
        return as_text(self.shown())

    def _repr_html_(self) -> str:
        return as_html(self.shown())

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python values, as they go to JSON."""
        return {
            "verdict": self.verdict,
            "context": dict(self.context),
            "entries": [asdict(each) for each in self.entries],
            "latex": self.latex,
            "statement": self.statement(),
        }

    def to_json(self, indent: int | None = 2) -> str:
        """Return the proof as JSON."""
        return json.dumps(plain(self.to_dict()), indent=indent, allow_nan=False)

    def _subject(self) -> str:
        settings = ", ".join(f"{name} = {value}" for name, value in self.context.get("settings", {}).items())
        return f"{self.context.get('problem', '?')}" + (f" with {settings}" if settings else "")

    def _size(self) -> str:
        return ", ".join(f"{letter} = {self.context[letter]}" for letter in "ndk" if letter in self.context)

    def _for_all(self) -> str:
        allowed = self.context.get("targets")
        targets = f"targets {allowed}" if allowed else "targets"
        for_all = f"for all real parameters, features and {targets}, wherever they are defined"
        kinks = self.context.get("kinks", [])
        if not kinks:
            return for_all
        some = "; ".join(_cut(kink, 80) for kink in kinks[:3]) + ("; ..." if len(kinks) > 3 else "")
        return f"{for_all}, away from the kinks of each sample: {some}"


def prove(
    problem: str | Problem,
    *,
    samples: int = SAMPLES,
    features: int | None = None,
    outputs: int | None = None,
    seconds: float = SECONDS,
    watch: Callable[[Sequence[Any]], Iterable[Any]] = iter,
) -> Proof:
    """Prove that what a problem has derived by hand is the derivative of its loss, for so many samples and features.

    `features` are by default 2, or the first number that the problem takes; `outputs` the columns of targets (n, k).
    `seconds` of computing limit each component. `watch` is handed the list of all components and returns an iterable
    over it: a progress bar. Ctrl-C leaves the rest undecided.

    The loss of `value_and_gradient` is the mean of the losses; its gradient is the derivative of that mean; the
    per-sample gradients are the derivatives of the losses; their mean is the gradient; and, where it is derived, the
    Hessian-vector product is the derivative of the gradient along a direction.

    Raises ImportError without SymPy, NotDerivedError where nothing is derived by hand, FormulaError for a formula that
    cannot run on symbols, ValueError for a size that is none.

    >>> proof = prove("linear-regression")
    >>> proof
    Proof(proved, 9 entries, LinearRegression)
    >>> proof.entries[1]
    Proved(proved, gradient: theta_0)
    """
    optional("sympy", "sympy", "a proof", "symbolic")
    from gdcompare.explain.formulas import Formulas, OneSample, smallest_size
    from gdcompare.explain.time_limit import within

    found = as_problem(problem)
    for name, value in {"samples": samples, "features": features, "outputs": outputs}.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise ValueError(f"{name} must be a whole number, 1 or above, not {value!r}")
    if not 0 < seconds < 1e6:
        raise ValueError(f"seconds must be a number above 0, not {seconds!r}")
    if not found.derived:
        raise NotDerivedError(
            f"{type(found).__name__} has nothing derived by hand to prove: write per_sample_gradients or "
            "value_and_gradient"
        )
    size = smallest_size(found, samples, example(found), features, outputs)
    formulas = Formulas(found, size)
    context = {
        "problem": type(found).__name__,
        "settings": {each.name: getattr(found, each.name) for each in fields(found)} if is_dataclass(found) else {},
        "n": size.n,
        "d": size.d,
        **({} if size.k is None else {"k": size.k}),
        **(
            {} if found.target_values is None else {"targets": " or ".join(f"{each:g}" for each in found.target_values)}
        ),
        "versions": {"sympy": version("sympy"), "python-flint": version("python-flint")},
        "seconds": seconds,
    }
    try:
        claims = within(10 * seconds, lambda: list(formulas.claims()))
    except (TimeoutError, RecursionError) as error:
        late = Proved("the formulas", "", "undecided", 0, why=f"they do not stand on symbols: {error}")
        return Proof((late,), context)
    entries = tuple(_decided(formulas, claims, seconds, watch))
    if any(entry.why == INTERRUPTED for entry in entries):  # whoever pressed Ctrl-C does not wait
        return Proof(entries, context)
    one = OneSample(found, size)
    return Proof(entries, context | {"kinks": one.kinks}, _written(one, entries))


def _decided(
    formulas: Formulas, claims: list[Claim], seconds: float, watch: Callable[[Sequence[Any]], Iterable[Any]]
) -> Iterator[Proved]:
    from gdcompare.explain.decision import Decision, decide

    domain = formulas.domain
    steps = [(claim, component) for claim in claims for component in claim.components]
    met: dict[int, tuple[Decision, tuple[int, ...]]] = {}
    only: dict[int, set[str]] = {}
    spent: dict[int, float] = {}
    done: dict[int, int] = {}
    interrupted = False
    try:
        for claim, component in watch(steps):
            key, begun = id(claim), time.perf_counter()
            if key not in met or met[key][0].answer != "wrong":
                decision = decide(component.difference, domain, seconds)
                only.setdefault(key, set()).update(decision.only)
                if decision.answer == "wrong" or (decision.answer == "undecided" and key not in met):
                    met[key] = decision, component.place
            done[key] = done.get(key, 0) + 1
            spent[key] = spent.get(key, 0.0) + time.perf_counter() - begun
    except KeyboardInterrupt:
        interrupted = True
    for claim in claims:
        key, total = id(claim), len(claim.components)
        rest: dict[str, Any] = {"only": tuple(sorted(only.get(key, ()))), "seconds": spent.get(key, 0.0)}
        answer: Answer = "proved"
        if key in met:
            decision, index = met[key]
            answer = decision.answer
            rest |= {"index": index, "why": decision.why} | _told(decision.difference, domain)
        if interrupted and done.get(key, 0) < total and answer == "proved":
            answer, rest["why"] = "undecided", INTERRUPTED
        yield Proved(claim.claim, claim.parameter, answer, total, **rest)


def _told(difference: Any, domain: Domain) -> dict[str, str]:
    """Return a difference as a formula in text and in LaTeX; what takes long to write nobody would read."""
    from gdcompare.explain.latex import brackets, formula
    from gdcompare.explain.time_limit import within

    def written() -> dict[str, str]:
        latex = formula(difference, domain)
        latex += "".join(rf",\quad {name} = {meaning}" for name, meaning in brackets(latex, domain))
        return {"difference": str(difference), "difference_latex": latex}

    try:
        return within(SECONDS_TO_WRITE, written)
    except (TimeoutError, RecursionError):
        return {"difference": "a formula too long to write", "difference_latex": r"\text{too long to write}"}


def typeset(problem: str | Problem, features: int | None = None) -> str:
    r"""Return the loss of one sample and its gradient by hand in LaTeX, without a proof, for so many features.

    Features and errors are those of `prove`.

    >>> print(typeset("linear-regression").splitlines()[1])
      \ell &= \left(\theta_{0} + \theta_{1,0} x_{0} + \theta_{1,1} x_{1} - y\right)^{2} \\
    """
    optional("sympy", "sympy", "a formula in LaTeX", "symbolic")
    from gdcompare.explain.formulas import OneSample, smallest_size

    found = as_problem(problem)
    return _written(OneSample(found, smallest_size(found, SAMPLES, example(found), features)), ())


def _written(one: OneSample, entries: Iterable[Proved]) -> str:
    """Return the loss of one sample and its gradient by hand in LaTeX, and the differences that are not 0."""
    from gdcompare.explain.latex import aligned, brackets, formula, symbol

    lines = [(r"\ell", formula(one.loss, one.domain))]
    lines += [
        (rf"\frac{{\partial \ell}}{{\partial {symbol(name)}}}", formula(x, one.domain)) for name, x in one.gradient
    ]
    lines += brackets("".join(written for _, written in lines), one.domain)
    wrong = [(each.about, each.difference_latex) for each in entries if each.verdict == "wrong"]
    differences = (f"% {one_line(about)}: by hand minus the derivative\n\\[ {latex} \\]" for about, latex in wrong)
    return "\n".join([aligned(lines), *differences])


def _listed(entries: Iterable[Proved]) -> str:
    """Return claims with the parameters they are about.

    >>> _listed([Proved("loss", "", "proved", 1), Proved("gradient", "a", "proved", 1)])
    'loss; gradient of a'
    """
    claims: dict[str, list[str]] = {}
    for each in entries:
        claims.setdefault(each.claim, []).extend([each.parameter] if each.parameter else [])
    return "; ".join(f"{claim} of {', '.join(of)}" if of else claim for claim, of in claims.items())


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 3]}..."

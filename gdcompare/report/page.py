"""One page of everything that is known of a problem's gradients: a file that needs nothing else, offline as online.

It needs `pip install 'gdcompare[report]'`.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from gdcompare.backend import Backend
from gdcompare.case import Case, DataLike
from gdcompare.descent.loop import descend
from gdcompare.descent.record import Descent
from gdcompare.descent.rules import Rule, sgd
from gdcompare.descent.sampling import checked_batch_size, steps_per_epoch
from gdcompare.gradients import per_sample_grad, value_and_grad
from gdcompare.problem import Dataset, Problem, drawn_parameters
from gdcompare.referee.attainable import AttainableDigits, attainable_digits
from gdcompare.referee.laws import check_batch_laws
from gdcompare.referee.point import Implementation
from gdcompare.referee.verdict import Report
from gdcompare.referee.verify import verify
from gdcompare.registry import backends_for, refuse_nobody
from gdcompare.report import look
from gdcompare.report.agreement import budget_shares, digits, heat_map
from gdcompare.report.losses import distances, losses
from gdcompare.report.moving_line import moving_line, seen
from gdcompare.report.paths import coinciding
from gdcompare.report.planes import chosen_elements
from gdcompare.report.quadratic import quadratic_of
from gdcompare.report.sample_gradients import cloud, fan
from gdcompare.report.scene import scene
from gdcompare.report.timing_plots import picture as timing_picture
from gdcompare.report.timings import conditions, shown, timings_of
from gdcompare.table import Part, as_html, table, vector
from gdcompare.timing.environment import environment, unfit
from gdcompare.timing.runs import Run
from gdcompare.writing import write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_NUMBERS = 20_000_000
"""Of more per-sample gradients than this, none are drawn."""

_FONTS = ["DejaVu Sans", "Verdana", "Arial", "sans-serif"]

_BROAD = {"batches' gradients", "losses", "moving line", "times"}
"""Pictures with several parts side by side."""

_DRAWS = 100
"""Batches of each size: a mark each on the page."""

_LOOK_EVERY = 1000
"""Steps after which a descent is asked whether it has gone far enough."""

_MOST_KEPT = 20_000
"""Steps of a path that are kept."""


class PageUnavailableError(ImportError):
    """A page is asked for, and what makes it is not installed."""


@dataclass(frozen=True, eq=False)
class Page:
    """What stands on the page; `html()` is the page itself, `write` puts it into a file."""

    problem: Problem
    data: Dataset
    params: Mapping[str, Any]
    backends: Sequence[Backend[Any]]
    report: Report
    laws: Report | None = None
    digits: AttainableDigits | None = None
    descents: Mapping[str, Mapping[str, Descent]] | None = None
    """By kind, "full batch", "mini-batches of b" and "single samples", and by backend."""
    timing: Run | None = None
    seed: int = 0
    axes: str | Sequence[str] | None = None
    command: str = ""
    missing: tuple[str, ...] = ()
    """What is left out, a line each."""
    interrupted: bool = False

    @property
    def verdict(self) -> str:
        """That on the gradients and on the laws: wrong if anything is, else inconclusive if anything is."""
        return (self.report if self.laws is None else Report.merged([self.report, self.laws])).verdict

    def __repr__(self) -> str:
        return f"Page({self.verdict}, {type(self.problem).__name__} on {self.data.name})"

    def html(self) -> str:
        """Return the page. Raises PageUnavailableError or PlotUnavailableError where what makes it is missing."""
        return _rendered(self)

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the page, whole or not at all. Raises as `html`, and OSError."""
        write_text(path, self.html())


def report_page(
    problem: str | Problem,
    data: DataLike = None,
    params: Mapping[str, Any] | None = None,
    *,
    backends: Sequence[str | Backend[Any]] | None = None,
    implementations: Mapping[str, Implementation] | None = None,
    dtype: str = "float64",
    device: str | None = None,
    rule: Rule = sgd(0.01),  # noqa: B008 - a rule is immutable
    steps: int = 1000,
    batch_size: int | None = None,
    seed: int = 0,
    axes: str | Sequence[str] | None = None,
    timing: Run | None = None,
    report: Report | None = None,
    laws: Report | None = None,
) -> Page:
    """Judge a problem's gradients, check its batch laws, count digits and descend in three ways: all that a page shows.

    Problem, data, parameters, backends and implementations are what `verify` takes. The full batch, mini-batches of
    `batch_size` rows (min(8, n / 4) if it is None) and single samples take `steps` steps each, on every backend. Axes
    are those of `pictures.surface`. A `report` or `laws` that there is already is taken instead of judging anew;
    `timing` is a run of `bench`, and only shown.

    After Ctrl-C the page has what was found by then. Raises ValueError, LookupError, PageUnavailableError or
    PlotUnavailableError before any work for what makes no sense or cannot be shown.

    >>> page = report_page("linear-regression", "noisy-line", backends=["numpy"], steps=20)
    >>> page
    Page(agree, LinearRegression on noisy-line)
    >>> page.html().startswith("<!DOCTYPE html>"), "://" in page.html().replace("http://www.w3.org", "")
    (True, False)
    """
    require()
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ValueError(f"steps must be a whole number from 1, not {steps!r}")
    case = Case.of(problem, data, params, dtype, otherwise=drawn_parameters)
    problem, data, params = case.problem, case.data, case.params
    n = len(data)
    if axes is not None:
        chosen_elements(axes, {name: np.shape(value) for name, value in params.items()})
    size = max(1, min(8, n // 4)) if batch_size is None else checked_batch_size(n, batch_size)
    batches = {"full batch": None, f"mini-batches of {size}": size, "single samples": 1}
    loaded = backends_for(problem, backends, dtype, device)
    functions = dict(implementations or {})
    refuse_nobody(problem, [*loaded, *functions])
    for name, given in {"report": report, "laws": laws}.items():
        _refuse_other(name, given, problem, data)
    if report is None:
        report = verify(problem, data, params, backends=loaded, implementations=functions, dtype=dtype)
    page = Page(problem, data, params, loaded, report, laws, timing=timing, seed=seed, axes=axes)
    try:
        if laws is None and loaded:
            page = replace(page, laws=Report.merged([check_batch_laws(problem, data, params, it) for it in loaded]))
        if not any(each.cause.startswith(("it raised ", "it returned ")) for each in report.entries):
            found = attainable_digits(problem, data, params, dtype, backends=loaded, implementations=functions)
            page = replace(page, digits=found)
        for kind, rows in batches.items():
            for backend in loaded:
                fit = _descend(problem, data, backend, rule, rows, seed, steps)
                known = {kind: dict(of) for kind, of in (page.descents or {}).items()}
                known.setdefault(kind, {})[backend.name] = fit
                page = replace(page, descents=known)
                if fit.stop_reason == "interrupted":
                    raise KeyboardInterrupt
    except KeyboardInterrupt:
        page = replace(page, interrupted=True, missing=("interrupted: what came after is missing",))
    return page


def require() -> None:
    """Raise PageUnavailableError or PlotUnavailableError if what makes a page is not installed."""
    try:
        import jinja2 as _  # noqa: F401 - whether it is there
    except ModuleNotFoundError:
        raise PageUnavailableError("a page needs 'jinja2': pip install 'gdcompare[report]'") from None
    with look.styled():
        pass


def _refuse_other(name: str, report: Report | None, problem: Problem, data: Dataset) -> None:
    """Raise ValueError if a report that was given is of something else."""
    if report is None:
        return
    about = tuple(report.context.get(key) for key in ("problem", "data", "n"))
    if about != (type(problem).__name__, data.name, len(data)):
        raise ValueError(
            f"the {name} given is about {about[0]} on {about[1]}, n = {about[2]}; this page is about "
            f"{type(problem).__name__} on {data.name}, n = {len(data)}"
        )


def _descend(
    problem: Problem, data: Dataset, backend: Backend[Any], rule: Rule, rows: int | None, seed: int, steps: int
) -> Descent:
    """Descend for so many steps, whole epochs or not."""
    fit = descend(
        problem,
        data,
        backend,
        rule,
        rows,
        epochs=-(-steps // steps_per_epoch(len(data), rows)),
        seed=seed,
        history_every=-(-steps // _MOST_KEPT),
        chunk=min(steps, _LOOK_EVERY),
        callback=lambda progress: progress.step >= steps,
    )
    return replace(fit, stop_reason="epochs") if fit.stop_reason == "callback" else fit


# The page


def _rendered(page: Page) -> str:
    require()
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    loader = PackageLoader(__name__.rpartition(".")[0])
    made = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    missing, scenery = [*page.missing], None
    if page.descents:
        try:
            scenery = scene(page.problem, page.data, page.descents, page.backends[0], page.seed, page.axes)
        except ValueError as error:
            missing.append(f"no surface: {error}")
    sections = []
    for section in _sections(page):
        figures: dict[str, str] = {}
        for name, draw in section.pictures.items():
            try:
                with look.styled(), np.errstate(all="ignore"):  # a descent may have diverged
                    figures[name] = Markup(as_svg(draw(), f"{section.id}{len(figures)}"))  # noqa: S704
            except ValueError as error:  # such as a gradient that is not finite
                missing.append(f"no picture of the {name}: {error}")
        sections.append((section, Markup(as_html(section.tables)), figures))  # noqa: S704 - it escapes
    return made.get_template("page.html").render(
        title=f"{type(page.problem).__name__} on {page.data.name}",
        verdict=page.verdict,
        summary=page.report.explanation(),
        scene=scenery,
        sections=sections,
        wide=_BROAD,
        missing=missing,
        command=page.command,
        facts=_facts(page),
        style=Markup(_source("page.css")),  # noqa: S704 - our own file
        script=Markup(_source("page.js")),  # noqa: S704 - our own file
    )


def _source(name: str) -> str:
    from importlib.resources import files

    return (files(__name__.rpartition(".")[0]) / "templates" / name).read_text(encoding="utf-8")


@dataclass(frozen=True)
class _Section:
    """What stands below the surface: heading, words, tables that may unfold, and figures."""

    id: str
    title: str
    lead: str
    tables: Sequence[Part]
    pictures: Mapping[str, Callable[[], Figure]] = field(default_factory=dict)
    folded: bool = False


def _sections(page: Page) -> Iterator[_Section]:
    report, laws, run = page.report, page.laws, page.timing
    yield _Section(
        "verdict",
        "Verdicts",
        "Each gradient against the proven truth, without a tolerance: what rounding may do to a correct program is its "
        "budget, and what is beyond it is wrong.",
        report.shown(),
        {
            "verdicts": lambda: heat_map(report),
            "budget shares": lambda: budget_shares(report),
            "digits checked": lambda: digits(report),
        },
    )
    if page.digits is not None:
        lead = "The decimal digits that each gradient has right, beside those that its inputs allow."
        yield _Section("digits", "Digits", lead, page.digits.shown())
    if laws is not None:
        lead = (
            "What must hold between a gradient and its parts: the mean of the per-sample gradients is the gradient, "
            "and what follows from it."
        )
        pictures = {"laws": lambda: heat_map(laws), **_of_samples(page)}
        yield _Section("laws", "Laws", lead, laws.shown(), pictures, folded=True)
    if page.descents:
        lead = "The same steps by every backend, as still pictures."
        yield _Section("descents", "Descents", lead, [_outcomes(page.descents)], _of_descents(page))
    if run is not None:
        tables: list[Part] = []
        for each in timings_of(run):
            tables += [shown(each), *each.notes]
        notes = [*(f"note: {words}" for words in unfit(run.environment)), conditions(run)]
        lead = "Interleaved, each answer judged before its time is believed."
        yield _Section("timing", "Timing", lead, [*tables, *notes], {"times": lambda: timing_picture(run)})


def _of_samples(page: Page) -> dict[str, Callable[[], Figure]]:
    """Return the pictures of the samples' gradients, where they are of equal rows, and not too many."""
    size = len(page.data) * sum(np.size(value) for value in page.params.values())
    if not page.backends or page.data.weights is not None or size > _MOST_NUMBERS:
        return {}
    where = page.problem, page.data, page.params, page.backends[0]
    rows, gradient = per_sample_grad(*where), value_and_grad(*where)[1]
    pictures: dict[str, Callable[[], Figure]] = {"samples' gradients": lambda: fan(rows, gradient)}
    if len(page.data) >= 3:
        pictures["batches' gradients"] = lambda: cloud(rows, draws=_DRAWS)
    return pictures


def _of_descents(page: Page) -> dict[str, Callable[[], Figure]]:
    problem, data, descents = page.problem, page.data, page.descents or {}
    kinds = {kind: next(iter(found.values())) for kind, found in descents.items()}
    full = next(iter(descents.values()))
    first = next(iter(full.values()))
    pictures: dict[str, Callable[[], Figure]] = {}
    if len(full) > 1:
        pictures["backends"] = lambda: coinciding(problem, data, full, page.axes)
    pictures["losses"] = lambda: losses(kinds)
    begun = {name: each[0].astype(np.float64) for name, each in first.history.parameters.items()}
    if quadratic_of(problem, data, begun) is not None:
        pictures["distances"] = lambda: distances(problem, data, kinds)
    if seen(problem, data):
        pictures["moving line"] = lambda: moving_line(problem, data, first, page.axes)
    return pictures


def _outcomes(descents: Mapping[str, Mapping[str, Descent]]) -> Any:
    rows = [
        (kind, name, str(fit.steps), fit.stop_reason, f"{fit.last_loss:.6g}")
        for kind, found in descents.items()
        for name, fit in found.items()
    ]
    return table("", ["descent", "backend", "steps", "stopped by", "last batch's loss"], rows, left=2)


def _facts(page: Page) -> list[tuple[str, str]]:
    """Return what the page depends on."""
    here = environment()
    machine, state = here["machine"], here["state"]
    data, context = page.data, page.report.context
    facts = {
        "data": f"{data.name}, n = {len(data)}, d = {data.features.shape[1]}"
        + ", weighted" * bool(context["weighted"]),
        "at": "; ".join(f"{name} = {vector(np.ravel(value), most=4)}" for name, value in page.params.items()),
        "dtype": context.get("dtype", ""),
        "seed": page.seed,
        "gdcompare": state["gdcompare"],
        **here["versions"],
        **{
            f"backend {each.name}": "; ".join(f"{key} {value}" for key, value in each.environment().items())
            for each in page.backends
            if hasattr(each, "environment")
        },
        "machine": f"{machine['processor']}, {machine['processors']} processors, {machine['system']}",
        "made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }
    return [(str(name), str(value)) for name, value in facts.items()]


def as_svg(figure: Figure, prefix: str) -> str:
    """Return a figure as an SVG element for a page that holds others: letters as text, every id its own."""
    import matplotlib as mpl

    content = io.BytesIO()
    small: Any = {"svg.fonttype": "none", "font.sans-serif": _FONTS, "path.simplify_threshold": 0.5}
    with mpl.rc_context(small):
        figure.savefig(content, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = content.getvalue().decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", text)
    return re.sub(r'\s(?:d|x|y|transform)="[^"]*"', _rounded, re.sub(r">\s+<", "><", text))


def _rounded(attribute: re.Match[str]) -> str:
    """Return an attribute with its numbers to a tenth of a point, and no letter that goes without saying."""
    text = re.sub(r"\s+", " ", re.sub(r"\d+\.\d+", lambda number: f"{float(number[0]):.1f}", attribute[0]))
    return text if re.search("[CQ]", text) else text.replace(" L ", " ")

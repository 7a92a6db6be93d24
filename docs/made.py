"""What the site shows of the code: pages, tables and pictures, made at each build, in docs/made/.

`python docs/made.py` makes the picture of the README anew, the one of them that is kept.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import numpy as np
from click.testing import CliRunner

import gdcompare as gdc
from gdcompare.cli import commands
from gdcompare.explain.example import BY_HAND, FORMULAS, LOSS, sources
from gdcompare.explain.proof import typeset

DOCS = Path(__file__).parent
ROOT = DOCS.parent
MADE = DOCS / "made"
START = DOCS / "start.png"
SHARED = ("CONTRIBUTING.md", "CHANGELOG.md")
"""Pages that stand above docs/, beside the README, with which the start page begins."""

AREAS = {
    "gradients": "Gradients and derivatives",
    "referee": "Verdicts and laws",
    "distributed": "Gradients of many ranks",
    "descent": "Descents",
    "problem": "Problems and data",
    "models": "Models as they are",
    "backend": "Backends",
    "explain": "Explanations and proofs",
    "report": "Pictures and pages",
}
"""The room that a public name lives in, and the page that it stands on."""
HOMES = {"data": "problem", "problems": "problem", "registry": "backend", "authoring": "backend"}
LONGEST = 650
"""A line of LaTeX with more letters is too wide to be read."""


def pages() -> dict[Path, str]:
    """Return all pages that are made of the code, by their path below docs/made/."""
    found = {Path("index.md"): index()}
    found |= {Path(name): above(name) for name in SHARED}
    found |= {Path("reference") / f"{area}.md": reference(area) for area in AREAS}
    found[Path("commands.md")] = command_page()
    found[Path("problems") / "index.md"] = problem_index()
    found |= {Path("problems") / f"{name}.md": problem_page(name) for name in gdc.problem_names()}
    return found


def write_all() -> None:
    """Write what has changed, and remove what is no longer made; draw what is not there."""
    made = pages()
    for path, text in made.items():
        write(MADE / path, text)
    for name in gdc.problem_names():
        draw(name, MADE / "problems" / f"{name}.svg")
    kept = {MADE / path for path in made}
    for path in MADE.rglob("*.md"):
        if path not in kept:
            path.unlink()


def write(path: Path, text: str) -> None:
    """Write a page, unless it is there as it is: what has not changed is not read again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


# The chapters: docs/README.md lists them all, in tables under headings.


def index() -> str:
    """Return the start page: the README, the chapters of docs/README.md for its table of links, and what is made."""
    chapters = (DOCS / "README.md").read_text(encoding="utf-8")
    _, *parts = re.split(r"^## (.*)$", chapters, flags=re.MULTILINE)
    trees = [
        tree(heading, (f"../{link}" for link in re.findall(r"\]\(([^):.]+)\.md\)", text)))
        for heading, text in zip(parts[::2], parts[1::2], strict=True)
    ]
    made = ["commands", *(f"reference/{area}" for area in AREAS), "problems/index"]
    trees += [tree("Reference", made), tree("The project", ["CONTRIBUTING", "CHANGELOG"])]
    tables = "\n".join(f"## {h}\n{t.rstrip()}\n" for h, t in zip(parts[::2], parts[1::2], strict=True))
    return f"{above('README.md').partition('## Go on')[0]}{linked(tables)}\n{''.join(trees)}"


def tree(caption: str, names: Iterable[str]) -> str:
    """Return a hidden part of the table of contents."""
    return "\n".join(["", "```{toctree}", ":hidden:", f":caption: {caption}", "", *names, "```", ""])


def linked(text: str) -> str:
    """Return a text of docs/ as it stands in docs/made/: its links lead to the same pages."""
    text = re.sub(r"\]\(\.\./([A-Z]+\.md)", r"](\1", text.replace("](../README.md", "](index.md"))
    return re.sub(r"\]\((?!\.\./|[a-z]+:|[A-Z]+\.md|index\.md|#)([^)]+\.md)", r"](../\1", text)


def above(name: str) -> str:
    """Return a page of the root as it stands in docs/made/."""
    text = (ROOT / name).read_text(encoding="utf-8")
    return re.sub(r"\]\(docs/", "](../", text.replace("](docs/README.md", "](index.md"))


# The reference: names, signatures and docstrings, which are Markdown as they are.


def reference(area: str) -> str:
    """Return the page of an area: every public name that lives there."""
    found = {name: getattr(gdc, name) for name in gdc.__all__}
    entries = [entry(name, what) for name, what in found.items() if area_of(what) == area]
    if not entries:
        raise ValueError(f"no public name lives in {area!r}: {sorted(map(area_of, found.values()))}")
    return f"# {AREAS[area]}\n\n" + "\n\n".join(entries) + "\n"


def area_of(what: Any) -> str:
    """Return the area of a public name by the module that it stands in."""
    module = what.__name__ if inspect.ismodule(what) else what.__module__
    room = module.split(".")[1]
    room = HOMES.get(room, room)
    if room not in AREAS:
        raise ValueError(f"{what!r} lives in {module}, which has no page: give it one in AREAS or HOMES")
    return room


def entry(name: str, what: Any, parent: str = "gdcompare") -> str:
    """Return the heading, the signature, the docstring and the members of a name."""
    if inspect.ismodule(what):
        members = [(each, getattr(what, each)) for each in getattr(what, "__all__", ())]
        own = [
            entry(each, member, f"{parent}.{name}")
            for each, member in members
            if inspect.isroutine(member) or inspect.isclass(member)
        ]
        return "\n\n".join([f"## {parent}.{name}", docstring(what), *own])
    lines = [f"## {parent}.{name}", f"```python\n{signature(name, what)}\n```", docstring(what)]
    if inspect.isclass(what) and (told := attributes(what)):
        lines.append(markdown(["attribute", "what it is"], [(f"`{each}`", text) for each, text in told.items()]))
    for each, member in vars(what).items() if inspect.isclass(what) else ():
        called = getattr(member, "__func__", member)  # a class method's
        held = getattr(member, "fget", None) or getattr(called, "func", called)  # a property's, kept or not
        if not each.startswith("_") and inspect.isfunction(held) and inspect.getdoc(held):
            shown = signature(each, getattr(what, each) if called is not member else called) if held is called else each
            lines += [f"```python\n{shown}\n```", docstring(held)]
    return "\n\n".join(lines)


def attributes(what: type) -> dict[str, str]:
    """Return the attributes of a class that have a string below them, which says what they are."""
    body = ast.parse(textwrap.dedent(inspect.getsource(what))).body[0].body  # type: ignore[attr-defined]  # of a class
    return {
        each.target.id: " ".join(str(below.value.value).split())
        for each, below in pairwise(body)
        if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
    }


def signature(name: str, what: Any) -> str:
    """Return a call as one would write it, a parameter a line where they are many."""
    if inspect.isclass(what) and issubclass(what, Exception):
        return f"class {name}({what.__bases__[0].__name__})"
    given = inspect.signature(what)
    parts: list[str] = []
    for each in given.parameters.values():
        if each.name == "self":
            continue
        if each.kind is each.KEYWORD_ONLY and "*" not in "".join(part[:1] for part in parts):
            parts.append("*")
        stars = "*" if each.kind is each.VAR_POSITIONAL else "**" if each.kind is each.VAR_KEYWORD else ""
        kind = "" if each.annotation is each.empty else f": {formatted(each.annotation)}"
        default = repr(each.default)
        shown = "..." if default.startswith("<") or " object at " in default else default
        default = "" if each.default is each.empty else f"{' = ' if kind else '='}{shown}"
        parts.append(f"{stars}{each.name}{kind}{default}")
    back = given.return_annotation
    arrow = "" if back is given.empty or inspect.isclass(what) else f" -> {formatted(back)}"
    line = f"{name}({', '.join(parts)}){arrow}"
    return line if len(line) <= 100 else "\n".join([f"{name}(", *(f"    {part}," for part in parts), f"){arrow}"])


def formatted(annotation: Any) -> str:
    """Return an annotation as it stands in the code, where it is a string, for nothing is evaluated there."""
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def docstring(what: Any) -> str:
    """Return a docstring as Markdown: examples and what is indented are blocks of code."""
    blocks = (inspect.getdoc(what) or "").split("\n\n")
    return "\n\n".join(map(_block, blocks))


def _block(block: str) -> str:
    if block.lstrip().startswith(">>>"):
        return f"```python\n{textwrap.dedent(block)}\n```"
    if block.startswith("    "):
        return f"```text\n{textwrap.dedent(block)}\n```"
    return re.sub(r"(?<!`)\|(?!`)", r"\\|", block) if "|" in block else block


# The commands, as they describe themselves.


def command_page() -> str:
    """Return what `--help` says of every command."""
    parts = ["# Commands\n\nWhat `gdcompare COMMAND --help` says.\n"]
    with click.Context(commands, info_name="gdcompare", terminal_width=100, **commands.context_settings) as root:
        parts.append(f"## gdcompare\n\n```text\n{commands.get_help(root)}\n```\n")
        for name in commands.list_commands(root):
            command = commands.get_command(root, name)
            assert command is not None  # it is in the list
            with click.Context(command, parent=root, info_name=name) as context:
                parts.append(f"## gdcompare {name}\n\n```text\n{command.get_help(context)}\n```\n")
    return "\n".join(parts)


# The problems.


def problem_index() -> str:
    """Return the table of problems beside what is derived by hand of each."""
    rows = []
    for name in gdc.problem_names():
        problem = gdc.load_problem(name)
        about = (inspect.getdoc(type(problem)) or "").partition("\n")[0]
        rows.append(
            (f"[{name}]({name}.md)", about, "yes" if problem.derived else "", "yes" if problem.twice_derived else "")
        )
    table = markdown(["problem", "what it is", "gradient by hand", "Hessian-vector product by hand"], rows)
    names = "\n".join(gdc.problem_names())
    return (
        "# Problems\n\nEach is a finite sum: the loss of one sample, written once, and what was derived of it by hand. "
        f"What is not derived, the frameworks and the referee still differentiate.\n\n{table}\n\n"
        f"```{{toctree}}\n:hidden:\n\n{names}\n```\n"
    )


def problem_page(name: str) -> str:
    """Return a problem's equations, its derivation typeset and as code, its source, and a picture of a descent."""
    problem = gdc.load_problem(name)
    blocks = (inspect.getdoc(type(problem)) or "").partition(">>>")[0].strip().split("\n\n")
    parts = [f"# {name}", *map(_block, blocks)]
    if problem.derived:
        latex, size = derivation(name)
        parts.append("## The loss of a sample, and its gradient by hand")
        parts.append(f"{size}:\n\n```{{math}}\n{latex}\n```")
        parts.append(f"`gdcompare prove {name}` proves it on symbols; with `--latex` it writes it, too.")
    for heading in (LOSS, BY_HAND):
        found = sources(problem, *FORMULAS[heading])
        if found:
            parts.append(f"## {heading}, as it is written")
            parts += [f"{each.about}\n\n```python\n{_code(each.code)}\n```" for each in found]
    parts += [
        "## A descent",
        f"![The paths of a descent]({name}.svg)",
        f"Drawn by `{' '.join(descend(name))} --plot FILE`.",
    ]
    return "\n\n".join(parts) + "\n"


def derivation(name: str) -> tuple[str, str]:
    """Return the loss and the gradient of a sample in LaTeX, and their size in words: the largest that can be read."""
    problem = gdc.load_problem(name)
    given: dict[str, Any] = (
        {each.name: getattr(problem, each.name) for each in fields(problem)} if is_dataclass(problem) else {}
    )
    least = {key: (1,) if isinstance(value, tuple) else 1 for key, value in given.items() if _counts(value)}
    tried: list[tuple[int | None, dict[str, Any]]] = [(None, {}), (1, {}), (1, least)]
    for features, settings in tried:
        try:
            latex = typeset(gdc.load_problem(name, **settings), features)
        except ValueError:  # it takes no single feature
            continue
        if max(map(len, latex.splitlines())) <= LONGEST:
            break
    else:
        raise ValueError(f"{name} is too long to be typeset at any size: {len(latex)} letters")
    sizes = ["one feature" if features else "few features"]
    sizes += [f"{key} = {value}" for key, value in (given | settings).items()]
    return latex, f"With {', '.join(sizes)}"


def _counts(value: Any) -> bool:
    return isinstance(value, tuple) or (isinstance(value, int) and not isinstance(value, bool))


def _code(numbered: str) -> str:
    """Return lines without their numbers."""
    return textwrap.dedent("\n".join(re.sub(r"^ *\d+ ?", "", line) for line in numbered.splitlines()))


def descend(name: str) -> list[str]:
    """Return the command whose picture stands on a problem's page."""
    return ["gdcompare", "descend", name, "--backend", "numpy"]


def draw(name: str, path: Path) -> None:
    """Run the command, unless its picture is there already."""
    if path.exists():
        return
    done = CliRunner().invoke(commands, [*descend(name)[1:], "--plot", str(path)], obj=[])
    if not path.exists():
        raise RuntimeError(f"{' '.join(descend(name))} drew nothing:\n{done.output}")


# Tables.


def markdown(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table."""

    def lines() -> Iterator[str]:
        yield f"| {' | '.join(heads)} |"
        yield "|---" * len(heads) + "|"
        for row in rows:
            yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"

    return "\n".join(lines())


# The picture of the README.


def draw_start(path: Path) -> None:
    """Draw three descents on one surface, and the samples' gradients with their mean, side by side."""
    from matplotlib.figure import Figure

    problem, data, rule = "linear-regression", gdc.datasets.noisy_line(), gdc.rules.sgd(0.01)
    fits = {
        "full batch": gdc.descend(problem, data, "numpy", rule, epochs=800),
        "mini-batches of 2": gdc.descend(problem, data, "numpy", rule, epochs=15, batch_size=2),
        "stochastic": gdc.descend(problem, data, "numpy", rule, epochs=15, batch_size=1),
    }
    where = problem, data, {"theta_0": 1, "theta_1": [0]}, "numpy"
    figure = Figure(figsize=(10.4, 4.8), layout="constrained")
    left, right = np.ravel(np.asarray(figure.subfigures(1, 2)))
    gdc.pictures.surface(problem, data, fits, on=left)
    gdc.pictures.fan(gdc.per_sample_grad(*where), gdc.value_and_grad(*where)[1], on=right)
    gdc.pictures.write(figure, path)


if __name__ == "__main__":
    draw_start(Path(sys.argv[1]) if len(sys.argv) > 1 else START)

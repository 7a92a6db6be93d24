"""Audit every installed framework, and write docs/audit.md.

    python -m benchmarks.audits              all of them, in some hours; Ctrl-C, and again, goes on
    python -m benchmarks.audits --draw       judges nothing: writes the page from what is kept
    python -m benchmarks.audits jax          this one alone, and then the page
    python -m benchmarks.audits --workers 8  by so many processes, or --scheduler tcp://HOST:8786 on a Dask cluster

What was found is kept in .cache/audit, or the folder of --folder, one file for each framework.
"""

from __future__ import annotations

from pathlib import Path

import click

from gdcompare import BackendUnavailableError
from gdcompare.audit.page import as_markdown, is_second
from gdcompare.audit.results import Audit, Row, load
from gdcompare.audit.run import audit, operations_of
from gdcompare.cli.options import shared_among_workers
from gdcompare.registry import load_backend
from gdcompare.writing import write_text

from .upstream import reported

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "audit.md"
BEGIN = "<!-- made by `python -m benchmarks.audits` -->"
END = "<!-- end of what was made -->"
FRAMEWORKS = ("torch", "jax", "autograd", "tensorflow")


@click.command()
@click.argument("frameworks", nargs=-1, type=click.Choice(FRAMEWORKS))
@click.option("--folder", type=click.Path(path_type=Path), default=ROOT / ".cache" / "audit", help="Of what is kept.")
@click.option("--draw", is_flag=True, help="Judge nothing; write the page.")
@click.option("--limit", type=float, default=60.0, show_default=True, help="Seconds for an operation.")
@shared_among_workers("operations")
def main(
    frameworks: tuple[str, ...], folder: Path, draw: bool, limit: float, workers: int | None, scheduler: str | None
) -> None:
    """Audit, and write the page."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in () if draw else frameworks or FRAMEWORKS:
        path = folder / f"{name}.json"
        try:
            environment: dict[str, str] = getattr(load_backend(name), "environment", dict)()
        except BackendUnavailableError as error:
            click.echo(f"left out: {error}", err=True)
            continue
        before = load(path) if path.exists() else None
        if before is not None and dict(before.environment) != environment:
            before = None  # other versions: from the beginning
        audit(
            name, seconds=limit, before=before, saved=lambda found, path=path: found.save(path),  # type: ignore[misc]
            workers=workers, scheduler=scheduler,
        )  # fmt: skip
    kept = [load(folder / f"{name}.json") for name in FRAMEWORKS if (folder / f"{name}.json").exists()]
    write_text(PAGE, rewritten(PAGE.read_text(encoding="utf-8"), kept))


def asked_of(found: Audit) -> str:
    """Say how many operations of the framework an audit has come to; "" if it is not installed here."""
    try:
        every = len(operations_of(found.framework))
    except BackendUnavailableError:
        return ""
    return f"{len(found.outcomes)} of {every} operations asked: the audit goes on" * (len(found.outcomes) < every)


def rewritten(page: str, audits: list[Audit]) -> str:
    r"""Return the page with these audits between its two comments, and what stands there of other frameworks as it was.

    >>> page = f"a\n{BEGIN}\n\n## torch\n\nold\n\n## jax\n\nkept\n\n{END}\nz\n"
    >>> found = rewritten(page, [Audit("torch")])
    >>> "old" in found, "kept" in found, found.index("## torch") < found.index("## jax"), found.endswith("z\n")
    (False, True, True, True)
    """
    before, _, rest = page.partition(BEGIN)
    made, _, after = rest.partition(END)
    parts = {name: f"## {name}\n{text.rstrip()}\n" for name, text in _sections(made).items()}
    for each in audits:

        def upstream(row: Row, framework: str = each.framework) -> str:
            return reported(framework, row.operation, is_second(row))

        parts[each.framework] = as_markdown(each, upstream, asked=asked_of(each))
    order = [name for name in FRAMEWORKS if name in parts]
    return f"{before}{BEGIN}\n\n{chr(10).join(parts[name] for name in order)}\n{END}{after}"


def _sections(made: str) -> dict[str, str]:
    """Return what stands under the heading of each framework."""
    found = {}
    for name in FRAMEWORKS:
        _, heading, text = made.partition(f"\n## {name}\n")
        if heading:
            ends = [text.find(f"\n## {other}\n") for other in FRAMEWORKS]
            found[name] = text[: min((end for end in ends if end >= 0), default=len(text))]
    return found


if __name__ == "__main__":
    main()

"""Judge right gradients of some hundred programs, of torch and JAX, at random points: none is to be called wrong.

    python -m benchmarks.soundness --points 100                 in this process, some hours; Ctrl-C, and again, goes on
    python -m benchmarks.soundness --points 1e3 --workers 8     by so many processes of this machine
    python -m benchmarks.soundness --scheduler tcp://HOST:8786  by the workers of a Dask cluster, begun with the
                                                                repository in PYTHONPATH: the same code there as here
    python -m benchmarks.soundness --only "jax: gru" --dtype float32 --seed 82   one point again, and what is said there

What was found is kept in .cache/soundness/soundness.json, or the folder of --folder, ten points of a program at a time;
another code begins anew, in another folder.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import click

from gdcompare.cli.options import SIZES, shared_among_workers
from gdcompare.progress import progress_bar
from gdcompare.registry import packages_of
from gdcompare.scale.connection import ClusterError, versions_of
from gdcompare.scale.spread import spread_over
from gdcompare.table import Table
from gdcompare.writing import write_text
from tests.models.sound import Tally, cell, digest, programs, verdict_at

ROOT = Path(__file__).parents[1]
TOGETHER = 10
"""Points of a program that are judged, and kept, together."""

Cells = dict[str, tuple[Any, ...]]


@click.command()
@click.option("--points", type=SIZES, default=(100,), metavar="N", help="Of each program, in each dtype. Default: 100.")
@click.option("--only", default="", metavar="WORDS", help="Programs with this in their names.")
@click.option(
    "--dtype", "dtypes", multiple=True, type=click.Choice(["float64", "float32"]), help="Only this one. Default: both."
)
@click.option("--seed", type=int, help="Judge at this point alone, show what is said of it, and keep nothing.")
@click.option(
    "--folder", type=click.Path(path_type=Path), default=ROOT / ".cache" / "soundness", help="Of what is kept."
)
@shared_among_workers("programs")
def main(
    points: tuple[int, ...],
    only: str,
    dtypes: tuple[str, ...],
    seed: int | None,
    folder: Path,
    workers: int | None,
    scheduler: str | None,
) -> None:
    """Judge, keep, and show."""
    dtypes = dtypes or ("float64", "float32")
    names = [name for name in programs() if only in name]
    if not names:
        raise click.UsageError(f"no program has {only!r} in its name; there are: {', '.join(programs())}")
    if seed is not None:
        for name in names:
            for dtype in dtypes:
                click.echo(f"{name}, {dtype}, seed {seed}:\n{verdict_at(*programs()[name](), seed, dtype)}")
        return
    packages = ["torch", "jax", *packages_of("torch"), *packages_of("jax")]
    kept = Kept(folder / "soundness.json", {"code": digest(), **versions_of(["numpy", *dict.fromkeys(packages)])})
    asked = cells_of(names, dtypes, max(points))
    todo = {key: arguments for key, arguments in asked.items() if key not in kept.tallies}
    failures: Mapping[str, str] = {}
    try:
        with progress_bar(len(todo), None, "judging programs") as advance:

            def done(key: str, answer: Mapping[str, Any]) -> None:
                kept.keep(key, answer)
                advance(1)

            if workers is None and scheduler is None:
                for key, arguments in todo.items():
                    done(key, cell(*arguments))  # type: ignore[arg-type]  # nobody stops it, and the code is this
            elif todo:
                with spread_over(workers, scheduler, packages, most=len(todo)) as cluster:
                    failures = cluster.do(cell, todo, done)
    except ClusterError as error:
        raise click.ClickException(str(error)) from error
    finally:  # also what there is after Ctrl-C
        found = {key: kept.tallies[key] for key in asked if key in kept.tallies}
        for part in shown(found, len(asked)):
            click.echo(part)
    for key, words in failures.items():
        click.echo(f"not judged: {key}: {words}", err=True)
    if failures or any(tally.wrong for tally in found.values()):
        click.get_current_context().exit(1)


class Kept:
    """Tallies in a file, of one code and one set of versions. Raises UsageError for a file of others.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "new" / "soundness.json"
    ...     Kept(path, {"code": "1f"}).keep("a, float64, 0 to 9", {"counts": {"proven agree": 2}})
    ...     [again] = Kept(path, {"code": "1f"}).tallies.values()
    ...     Kept(path, {"code": "2f"})
    Traceback (most recent call last):
    ...
    click.exceptions.UsageError: ... is of other code or versions (code 1f): name a --folder
    >>> again.counts
    {'proven agree': 2}
    """

    def __init__(self, path: Path, about: Mapping[str, str]) -> None:
        self.path, self.about = path, dict(about)
        self.tallies: dict[str, Tally] = {}
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            return
        found = json.loads(path.read_text(encoding="utf-8"))
        other = [f"{name} {found['about'].get(name)}" for name in about if found["about"].get(name) != about[name]]
        if other:
            raise click.UsageError(f"{str(path)!r} is of other code or versions ({', '.join(other)}): name a --folder")
        self.tallies = {key: Tally(**each) for key, each in found["tallies"].items()}

    def keep(self, key: str, tally: Mapping[str, Any]) -> None:
        """Take a tally in, and write the file, whole or not at all."""
        self.tallies[key] = Tally(**tally)
        found = {name: vars(each) for name, each in self.tallies.items()}
        write_text(self.path, json.dumps({"about": self.about, "tallies": found}, indent=1) + "\n")


def cells_of(names: list[str], dtypes: tuple[str, ...], points: int) -> Cells:
    """Return what is judged together, all programs at the first points before any at the next.

    >>> [*cells_of(["a", "b"], ("float64",), 11)]
    ['a, float64, 0 to 9', 'b, float64, 0 to 9', 'a, float64, 10 to 19', 'b, float64, 10 to 19']
    """
    return {
        f"{name}, {dtype}, {first} to {first + TOGETHER - 1}": (name, dtype, first, first + TOGETHER, digest())
        for first in range(0, points, TOGETHER)
        for name in names
        for dtype in dtypes
    }


def shown(tallies: Mapping[str, Tally], of: int) -> Iterator[str]:
    """Yield what is to be said: how many arrays have which verdict, the largest shares, and who was wronged first.

    >>> print(*shown({"a, float64, 0 to 9": Tally({"proven agree": 20}, {"proven": 0.25})}, 1), sep=chr(10))
    Right gradients of 1 program and dtype, at 10 points
                   arrays
     --------------------
     proven agree      20
    largest share of what is allowed: proven 0.25 (a, float64, 0 to 9)
    no right gradient is called wrong
    """
    whole: Tally = reduce(add, tallies.values(), Tally())
    programs_judged = {key.rpartition(", ")[0] for key in tallies}
    each = "s" * (len(programs_judged) != 1)
    points = TOGETHER * len(tallies)
    yield f"Right gradients of {len(programs_judged)} program{each} and dtype{each}, at {points:,} points"
    counts = sorted(whole.counts.items(), key=lambda item: -item[1])
    yield str(Table("", ("", "arrays"), tuple((kind, f"{count:,}") for kind, count in counts)))
    if len(tallies) < of:
        yield f"{of - len(tallies)} of {of} parts are left: the same command goes on"
    shares = []
    for grade in whole.largest:
        key = max(tallies, key=lambda key: tallies[key].largest.get(grade, 0.0))
        shares.append(f"{grade} {whole.largest[grade]:.2g} ({key})")
    if shares:
        yield f"largest share of what is allowed: {', '.join(shares)}"
    wrong = [(key, seed, words) for key, tally in tallies.items() for seed, words in tally.wrong.items()]
    if not wrong:
        yield "no right gradient is called wrong"
        return
    key, seed, words = wrong[0]
    name, dtype, _ = key.rsplit(", ", 2)
    yield f"{len(wrong)} points at which a right gradient is called wrong; the first is {name}, {dtype}, seed {seed}:"
    yield words
    yield f'again: python -m benchmarks.soundness --only "{name}" --dtype {dtype} --seed {seed}'


if __name__ == "__main__":
    main()

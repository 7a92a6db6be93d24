"""A descent on disk goes on to the same last bit, whatever ended the process, and is taken for no other."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gdcompare as gdc
from gdcompare.backend import Backend
from gdcompare.descent import checkpoint
from gdcompare.descent.checkpoint import FILE, CheckpointWarning
from gdcompare.descent.record import Descent
from gdcompare.writing import write_bytes
from tests.cli.running import run

DATA = gdc.datasets.noisy_line()
HOW: dict[str, Any] = {"rule": gdc.rules.adam(0.05), "batch_size": 7, "epochs": 20, "chunk": 11}


def descended(backend: Any, folder: Path | None = None, **how: Any) -> Descent:
    return gdc.descend("linear-regression", DATA, backend, checkpoint=folder, **{**HOW, **how})


def after(chunks: int) -> Callable[[Any], bool]:
    """Return a callback that ends a descent after so many chunks."""
    seen = iter(range(1, 10**6))
    return lambda _: next(seen) == chunks


def assert_same(one: Descent, other: Descent) -> None:
    assert (one.stop_reason, one.steps, one.last_loss) == (other.stop_reason, other.steps, other.last_loss)
    assert np.array_equal(one.history.steps, other.history.steps)
    assert np.array_equal(one.history.losses, other.history.losses)
    for name, path in one.history.parameters.items():
        assert np.array_equal(path, other.history.parameters[name])
        assert np.array_equal(one.parameters[name], other.parameters[name])


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"rule": gdc.rules.momentum(0.01), "batch_size": None, "epochs": 60},
        {"history_every": 3},
        {"target_loss": 1.5},
        {"loss_change": 1e-3, "patience": 2},
        {"gradient_norm": 1e-1},
    ],
    ids=["adam, mini-batches", "momentum, full batch", "every third", "target loss", "loss change", "gradient norm"],
)
def test_what_was_interrupted_goes_on_to_the_same_last_bit(
    how: dict[str, Any], backend: Backend[Any], tmp_path: Path
) -> None:
    whole = descended(backend, **how)

    part = descended(backend, tmp_path, callback=after(2), **how)
    rest = descended(backend, tmp_path, resume=True, **how)
    ended = descended(backend, tmp_path, resume=True, **how)

    assert part.stop_reason == "callback"
    assert part.steps == 22 < whole.steps
    assert_same(rest, whole)
    assert_same(ended, whole)


def test_where_nothing_stands_it_begins(tmp_path: Path) -> None:
    assert_same(descended("numpy", tmp_path / "new" / "folder", resume=True), descended("numpy"))


SCRIPT = """
import os, signal, sys
import gdcompare as gdc
from gdcompare.descent import checkpoint

checkpoint.EVERY, checkpoint._SHARE = 0.0, 0
left = int(sys.argv[2])

def kill(progress):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

gdc.descend("linear-regression", gdc.datasets.noisy_line(), "numpy", gdc.rules.adam(0.05), 7, epochs=20, chunk=11,
            checkpoint=sys.argv[1], resume=True, callback=kill)
"""


@pytest.mark.thorough
def test_a_process_that_is_killed_again_and_again_loses_no_chunk(tmp_path: Path) -> None:
    for chunks in (1, 3, 2):
        killed = subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path), str(chunks)], check=False)  # noqa: S603 - our own
        assert killed.returncode == -signal.SIGKILL

    steps: list[int] = []
    rest = descended("numpy", tmp_path, resume=True, callback=lambda progress: steps.append(progress.step))

    assert steps[0] == 11 * (1 + 3 + 2 + 1)
    assert_same(rest, descended("numpy"))
    assert [each.name for each in tmp_path.iterdir()] == [FILE]


def test_ctrl_c_leaves_what_was_done(tmp_path: Path) -> None:
    def interrupt(progress: Any) -> None:
        if progress.step == 33:
            raise KeyboardInterrupt

    part = descended("numpy", tmp_path, callback=interrupt)
    rest = descended("numpy", tmp_path, resume=True)

    assert (part.stop_reason, part.steps) == ("interrupted", 33)
    assert_same(rest, descended("numpy"))


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """A disk on which there is no room while the list holds True."""
    full = [False]
    really = write_bytes

    def write(path: Any, content: bytes) -> None:
        if full[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        really(path, content)

    monkeypatch.setattr(checkpoint, "write_bytes", write)
    monkeypatch.setattr(checkpoint, "EVERY", 0.0)
    monkeypatch.setattr(checkpoint, "_SHARE", 0)
    return full


def test_a_disk_that_fills_up_ends_no_descent_and_leaves_the_checkpoint_before(
    tmp_path: Path, full_disk: list[bool]
) -> None:
    def fill(progress: Any) -> None:
        full_disk[0] = progress.step >= 33

    with pytest.warns(CheckpointWarning, match="No space left on device; that of before stays") as said:
        found = descended("numpy", tmp_path, callback=fill)
    full_disk[0] = False
    steps: list[int] = []
    rest = descended("numpy", tmp_path, resume=True, callback=lambda progress: steps.append(progress.step))

    assert len(said) == 1
    assert steps[0] == 44
    assert_same(found, descended("numpy"))
    assert_same(rest, found)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"seed": 1}, "seed was 0, and is 1"),
        ({"epochs": 21}, "epochs was 20, and is 21"),
        ({"rule": gdc.rules.sgd(0.01)}, "rule was "),
        ({"start": {"theta_0": 1.0, "theta_1": [0.0]}}, "start was "),
        ({"batch_size": 8}, "batch_size was 7, and is 8"),
    ],
)
def test_another_descent_is_refused(how: dict[str, Any], said: str, tmp_path: Path) -> None:
    descended("numpy", tmp_path, callback=after(1))

    with pytest.raises(ValueError, match=f"of another descent: {said}"):
        descended("numpy", tmp_path, resume=True, **how)


def test_other_data_are_refused(tmp_path: Path) -> None:
    descended("numpy", tmp_path, callback=after(1))
    other = gdc.Dataset(DATA.features, np.nextafter(DATA.targets, 9))

    with pytest.raises(ValueError, match="of another descent: data was "):
        gdc.descend("linear-regression", other, "numpy", checkpoint=tmp_path, resume=True, **HOW)


def test_bad_folders_are_said_before_the_work(tmp_path: Path) -> None:
    descended("numpy", tmp_path / "a", callback=after(1))
    (tmp_path / "file").write_text("")
    whole = (tmp_path / "a" / FILE).read_bytes()
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / FILE).write_bytes(whole[: len(whole) // 2])

    with pytest.raises(ValueError, match=r"a descent stands in .*: resume it \(resume=True, --resume\), or name"):
        descended("numpy", tmp_path / "a")
    with pytest.raises(ValueError, match=r"no checkpoint can be written to .*file"):
        descended("numpy", tmp_path / "file" / "below")
    with pytest.raises(ValueError, match="cannot be read, or is damaged"):
        descended("numpy", tmp_path / "half", resume=True)
    with pytest.raises(ValueError, match="resume=True needs the checkpoint"):
        descended("numpy", resume=True)


def test_the_command_resumes_each_backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    again = "descend linear-regression --backend numpy --epochs 5 --checkpoint kept"

    first = run(again)
    refused = run(again)
    resumed = run(f"{again} --resume")
    alone = run("descend linear-regression --backend numpy --epochs 5 --resume")

    assert (first.exit_code, resumed.exit_code) == (0, 0), first.stderr
    assert Path("kept", "numpy", FILE).exists()
    assert refused.exit_code == alone.exit_code == 2
    assert "a descent stands in 'kept/numpy'" in refused.stderr
    assert "--resume needs the checkpoint" in alone.stderr

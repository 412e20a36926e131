"""What a machine does to a suite: nothing that is finished is lost, and the same command goes on with the rest.

Deaths of workers and of the driver are in `test_local`; here disks, clocks, data, and kills at random moments.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from peftmark.results import RunRecord, Store
from peftmark.tools.chaos import chaos, members

PATIENCE = 90.0


class Suite:
    """A command on toys, in a process of its own, again and again on one results folder."""

    def __init__(self, folder: Path, toys: Path) -> None:
        self.folder = folder
        self.words = ["run", "--method", "toy_full", "--backbone", "toy/pixels", "--import", str(toys)]
        self.words += ["--device", "cpu", "--jobs", "1", "--set", "protocol.epochs=1", "--results", "results"]
        self.started: list[subprocess.Popen[str]] = []

    def start(self, *words: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "peftmark", *self.words, *map(str, words)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        self.started.append(subprocess.Popen(command, cwd=self.folder, start_new_session=True, **pipes))  # type: ignore[call-overload]
        return self.started[-1]

    def end(self, command: subprocess.Popen[str]) -> tuple[int, list[str], str]:
        out, err = command.communicate(timeout=PATIENCE)
        assert "Traceback" not in out + err
        return command.returncode, out.splitlines(), err

    def run(self, *words: object) -> tuple[int, list[str], str]:
        return self.end(self.start(*words))

    def wait_for(self, condition: Callable[[], object]) -> None:
        end = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < end
            time.sleep(0.01)

    def wait_for_a_record(self) -> None:
        self.wait_for(lambda: list((self.folder / "results").glob("*.json")))

    def records(self) -> list[RunRecord]:
        records, problems = Store(self.folder / "results").load()
        assert problems == []
        return records


@pytest.fixture
def suite(tmp_path: Path, toys: Path) -> Iterator[Suite]:
    made = Suite(tmp_path, toys)
    yield made
    for command in made.started:
        for process in members(command.pid):
            os.kill(process, signal.SIGKILL)
        command.communicate()


def seeds(n: int) -> list[str]:
    return [word for seed in range(n) for word in ("--seed", str(seed))]


Mount = Callable[[str], None]


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """Make the results folder a file system of its own, over what was there, or change how large it is."""
    folder = tmp_path / "results"
    folder.mkdir()

    def call(options: str) -> None:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")

    if shutil.which("mount") is None:
        pytest.skip("there is no mount here")
    yield call
    while folder.is_mount():
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk(suite: Suite, mount: Mount, tmp_path: Path) -> None:
    """What fits is kept and whole, the others say what is wrong; with room again the same command makes the rest."""
    mount("size=48k")
    asked = ["--task", "toy/bright", *seeds(16)]
    code, lines, _ = suite.run(*asked)
    kept = {record.run_id: record for record in suite.records()}
    assert code == 1
    assert 1 <= len(kept) < 16
    assert {record.status for record in kept.values()} <= {"ok", "error"}
    assert sum("No space left on device" in line for line in lines) >= 16 - len(kept)
    assert list((tmp_path / "results").rglob("*.tmp")) == []
    mount("remount,size=4m")
    code, lines, err = suite.run(*asked)
    ok = sum(record.status == "ok" for record in kept.values())
    assert (code, err) == (0, "")
    assert lines[-1] == f"{16 - ok} ok; {ok} were finished before; records in results"
    after = {record.run_id: record for record in suite.records()}
    assert len(after) == 16
    assert all(after[run_id] == record for run_id, record in kept.items() if record.status == "ok")


def test_a_results_folder_that_a_file_system_covers(suite: Suite, mount: Mount, tmp_path: Path) -> None:
    """What cannot be written lies over it for a while: the command stops, and goes on when it is gone."""
    asked = ["--task", "toy/bright", *seeds(4), "--set", "method.seconds=1"]
    command = suite.start(*asked)
    suite.wait_for_a_record()
    mount("ro")
    code, _, err = suite.end(command)
    [line] = err.splitlines()
    assert "results" in line
    subprocess.run(["umount", "--lazy", str(tmp_path / "results")], check=True)
    kept = suite.records()
    assert code == 2
    assert 1 <= len(kept) < 4
    code, lines, err = suite.run(*asked)
    assert (code, err, lines[-1]) == (
        0,
        "",
        f"{4 - len(kept)} ok; {len(kept)} were finished before; records in results",
    )
    assert all(record in suite.records() for record in kept)


@pytest.mark.parametrize("then", ["nothing", "another folder", "a file"])
def test_a_results_folder_that_is_moved_away(suite: Suite, tmp_path: Path, then: str) -> None:
    """It is not made anew, and nothing is put into what has taken its place: one line, and the rest is run there."""
    asked = ["--task", "toy/bright", *seeds(4), "--set", "method.seconds=0.7"]
    command = suite.start(*asked)
    suite.wait_for_a_record()
    place, moved = tmp_path / "results", tmp_path / "moved"
    place.rename(moved)
    if then == "another folder":
        place.mkdir()
    elif then == "a file":
        place.write_text("mine")
    code, lines, err = suite.end(command)
    kept = Store(moved).load()[0]
    assert (code, len(err.splitlines())) == (2, 1)
    assert err.startswith(f"peftmark: the results folder {place} was moved, deleted or replaced: nothing more is ")
    assert len(lines) <= len(kept) < 4 and len(kept) >= 1
    assert list(place.rglob("*") if place.is_dir() else []) == [] and place.exists() == (then != "nothing")
    code, lines, err = suite.run(*asked, "--results", "moved")
    ended = f"{4 - len(kept)} ok; {len(kept)} were finished before; records in moved"
    assert (code, lines[-1], err) == (0, ended, "")
    assert all(record in Store(moved).load()[0] for record in kept)


def test_two_drivers_on_one_folder(suite: Suite) -> None:
    """The second one leaves at once, and does the first no harm."""
    first = suite.start("--task", "toy/bright", *seeds(1), "--set", "method.seconds=600")
    suite.wait_for(lambda: len(members(first.pid)) >= 3)  # the driver, its resource tracker and a worker
    code, lines, err = suite.run("--task", "toy/bright", *seeds(2))
    assert (code, lines) == (2, [])
    assert err.startswith("peftmark: another peftmark command is writing to results: wait for it")
    assert (len(members(first.pid)) >= 3, suite.records()) == (True, [])


def test_a_clock_that_jumps(suite: Suite, tmp_path: Path) -> None:
    """By a day whenever it is asked, in the driver and in the workers: no run takes too long."""
    plugin = tmp_path / "jump.py"
    plugin.write_text(
        "import itertools, time\nreal, days = time.time, itertools.count()\n"
        "time.time = lambda: real() + 86_400 * next(days)\n"
    )
    code, lines, err = suite.run("--task", "toy/bright", *seeds(3), "--timeout", 60, "--import", plugin)
    assert (code, lines[-1], err) == (0, "3 ok; records in results", "")


def test_data_that_vanish(suite: Suite, tmp_path: Path) -> None:
    """While a suite is at work: runs on them say so, the others are done; with the data again so are these."""
    for task in ("stays", "stays_too", "goes"):
        for name, color in (("red", (255, 0, 0)), ("blue", (0, 0, 255))):
            (tmp_path / task / name).mkdir(parents=True)
            for number in range(6):
                Image.new("RGB", (8, 8), tuple(min(c + number, 255) for c in color)).save(
                    tmp_path / task / name / f"{number}.png"
                )
    asked = [word for task in ("stays", "stays_too", "goes") for word in ("--task", f"folder/{task}")]
    asked += ["--set", "method.seconds=2"]
    command = suite.start(*asked)
    suite.wait_for_a_record()
    (tmp_path / "goes").rename(tmp_path / "gone")
    code, lines, _ = suite.end(command)
    found = {record.spec.task.name.rpartition("/")[2]: record for record in suite.records()}
    assert code == 1
    assert {task: record.status for task, record in found.items()} == {
        "stays": "ok",
        "stays_too": "ok",
        "goes": "error",
    }
    error = found["goes"].error
    assert error is not None and error.phase == "data"
    assert lines[-1] == "1 error, 2 ok; records in results"
    (tmp_path / "gone").rename(tmp_path / "goes")
    code, lines, _ = suite.run(*asked)
    assert code == 0
    assert lines[-1] == "1 ok; 2 were finished before; records in results"


def test_kills_at_random_moments(tmp_path: Path) -> None:
    """`python -m tools.chaos` does a hundred."""
    report = chaos(tmp_path, kills=5, runs=12, seconds=0.1, jobs=2, pause_s=1.5, seed=1, timeout_s=60)
    assert (report.lost, report.changed, report.unequal, report.problems) == (0, 0, 0, [])
    assert report.kills.total() == 5
    assert report.runs == 12 * report.rounds

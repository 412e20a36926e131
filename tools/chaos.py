"""``python -m tools.chaos``: kill processes of a suite of short runs at random moments, and see what is left.

Workers, the driver or what else they need (multiprocessing's resource tracker; of a Ray its raylet, its agents and
what keeps its books), whichever comes, die by SIGKILL. A driver that died is
started again by the same command, as a user would. What was finished must stay as it is, byte by byte; in the end all
must be there, equal to what an undisturbed suite gives.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import click

from peftmark.errors import PeftmarkError
from peftmark.results import FINISHED, RunRecord, Store, decode_record, predictions_file

PLUGIN = Path(__file__).with_name("noop.py")
PATIENCE = 120.0
"""Seconds without a new record or process after which a suite counts as hung."""


def members(group: int) -> list[int]:
    """The living processes of a process group."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            state, _, its_group = (entry / "stat").read_text().rpartition(")")[2].split()[:3]
        except (OSError, ValueError):
            continue
        if entry.name.isdigit() and int(its_group) == group and state != "Z":
            found.append(int(entry.name))
    return found


@dataclass
class Suite:
    """A suite of short runs in a results folder, and what was seen of it."""

    folder: Path
    runs: int
    seconds: float
    jobs: int
    timeout_s: float | None = None
    launcher: str = "local"
    finished: dict[str, tuple[bytes, int]] = field(default_factory=dict)
    """Content and modification time of every finished record that was ever there."""
    lost: int = 0
    changed: int = 0
    problems: list[str] = field(default_factory=list)

    def start(self) -> subprocess.Popen[str]:
        words = ["run", "--import", str(PLUGIN), "--method", "noop", "--task", "noop/noise"]
        words += ["--backbone", "noop/pixels", "--device", "cpu", "--jobs", str(self.jobs)]
        words += ["--set", f"method.seconds={self.seconds}", "--set", "protocol.epochs=1"]
        words += ["--results", str(self.folder), "--launcher", self.launcher]
        words += ["--timeout", str(self.timeout_s)] if self.timeout_s else []
        words += [word for seed in range(self.runs) for word in ("--seed", str(seed))]
        with (self.folder.parent / f"{self.folder.name}.log").open("a") as log:
            command = [sys.executable, "-m", "peftmark", *words]
            return subprocess.Popen(command, stdout=log, stderr=log, text=True, start_new_session=True)

    def look(self) -> None:
        """Compare what is finished with what was seen to be before."""
        for path in sorted(self.folder.glob("*.json")):
            try:
                stamp, data = path.stat().st_mtime_ns, path.read_bytes()
                record = decode_record(data, path)
            except FileNotFoundError:
                continue  # a failed run's, which is made anew
            except PeftmarkError as error:
                self.problems.append(str(error))
                continue
            if record.status in FINISHED:
                before = self.finished.setdefault(record.run_id, (data, stamp))
                self.changed += before != (data, stamp)
        self.lost += sum(not (self.folder / f"{run_id}.json").exists() for run_id in self.finished)

    def records(self) -> dict[str, RunRecord]:
        found, problems = Store(self.folder).load()
        self.problems += problems
        return {record.run_id: record for record in found}

    def done(self) -> bool:
        """Whether nothing is left to do."""
        return len(self.finished) == self.runs


def disturb(suite: Suite, kills: int, pause_s: float, moments: random.Random) -> Counter[str]:
    """Run a suite to its end and kill up to so many of its processes meanwhile: who was killed, and how often."""
    killed = Counter[str]()
    command, last_change, seen = suite.start(), time.monotonic(), -1
    while not suite.done():
        time.sleep(moments.uniform(0, pause_s))
        suite.look()
        if len(suite.finished) != seen:
            seen, last_change = len(suite.finished), time.monotonic()
        if time.monotonic() - last_change > PATIENCE:
            suite.problems.append(f"nothing happens any more, after {len(suite.finished)} of {suite.runs} runs")
            break
        if command.poll() is not None:
            command, last_change = suite.start(), time.monotonic()  # killed, or some runs failed with their workers
        elif killed.total() < kills and (living := members(command.pid)):
            victim = moments.choice(living)
            killed["driver" if victim == command.pid else "others"] += 1
            try:
                os.kill(victim, signal.SIGKILL)
            except ProcessLookupError:
                continue
    if suite.problems:
        for process in members(command.pid):
            os.kill(process, signal.SIGKILL)
    command.wait()
    suite.look()
    return killed


@dataclass
class Report:
    """What was found, of all rounds."""

    kills: Counter[str] = field(default_factory=Counter)
    rounds: int = 0
    runs: int = 0
    lost: int = 0
    changed: int = 0
    unequal: int = 0
    problems: list[str] = field(default_factory=list)

    def add(self, suite: Suite, killed: Counter[str], undisturbed: dict[str, RunRecord]) -> None:
        records = suite.records()
        self.kills += killed
        self.rounds += 1
        self.runs += len(records)
        self.lost += suite.lost
        self.changed += suite.changed
        self.problems += suite.problems
        self.unequal += len(records.keys() ^ undisturbed.keys())
        self.unequal += sum(_result(record) != _result(undisturbed.get(run_id)) for run_id, record in records.items())
        missing = [r for r in records if not predictions_file(suite.folder / f"{r}.json").exists()]
        self.problems += [f"{run_id} has no predictions" for run_id in missing]
        self.problems += [f"{path} is left" for path in suite.folder.rglob(".*.tmp")]

    def good(self) -> bool:
        return not (self.lost or self.changed or self.unequal or self.problems)

    def lines(self) -> list[str]:
        who = ", ".join(f"{number} of the {name}" for name, number in self.kills.most_common())
        return [
            f"{self.kills.total()} kills ({who}) in {self.rounds} suites, {self.runs} records at the end",
            f"finished records lost: {self.lost}; finished records written again: {self.changed}; "
            f"records that differ from the undisturbed suite's: {self.unequal}; problems: {len(self.problems)}",
            *self.problems,
        ]


def _result(record: RunRecord | None) -> object:
    """All that must be equal to the bit."""
    return record and (record.status, record.quality, record.params, record.storage, record.env.data_sha256)


def chaos(
    folder: Path,
    kills: int,
    runs: int,
    seconds: float,
    jobs: int,
    pause_s: float,
    seed: int,
    timeout_s: float | None,
    launcher: str = "local",
) -> Report:
    """Suites one after another, as long as there are kills left; the undisturbed one is carried out here."""
    moments = random.Random(seed)
    quiet = Suite(folder / "undisturbed", runs, seconds, jobs)
    quiet.start().wait()
    undisturbed, report = quiet.records(), Report()
    while report.kills.total() < kills:
        suite = Suite(folder / f"round{report.rounds}", runs, seconds, jobs, timeout_s, launcher)
        report.add(suite, disturb(suite, kills - report.kills.total(), pause_s, moments), undisturbed)
        if suite.problems:
            break
    return report


@click.command()
@click.option("--kills", type=click.IntRange(min=1), default=100, show_default=True)
@click.option("--runs", type=click.IntRange(min=1), default=200, show_default=True, help="Of a suite.")
@click.option("--seconds", type=float, default=0.2, show_default=True, help="That a run does nothing.")
@click.option("--jobs", type=click.IntRange(min=1), default=2, show_default=True)
@click.option("--pause", "pause_s", type=float, default=3.0, show_default=True, help="The longest between two kills.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the moments and the victims.")
@click.option("--timeout", "timeout_s", type=float, help="As of `peftmark run`.")
@click.option("--launcher", type=click.Choice(["local", "ray"]), default="local", show_default=True)
@click.option("--keep", type=click.Path(path_type=Path), help="Keep results and logs there.")
def main(
    kills: int,
    runs: int,
    seconds: float,
    jobs: int,
    pause_s: float,
    seed: int,
    timeout_s: float | None,
    launcher: str,
    keep: Path | None,
) -> None:
    """Kill, and count what is lost."""
    with tempfile.TemporaryDirectory(prefix="peftmark-chaos-") as folder:
        if keep is not None:
            keep.mkdir(parents=True)
        report = chaos(keep or Path(folder), kills, runs, seconds, jobs, pause_s, seed, timeout_s, launcher)
    for line in report.lines():
        click.echo(line)
    sys.exit(not report.good())


if __name__ == "__main__":
    main()

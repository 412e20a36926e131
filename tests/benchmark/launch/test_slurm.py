"""The slurm launcher: by submitit's local executor, and by a Slurm of one node where it is installed.

Toys import nhouse timm nor open_clip; every command has a process group of its own.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from peftmark.results import RunRecord, Store, decode_record

pytest.importorskip("submitit")

PATIENCE = 90.0
ROOT = Path(__file__).parents[3]


def wait_for(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.05)


def processes(*words: str) -> list[int]:
    """The living processes whose command line has all of the words, oldest first."""
    found = []
    for entry in sorted(filter(str.isdigit, os.listdir("/proc")), key=int):
        try:
            line = Path("/proc", entry, "cmdline").read_bytes().decode()
        except OSError:
            continue
        if all(word in line for word in words):
            found.append(int(entry))
    return found


@dataclass
class House:
    """A results folder, a suite of toys, and the commands that were started on them."""

    folder: Path
    toys: Path
    cluster: str = "local"
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def suite(self, n: int, seconds: float = 0.0, *methods: str) -> None:
        log = f'log = "{self.folder}/log.txt", seconds = {seconds}'
        runs = [*(f'{{ name = "toy_full", tag = "{i}", {log} }}' for i in range(n)), *methods]
        (self.folder / "suite.toml").write_text(
            'description = "Toys"\nprotocol = "embedded-v1"\n[[runs]]\nbackbone = "toy/pixels"\n'
            f'tasks = ["toy/bright"]\nmethods = [{", ".join(runs)}]\n'
        )

    def start(self, *options: str, launcher: str = "slurm", results: str = "results") -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "peftmark", "run", "--suite", "suite.toml", "--results", results]
        command += ["--import", str(self.toys), "--device", "cpu", "--set", "protocol.epochs=1", *options]
        if launcher == "slurm":
            command += ["--launcher", "slurm", "--set", f"launcher.cluster={self.cluster}"]
        process = subprocess.Popen(
            command,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
            env={**os.environ, "COLUMNS": "200"},
        )
        self.started.append(process)
        return process

    def run(self, *options: str, launcher: str = "slurm", results: str = "results") -> list[str]:
        """The lines of a command that has gone well."""
        process = self.start(*options, launcher=launcher, results=results)
        out, err = process.communicate(timeout=PATIENCE)
        assert (process.returncode, err) == (0, "")
        return out.splitlines()

    def log(self) -> list[list[str]]:
        """Tag, event and process of every start and end of a run."""
        path = self.folder / "log.txt"
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []

    def count(self, event: str) -> Counter[str]:
        """How often each run has started, or ended."""
        return Counter(tag for tag, what, _ in self.log() if what == event)

    def records(self, results: str = "results") -> dict[str, RunRecord]:
        found = [decode_record(path.read_bytes(), path) for path in Store(self.folder / results).paths().values()]
        return {record.run_id: record for record in found}

    def slices(self) -> list[int]:
        """The processes that carry out a slice (not the ones that watch or wait for them)."""
        return processes("submitit.core._submit\0", str(self.folder))


def end_all(house: House) -> None:
    for process in house.started:
        process.kill()
        process.communicate()
    for process in processes("submitit", str(house.folder)):
        os.kill(process, signal.SIGKILL)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Iterator[str]:
    """A Slurm of this machine alone where it is installed and can start; elsewhere submitit's local executor."""
    if shutil.which("slurmctld") is None or shutil.which("munged") is None or os.geteuid() != 0:
        yield "local"
        return
    folder = tmp_path_factory.mktemp("one") / "slurm"
    script = str(ROOT / "tools" / "one_node_slurm.sh")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONE_NODE_SLURM", str(folder))
        patch.setenv("ONE_NODE_SLURM_PORT", str(36900 + 2 * int(worker_id.removeprefix("gw").replace("master", "99"))))
        started = subprocess.run([script, "start"], capture_output=True, text=True, check=False)
        if started.returncode:
            warnings.warn(f"no Slurm can be started here: {started.stderr.strip()}", stacklevel=1)
            yield "local"
        else:
            assert started.stdout == f"export SLURM_CONF={folder}/slurm.conf\n"
            patch.setenv("SLURM_CONF", f"{folder}/slurm.conf")
            yield "slurm"
        subprocess.run([script, "stop"], check=True)
    assert processes(str(folder)) == []


@pytest.fixture
def house(tmp_path: Path, toys: Path, cluster: str) -> Iterator[House]:
    house = House(tmp_path, toys, cluster)
    yield house
    end_all(house)


def quality(records: dict[str, RunRecord]) -> dict[str, Any]:
    return {run_id: (record.status, record.quality) for run_id, record in records.items()}


@pytest.mark.parametrize("kind", ["local", "where it can start, slurm"])
def test_the_same_as_the_local_launcher(house: House, kind: str) -> None:
    """To the bit, whatever carries it out; nothing but the records is left behind."""
    if kind == "local":
        house.cluster = "local"
    elif house.cluster == "local":
        pytest.skip("a Slurm of one node needs root, slurmctld, slurmd, slurm-client and munge")
    house.suite(5)
    house.run("--jobs", "1", launcher="local", results="here")
    *lines, last = house.run("--jobs", "1", "--set", "launcher.tasks=2")
    assert [line.split()[0] for line in lines] == [f"[{i}/5]" for i in range(1, 6)]
    assert last == "5 ok; records in results"
    here, there = house.records("here"), house.records()
    assert len(there) == 5
    assert quality(there) == quality(here)
    assert all(record.quality and record.quality.predictions_sha256 for record in there.values())
    assert {record.env.threads for record in there.values()} == {1}
    left = {path.name for path in (house.folder / "results").iterdir() if path.suffix != ".json"}
    assert left == {".lock", "cards", "predictions"}
    assert house.count("start") == {str(tag): 2 for tag in range(5)}


def test_a_slice_is_killed(house: House) -> None:
    """The rest of it is submitted again, what was finished is not."""
    house.suite(5, 0.7)
    command = house.start("--jobs", "1", "--set", "launcher.tasks=1")
    wait_for(lambda: house.count("end")["1"], "two runs")
    wait_for(lambda: len(house.records()) == 2, "their records")
    [process] = house.slices()[-1:]
    os.kill(process, signal.SIGKILL)
    out, err = command.communicate(timeout=PATIENCE)
    assert (command.returncode, err) == (0, "")
    assert out.splitlines()[-1] == "5 ok; records in results"
    assert house.count("end") == {str(tag): 1 for tag in range(5)}
    starts = house.count("start")
    assert (starts["0"], starts["1"], starts["3"], starts["4"]) == (1, 1, 1, 1)


def test_a_driver_is_killed_and_the_next_one_interrupted(house: House) -> None:
    """Jobs outlive ``kill -9``; the same command waits for them, tells of what they do, and submits nothing again.

    Ctrl-C cancels them. Records are kept, and the same command goes on with the rest.
    """
    house.suite(7, 1.5)
    command = house.start("--jobs", "1", "--set", "launcher.tasks=1")
    wait_for(lambda: house.count("end")["0"] and house.records(), "a record")
    command.kill()
    command.wait()  # what it prints to is open as long as jobs of the local executor are there
    own = house.folder / "results" / ".launch"
    jobs = list(own.iterdir())
    assert [job.name.rpartition("-")[0] for job in jobs] == ["peftmark"]

    command = house.start("--jobs", "1", "--set", "launcher.tasks=1")
    assert command.stdout is not None
    assert "toy_full" in command.stdout.readline()
    assert list(own.iterdir()) == jobs
    command.send_signal(signal.SIGINT)
    _, err = command.communicate(timeout=PATIENCE)
    assert command.returncode == 130
    [line] = err.splitlines()
    assert line.endswith("records are kept in results; the same command goes on with the rest")
    assert house.slices() == []
    assert processes("multiprocessing.spawn", str(house.folder)) == []
    assert not own.exists()
    kept, started = house.records(), house.count("start")
    assert 2 <= len(kept) < 7
    assert {record.status for record in kept.values()} == {"ok"}
    assert set(started.values()) == {1}

    last = house.run("--jobs", "2")[-1]
    assert last == f"{7 - len(kept)} ok; {len(kept)} were finished before; records in results"
    assert sum(house.count("end").values()) == 7


def test_a_job_is_requeued(house: House) -> None:
    """On the signal that Slurm sends before it preempts a job or its time is up: the same job goes on with the rest."""
    house.suite(4, 1.5)
    command = house.start("--jobs", "1", "--set", "launcher.tasks=1")
    wait_for(lambda: house.count("end")["0"] and house.records(), "a record")
    wait_for(lambda: house.count("start")["1"], "the next run")
    own = house.folder / "results" / ".launch"
    jobs, first = list(own.iterdir()), {process for _, _, process in house.log()}
    os.kill(house.slices()[-1], signal.SIGUSR2)
    wait_for(lambda: house.count("start")["3"], "the last run")
    assert list(own.iterdir()) == jobs
    out, err = command.communicate(timeout=PATIENCE)
    assert (command.returncode, out.splitlines()[-1], err) == (0, "4 ok; records in results", "")
    assert house.count("start")["0"] == 1
    assert len(first) == 1
    assert len({process for _, _, process in house.log()}) == 2  # workers, each of a job


def test_what_slurm_refuses(house: House) -> None:
    """Its reason, in one line, and nothing is left behind."""
    if house.cluster == "local":
        pytest.skip("a Slurm of one node needs root, slurmctld, slurmd, slurm-client and munge")
    house.suite(1)
    wrong = {
        "launcher.partition=nope": "Slurm does not take the jobs: Batch job submission failed: Invalid partition name "
        "specified",
        "launcher.cpus=512": "Slurm will not start these jobs (PartitionConfig): ask for less, or elsewhere",
    }
    commands = [
        house.start("--jobs", "1", "--set", setting, results=f"results{number}") for number, setting in enumerate(wrong)
    ]
    for command, reason in zip(commands, wrong.values(), strict=True):
        out, err = command.communicate(timeout=PATIENCE)
        assert (command.returncode, out, err) == (2, "", f"peftmark: {reason}\n")
    assert list(house.folder.glob("*/.launch")) == []

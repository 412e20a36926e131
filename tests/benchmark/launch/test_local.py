"""The local launcher through the command line: whatever dies, what is finished stays, and nothing is run twice.

Every test starts real processes, in a process group of their own, on toys that import neither timm nor open_clip.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from peftmark.benchmark.plan.runs import Request, plan
from peftmark.errors import PeftmarkError
from peftmark.results import ErrorInfo, RunRecord, RunSpec, Store, decode_record, read_cards

PATIENCE = 90.0
"""Seconds to wait for what takes two on an idle machine."""


def wait_for(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.02)


def members(group: int) -> list[int]:
    """The living processes of a process group."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            state, _, its_group = (entry / "stat").read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(its_group) == group and state != "Z":
            found.append(int(entry.name))
    return found


@dataclass
class House:
    """A results folder, a suite of toys and the commands that were started on them."""

    folder: Path
    toys: Path
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def store(self) -> Store:
        return Store(self.folder / "results")

    @property
    def log(self) -> list[tuple[str, str, int]]:
        """(tag, event, process) of every start and end of a run."""
        path = self.folder / "log.txt"
        lines = path.read_text().splitlines() if path.exists() else []
        return [(tag, event, int(process)) for tag, event, process in map(str.split, lines)]

    def count(self, event: str) -> Counter[str]:
        return Counter(tag for tag, what, _ in self.log if what == event)

    def suite(self, *methods: str, seconds: float = 0.0, n: int = 0) -> None:
        """`n` runs that log and take their time, with tags 0, 1, …; and what else is given, as TOML."""
        log = f'log = "{self.folder}/log.txt", seconds = {seconds}'
        runs = [f'{{ name = "toy_full", tag = "{i}", {log} }}' for i in range(n)]
        (self.folder / "suite.toml").write_text(
            'description = "Toys"\nprotocol = "embedded-v1"\n[[runs]]\nbackbone = "toy/pixels"\n'
            f'tasks = ["toy/bright"]\nmethods = [{", ".join([*runs, *methods])}]\n'
        )

    def running(self) -> bool:
        return self.count("start") != self.count("end")

    def command(self, *options: str) -> list[str]:
        fixed = ["run", "--suite", "suite.toml", "--results", "results", "--import", str(self.toys), "--device", "cpu"]
        return [*fixed, "--set", "protocol.epochs=1", *options]

    def start(self, *options: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "peftmark", *self.command(*options)]
        process = subprocess.Popen(
            command,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # a shell's background job, which the tests may be, ignores Ctrl-C, and so would what it starts
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
            env={**os.environ, "COLUMNS": "200"},
        )
        self.started.append(process)
        return process

    def run(self, *options: str) -> tuple[int, str, str]:
        return self.end(self.start(*options))

    def end(self, process: subprocess.Popen[str]) -> tuple[int, str, str]:
        out, err = process.communicate(timeout=PATIENCE)
        assert "Traceback" not in out + err
        return process.returncode, out, err

    def records(self) -> dict[str, RunRecord]:
        """By tag or fault; every file is a valid record and there is no half-written one."""
        found = [decode_record(path.read_bytes(), path) for path in self.store.paths().values()]
        by_name = {str(r.spec.method.config["tag"] or r.spec.method.config.get("fault")): r for r in found}
        assert len(by_name) == len(found)
        return by_name

    def files(self) -> dict[str, tuple[bytes, int]]:
        """Content and modification time of each record."""
        return {run_id: (p.read_bytes(), p.stat().st_mtime_ns) for run_id, p in self.store.paths().items()}


@pytest.fixture
def house(tmp_path: Path, toys: Path) -> Iterator[House]:
    house = House(tmp_path, toys)
    yield house
    for process in house.started:
        for member in members(process.pid):
            os.kill(member, signal.SIGKILL)
        process.communicate()


@pytest.fixture
def toys_spec(toy_plugin: Path) -> RunSpec:
    request = Request(methods=["toy_full"], tasks=["toy/bright"], backbones=["toy/pixels"])
    return plan(request).specs[0]


def fault(kind: str) -> str:
    return f'{{ name = "toy_fault", fault = "{kind}" }}'


def test_every_failure_costs_its_own_record_only(house: House) -> None:
    """A worker that dies and a run that takes too long are replaced; the others finish."""
    leaving = "SystemExit", "GeneratorExit", "KeyboardInterrupt"
    house.suite(*map(fault, ("kill", "sleep", "raise", "diverge", "memory", "unsupported", *leaving)), n=3)
    code, out, err = house.run("--jobs", "2", "--timeout", "8")
    assert (code, err) == (1, "")
    records = house.records()
    assert {name: record.status for name, record in records.items()} == {
        **dict.fromkeys("012", "ok"),
        "kill": "error",
        "sleep": "timeout",
        **dict.fromkeys(("raise", *leaving), "error"),
        "diverge": "diverged",
        "memory": "oom",
        "unsupported": "unsupported",
    }
    died, late = records["kill"].error, records["sleep"].error
    assert died is not None
    assert late is not None
    assert (died.phase, died.type) == ("run", "WorkerDied")
    assert "-9" in died.message
    assert (late.type, late.message) == ("TimeoutError", "longer than --timeout 8 s")
    for kind in leaving:
        error = records[kind].error
        assert error is not None and (error.phase, error.type) == ("setup", kind)
        assert error.message.startswith("a toy left (toys.py:")
    *lines, last = out.splitlines()
    assert [line.split()[0] for line in lines] == [f"[{i}/12]" for i in range(1, 13)]
    assert last == "1 diverged, 5 error, 3 ok, 1 oom, 1 timeout, 1 unsupported; records in results"
    assert (house.store.root / "cards" / "methods" / "toy_full.json").is_file()


def test_a_worker_that_dies_after_its_record_is_written_loses_nothing(house: House) -> None:
    house.suite(n=2)
    suite = house.folder / "suite.toml"
    suite.write_text(suite.read_text().replace("toy/bright", "toy/last"))
    code, out, err = house.run("--jobs", "1")
    assert (code, out.splitlines()[-1], err) == (0, "2 ok; records in results", "")
    assert len({process for _, _, process in house.log}) == 2  # each died, after its run
    before = house.files()
    code, out, err = house.run("--jobs", "1", "--existing", "overwrite")
    assert (code, out.splitlines()[-1], err) == (0, "2 ok; records in results", "")
    assert all(after[1] > before[run_id][1] for run_id, after in house.files().items())


def test_existing_records(house: House, invoke: Callable[..., Any]) -> None:
    """By default nothing is run again but what is damaged, which is set aside; ``overwrite`` runs everything.

    Equal specs give equal results, in whatever process.
    """
    house.suite(n=2)
    code, _, err = house.run("--jobs", "1")
    assert (code, err) == (0, "")
    assert len({process for _, _, process in house.log}) == 1  # a worker lives on from run to run
    before = house.files()
    ended = invoke(*house.command())
    assert (ended.code, ended.out, ended.err) == (0, "nothing to run; 2 were finished before; records in results\n", "")
    assert house.files() == before

    damaged, kept = (house.store.root / f"{run_id}.json" for run_id in before)
    damaged.write_bytes(before[damaged.stem][0][:100])
    code, out, err = house.run("--jobs", "1")
    assert (code, out.splitlines()[-1]) == (0, "1 ok; 1 were finished before; records in results")
    aside = f"{damaged.name}.damaged"
    assert err.splitlines() == [f"results/{damaged.name} is damaged: set aside as results/{aside}, run again"]
    assert (house.store.root / aside).read_bytes() == before[damaged.stem][0][:100]
    assert house.files()[kept.stem] == before[kept.stem]
    assert len(house.records()) == 2

    (house.store.root / "mine").mkdir()
    kept = kept.rename(house.store.root / "mine" / kept.name)
    now, first = house.files(), house.records()
    code, out, err = house.run("--jobs", "1", "--existing", "overwrite")
    assert (code, out.splitlines()[-1], err) == (0, "2 ok; records in results", "")
    assert sorted(path for path in house.store.root.rglob("*.json") if path.stem in now) == [damaged, kept]
    assert sorted(house.count("end").values()) == [2, 3]
    assert all(after[1] > now[run_id][1] for run_id, after in house.files().items())
    again = house.records()
    assert all(again[tag].quality == first[tag].quality for tag in first)  # to the bit, in another process


def test_kill_of_everything_then_the_same_command(house: House) -> None:
    """``kill -9`` of the whole tree in the middle of a suite: what is finished is kept, the rest run, none twice."""
    house.suite(n=6, seconds=0.7)
    command = house.start("--jobs", "2")
    wait_for(lambda: len(house.store.paths()) >= 2 and house.running(), "two records, and runs under way")
    os.killpg(command.pid, signal.SIGKILL)
    command.communicate()
    wait_for(lambda: not members(command.pid), "the end of the workers")
    finished, kept = house.records(), house.files()
    assert 2 <= len(finished) < 6
    (house.store.root / ".0123456789abcdef.json.abcdefgh.tmp").write_bytes(b"{")  # what a worker was writing
    ended = house.count("end")

    code, out, err = house.run("--jobs", "2")
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == f"{6 - len(kept)} ok; {len(kept)} were finished before; records in results"
    assert {name: record.status for name, record in house.records().items()} == dict.fromkeys("012345", "ok")
    after = house.files()
    assert {run_id: after[run_id] for run_id in kept} == kept
    assert all(house.count("end")[tag] == ended[tag] for tag in finished)  # not run again
    assert sorted(path.name for path in house.store.root.glob(".*")) == [".lock"]


def test_kill_of_the_parent_alone(house: House) -> None:
    """Workers end by themselves. Until then the folder is held, afterwards it is free for the next command."""
    house.suite(n=4, seconds=60)
    command = house.start("--jobs", "2")
    wait_for(lambda: len(house.count("start")) == 2, "two runs under way")
    with pytest.raises(PeftmarkError, match="another peftmark command is writing"), house.store.lock():
        pass
    command.kill()
    command.communicate()
    start = time.monotonic()
    wait_for(lambda: not members(command.pid), "the end of the workers")
    assert time.monotonic() - start < 10
    assert house.count("end") == {}
    assert house.records() == {}
    with house.store.lock():
        pass


@pytest.mark.parametrize("when", ["at work", "at the start"])
def test_ctrl_c(house: House, when: str) -> None:
    """One line, exit 130, finished records kept, no process left; also while workers are still importing torch."""
    house.suite(n=4, seconds=0.5 if when == "at work" else 60)
    command = house.start("--jobs", "2")
    if when == "at work":
        wait_for(lambda: house.store.paths() and house.running(), "a record, and a run under way")
    else:
        wait_for(lambda: len(members(command.pid)) >= 4, "the parent, its resource tracker and two workers")
        time.sleep(0.3)
    os.killpg(command.pid, signal.SIGINT)
    code, _, err = house.end(command)
    assert code == 130
    kept = house.records()
    [line] = err.splitlines()
    assert line.startswith("interrupted: ")
    assert line.endswith(" records are kept in results; the same command goes on with the rest")
    assert {record.status for record in kept.values()} <= {"ok"}
    assert (len(kept) >= 1) == (when == "at work")
    wait_for(lambda: not members(command.pid), "the end of the workers")


def test_a_plugin_that_fails_in_the_workers_alone(house: House) -> None:
    """Nothing can be run then; the command says so and ends."""
    only_there = "\nimport multiprocessing\nif multiprocessing.parent_process():\n    1 / 0\n"
    house.toys.write_text(house.toys.read_text() + only_there)
    house.suite(n=2)
    code, out, err = house.run("--jobs", "2")
    assert (code, err) == (1, "")
    assert out.count(f"(--import {house.toys}: ZeroDivisionError: division by zero)") == 2
    assert out.splitlines()[-1] == "2 error; records in results"


def test_a_record_that_cannot_be_written_does_not_end_the_others(toys_spec: RunSpec, tmp_path: Path) -> None:
    """A full disk, say, when a worker's death is to be recorded."""
    from peftmark.benchmark.launch.failure import record_failure
    from peftmark.benchmark.launch.outcome import Options

    (tmp_path / "file").write_text("")
    options = Options(tmp_path / "file" / "results", "cpu", 1, None, False, True, ())
    error = ErrorInfo(phase="run", type="TimeoutError", message="too long")
    outcome = record_failure(toys_spec, options, "timeout", error)
    assert (outcome.status, outcome.message) == ("error", "too long; its record cannot be written (Not a directory)")


@pytest.mark.parametrize("writes", [False, True])
def test_a_record_that_was_there_before_is_not_that_of_a_worker_that_died(
    toys_spec: RunSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: bool
) -> None:
    """A run that is done again: the old record counts no more, the new one does where it was written in time."""
    from peftmark.benchmark.launch import local
    from peftmark.benchmark.launch.outcome import Options
    from peftmark.benchmark.run.run import run

    store, record = Store(tmp_path), run(toys_spec, torch.device("cpu"))
    path = store.write(record, tmp_path / "mine" / f"{toys_spec.id}.json")

    def killed(pool: Any, jobs: Any) -> Iterator[Any]:
        for job in jobs:
            if writes:
                store.write(record, job[1])
            yield job, local.Lost("death", "exit code -9")

    monkeypatch.setattr(local.Pool, "run", killed)
    options = Options(tmp_path, "cpu", 1, None, False, True, (), places={toys_spec.id: path})
    [outcome] = local.launch([toys_spec], options)
    [kept] = store.load()[0]
    assert outcome.status == kept.status == ("ok" if writes else "error")
    assert (kept == record) == writes and store.paths()[toys_spec.id] == path


PROFILES = """
description = "Costs"
[[profiles]]
backbones = ["embedded/vit"]
methods = ["linear", "vpt_deep"]
batch_size = 4
num_classes = 3
variants = [{}, { precision = "bfloat16" }]
"""


def test_a_suite_of_profiles_is_run_once(command: Any, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(PROFILES)
    ended = command("run", "--suite", "mine.toml", "--results", "results", "--jobs", 1)
    assert (ended.code, ended.err) == (0, "")
    assert ended.lines[-1] == "4 ok; records in results"
    assert any(
        line.partition("] ")[2].startswith("linear  embedded/vit  batch 4, bfloat16  0.01 GiB") for line in ended.lines
    )
    costs, problems = Store(tmp_path / "results").load_costs()
    assert problems == []
    assert sorted((cost.spec.method.name, cost.spec.precision) for cost in costs) == [
        ("linear", "bfloat16"),
        ("linear", "float32"),
        ("vpt_deep", "bfloat16"),
        ("vpt_deep", "float32"),
    ]
    assert sorted(read_cards(tmp_path / "results", "methods")) == ["linear", "vpt_deep"]
    path = tmp_path / "results" / "costs" / f"{costs[0].cost_id}.json"
    path.write_text("{")
    ended = command("run", "--suite", "mine.toml", "--results", "results", "--jobs", 1)
    assert f"{path.name} is damaged: set aside as" in ended.one_line()
    assert ended.lines[-1] == "1 ok; 3 were finished before; records in results"


def test_a_profile_that_takes_too_long_is_a_record(command: Any, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(PROFILES.replace('["linear", "vpt_deep"]', '["linear"]'))
    ended = command("run", "--suite", "mine.toml", "--results", "results", "--jobs", 1, "--timeout", 0.001)
    assert ended.code == 1
    costs, _ = Store(tmp_path / "results").load_costs()
    assert {cost.status for cost in costs} == {"timeout"}
    assert costs[0].error is not None
    assert costs[0].error.message == "longer than --timeout 0.001 s"

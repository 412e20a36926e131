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
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from peftmark.benchmark.launch import slices, slurm, slurm_jobs
from peftmark.benchmark.launch.outcome import POSTPONED, Options, Outcome
from peftmark.benchmark.launch.slices import Journal, Slice
from peftmark.benchmark.launch.slurm_jobs import Array, Settings, read_settings
from peftmark.benchmark.plan.runs import Request, Spec, plan
from peftmark.errors import PeftmarkError
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


def test_a_time_limit(house: House) -> None:
    """Runs are not started where they would not be finished: none is begun twice, in however many jobs."""
    house.suite(3, 1.5)
    assert house.run("--jobs", "1", "--set", "launcher.time=0.12")[-1] == "3 ok; records in results"
    assert house.count("start") == {str(tag): 1 for tag in range(3)}
    assert len({process for _, _, process in house.log()}) == 2  # workers, each of a job


SETTINGS = {
    "tasks=0": "expected `int` >= 1",
    "time=soon": "expected `float`, got `str`",
    "time=0": "expected `float` > 0.0",
    "gpus=2": "expected `int` <= 1",
    "cluster=cloud": "invalid enum value 'cloud': slurm or local",
    "colour=red": "slurm has no such setting, but cluster, tasks, time, cpus, gpus, memory, partition, account, qos, "
    "constraint, parallel, setup",
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_wrong_settings(invoke: Callable[..., Any], toys: Path, setting: str) -> None:
    command = ["run", "--import", toys, "--method", "toy_full", "--task", "toy/bright", "--backbone", "toy/pixels"]
    ended = invoke(*command, "--results", "results", "--launcher", "slurm", "--set", f"launcher.{setting}")
    name = setting.partition("=")[0] if "colour" in setting else setting
    assert (ended.code, ended.out) == (2, "")
    assert ended.one_line() == f"peftmark: --set launcher.{name}: {SETTINGS[setting]}"


def test_settings_are_as_they_are_given() -> None:
    given = read_settings({"time": 90, "partition": "gpu", "setup": "module load python", "memory": 12})
    assert given == Settings(time=90.0, partition="gpu", setup="module load python", memory=12.0)


def test_nothing_can_be_submitted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(PeftmarkError, match=r"^no sbatch here: start this on a machine that submits to Slurm, or try"):
        slurm.launch([], OPTIONS)
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(PeftmarkError, match=r"^--launcher slurm needs submitit: pip install 'peftmark\[slurm\]'$"):
        slurm.launch([], OPTIONS)


OPTIONS = Options(
    results=Path("nowhere"), device="cpu", jobs=2, timeout_s=None, save_adapters=False, predictions=False, plugins=()
)


@pytest.fixture
def specs(toy_plugin: Path) -> list[Spec]:
    request = Request(methods=["toy_full"], tasks=["toy/bright"], backbones=["toy/pixels"], seeds=range(10))
    return plan(request).specs


def test_how_a_plan_is_dealt() -> None:
    specs: list[Any] = list(range(1710))
    assert [len(each) for each in slurm.deal(specs, None)] == [95] * 18
    assert slurm.deal(specs[:7], 3) == [[0, 1], [2, 3], [4, 5, 6]]
    assert slurm.deal(specs[:2], 5) == [[0], [1]]
    assert slurm.deal([], None) == []
    assert len(slurm.deal(list(range(100_000)), None)) == 256  # type: ignore[arg-type]


@dataclass
class Cluster:
    """Jobs that end one after another as they are told to: what each run of a slice does, and how the job ends."""

    ends: Callable[[list[str]], tuple[int, str]]
    """Of a slice's seeds: how many of its runs are finished, in their order, and the job's state then."""
    root: Path
    submitted: list[list[list[int]]] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    begins: bool = True
    over: dict[tuple[str, int], str] = field(default_factory=dict)

    def submit(self, slices: list[list[Any]], options: Options, settings: Settings) -> Array:
        name = f"peftmark-{len(self.submitted)}"
        self.submitted.append([[spec.seed for spec in each] for each in slices])
        job = slurm_jobs._Job("slurm", [[spec.id for spec in each] for each in slices])
        array = Array(self.root / name, job)
        for index, specs in enumerate(slices):
            array._own(index).mkdir(parents=True)
            finished, state = self.ends([spec.seed for spec in specs])
            if self.begins:
                array.journals[index].open()
            for spec in specs[:finished]:
                array.journals[index].append(Outcome(spec, "ok", None, 1.0, None))
            self.over[name, index] = state
        array.since.write_bytes(b"")
        return array

    def states(self, arrays: list[Array]) -> dict[tuple[str, int], str]:
        return {key: state for key, state in self.over.items() if key[0] in {array.name for array in arrays}}

    def cancel(self, arrays: list[Array]) -> None:
        self.cancelled += [array.name for array in arrays]
        self.over = dict.fromkeys(self.over, "CANCELLED")


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Cluster]:
    def make(ends: Callable[[list[Any]], tuple[int, str]]) -> Cluster:
        cluster = Cluster(ends, tmp_path)
        monkeypatch.setattr(slurm, "_LOOK_S", 0.0)
        monkeypatch.setattr(slurm, "_ASK_S", (0.0, 0.0))
        monkeypatch.setattr(slurm, "check_cluster", lambda settings: None)
        monkeypatch.setattr(slurm.Array, "submit", cluster.submit)
        monkeypatch.setattr(slurm, "states", cluster.states)
        monkeypatch.setattr(slurm, "cancel", cluster.cancel)
        return cluster

    return make


def outcomes(specs: list[Spec], results: Path, jobs: int) -> dict[int, str]:
    told = list(slurm.launch(specs, replace(OPTIONS, results=results, jobs=jobs)))
    assert len(told) == len(specs)  # exactly one each
    return {outcome.spec.seed: outcome.status for outcome in told}  # type: ignore[union-attr]


def test_a_run_that_ends_its_job(specs: list[Spec], fake: Callable[..., Cluster], tmp_path: Path) -> None:
    """It is tried again with the others, then alone, and then given up; the others are carried out."""

    def ends(seeds: list[int]) -> tuple[int, str]:
        return (seeds.index(4), "FAILED") if 4 in seeds else (len(seeds), "COMPLETED")

    cluster = fake(ends)
    assert outcomes(specs, tmp_path / "results", 2) == {**dict.fromkeys(range(10), "ok"), 4: "error"}
    first, second, third, *others = cluster.submitted
    assert (first, second) == ([list(range(10))], [[4, 5, 6, 7, 8, 9]])
    assert third == [[4], [5], [6, 7, 8, 9]]
    assert others == []
    [record] = [decode_record(path.read_bytes(), path) for path in (tmp_path / "results").glob("*.json")]
    assert record.error is not None
    assert (record.spec.seed, record.status, record.error.type) == (4, "error", "JobEnded")
    assert record.error.message.startswith("its job ended (FAILED), again and again: without a word (logs: ")


def test_a_run_that_takes_all_memory(specs: list[Spec], fake: Callable[..., Cluster], tmp_path: Path) -> None:
    """It is tried once more, alone."""

    def ends(seeds: list[int]) -> tuple[int, str]:
        return (seeds.index(4), "OUT_OF_MEMORY") if 4 in seeds else (len(seeds), "COMPLETED")

    cluster = fake(ends)
    assert outcomes(specs, tmp_path / "results", 2) == {**dict.fromkeys(range(10), "ok"), 4: "oom"}
    assert cluster.submitted == [[list(range(10))], [[4], [5], [6, 7, 8, 9]]]


def test_jobs_that_cannot_begin(specs: list[Spec], fake: Callable[..., Cluster], tmp_path: Path) -> None:
    """The slice is submitted four times, then all of its runs are errors."""
    cluster = fake(lambda seeds: (0, "NODE_FAIL"))
    cluster.begins = False
    assert outcomes(specs, tmp_path / "results", 2) == dict.fromkeys(range(10), "error")
    assert cluster.submitted == [[list(range(10))]] * 4


def test_jobs_that_go_on_in_spite_of_all(specs: list[Spec], fake: Callable[..., Cluster], tmp_path: Path) -> None:
    """Preempted again and again, each time after one more run."""
    cluster = fake(lambda seeds: (1, "PREEMPTED"))
    assert outcomes(specs, tmp_path / "results", 1) == dict.fromkeys(range(10), "ok")
    assert cluster.submitted == [[list(range(seed, 10))] for seed in range(10)]


def test_closing_cancels(specs: list[Spec], fake: Callable[..., Cluster], tmp_path: Path) -> None:
    cluster = fake(lambda seeds: (3, "RUNNING"))
    told = slurm.launch(specs, replace(OPTIONS, results=tmp_path / "results"))
    next(told)
    assert cluster.cancelled == []
    told.close()
    assert cluster.cancelled == ["peftmark-0"]


def test_jobs_that_will_never_start(specs: list[Spec], fake: Callable[..., Cluster], tmp_path: Path) -> None:
    """As those that ask for more than a node has: they are cancelled, and the reason is said."""
    cluster = fake(lambda seeds: (0, "PartitionTimeLimit"))
    with pytest.raises(PeftmarkError, match=r"^Slurm will not start these jobs \(PartitionTimeLimit\): ask for less"):
        outcomes(specs, tmp_path / "results", 1)
    assert cluster.cancelled == ["peftmark-0"]


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


class Requeued(Exception):
    pass


@pytest.fixture
def requeues(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The signal that requeues a job is an exception; what a slice handles is as before afterwards."""

    def requeue(*_: Any) -> None:
        raise Requeued

    numbers = (signal.SIGUSR2, signal.SIGTERM, signal.SIGALRM)
    before = {number: signal.getsignal(number) for number in numbers}
    signal.signal(signal.SIGUSR2, requeue)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def made(specs: list[Spec], folder: Path, seconds: float, jobs: int = 1) -> Slice:
    (folder / "since").write_bytes(b"")
    options = replace(OPTIONS, results=folder / "results", jobs=jobs)
    return Slice(specs, options, folder / "journal", folder / "since", seconds)


def test_a_slice_at_its_time_limit(
    specs: list[Spec], tmp_path: Path, requeues: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs are started until the longest so far would not be finished; then the job is requeued with the rest."""
    started = []

    def local(specs: list[Spec], options: Options) -> Generator[Outcome, None, None]:
        assert options.until is not None
        for spec in specs:
            if time.monotonic() > float(options.until.read_text()):
                yield Outcome(spec, POSTPONED, None, 0.0, None)
            else:
                started.append(spec.seed)  # type: ignore[union-attr]
                yield Outcome(spec, "ok", None, 80.0 if len(started) % 3 == 0 else 1.0, None)

    monkeypatch.setattr(slices, "find_launcher", lambda name: local)
    each = made(specs, tmp_path, 80.0)
    with pytest.raises(Requeued):
        each()
    assert started == [0, 1, 2]
    again = each.checkpoint()
    assert again is not None
    assert again.function is each
    with pytest.raises(Requeued):
        again.function()
    assert started == [0, 1, 2, 3, 4, 5]
    assert [line.id for line in Journal(each.journal).new()] == [spec.id for spec in specs[:6]]


def test_a_run_that_is_longer_than_a_job(
    specs: list[Spec], tmp_path: Path, requeues: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It began with the job and did not end in time: that is its record, and the rest is requeued."""

    def local(specs: list[Spec], options: Options) -> Generator[Outcome, None, None]:
        yield Outcome(specs[1], "ok", None, 0.1, None)
        time.sleep(60)

    monkeypatch.setattr(slices, "find_launcher", lambda name: local)
    each = made(specs, tmp_path, 0.3, jobs=2)
    with pytest.raises(Requeued):
        each()
    lines = Journal(each.journal).new()
    assert [(line.id, line.status) for line in lines] == [(specs[1].id, "ok"), (specs[0].id, "timeout")]
    assert lines[1].message == "longer than a job may take: launcher.time is 0.005 minutes"
    [path] = (tmp_path / "results").glob("*.json")
    assert decode_record(path.read_bytes(), path).status == "timeout"
    assert each._unfinished(specs) == specs[2:]


def test_what_a_slice_finds_finished(
    specs: list[Spec], tmp_path: Path, requeues: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What its journal says, and records that are not older than it; others are made anew."""
    from peftmark.benchmark.launch.failure import record_failure
    from peftmark.results import ErrorInfo

    ran = []

    def local(specs: list[Spec], options: Options) -> Generator[Outcome, None, None]:
        ran.extend(spec.seed for spec in specs)  # type: ignore[union-attr]
        yield from (Outcome(spec, "ok", None, 0.1, None) for spec in specs)

    monkeypatch.setattr(slices, "find_launcher", lambda name: local)
    each = made(specs[:4], tmp_path, 60.0)
    error = ErrorInfo(phase="run", type="Some", message="thing")
    for spec in specs[:2]:
        record_failure(spec, each.options, "oom", error)
    old = each.options.place(specs[0])
    os.utime(old, (1, 1))
    Journal(each.journal).append(Outcome(specs[2], "ok", None, 0.1, None))
    with each.journal.open("ab") as stream:
        stream.write(b'{"id": "half')
    each()
    assert ran == [0, 3]
    told = [(line.id, line.status) for line in Journal(each.journal).new()]
    assert told == [(specs[2].id, "ok"), (specs[1].id, "oom"), (specs[0].id, "ok"), (specs[3].id, "ok")]
    assert each.checkpoint() is not None
    each()  # all is finished
    assert ran == [0, 3]
    assert each.checkpoint() is None


def test_a_journal_is_read_as_it_grows(specs: list[Spec], tmp_path: Path) -> None:
    journal, reader = Journal(tmp_path / "journal"), Journal(tmp_path / "journal")
    assert reader.new() == []
    journal.append(Outcome(specs[0], "ok", "93.1", 2.5, "a\nb"))
    with journal.path.open("ab") as stream:
        stream.write(b'{"id":')
    [line] = reader.new()
    assert line.outcome(specs[0]) == Outcome(specs[0], "ok", "93.1", 2.5, "a\nb")
    assert reader.new() == []
    journal.open()
    journal.append(Outcome(specs[1], "ok", None, 1.0, None))
    assert [line.id for line in reader.new()] == [specs[1].id]


def test_temporary_files_of_jobs_are_not_deleted(tmp_path: Path) -> None:
    """A command that takes over running jobs must not take away what they are writing."""
    store, job = Store(tmp_path), tmp_path / ".launch" / "peftmark-1" / "job.json"
    writing = tmp_path / ".0123456789abcdef.json.x1.tmp"
    writing.write_bytes(b"{")
    job.parent.mkdir(parents=True)
    job.write_bytes(b"{}")
    store.remove_temporary_files()
    assert writing.exists()
    assert store.paths() == {}
    job.unlink()
    store.remove_temporary_files()
    assert not writing.exists()

"""What the slurm launcher makes of jobs that end in every way: settings, and a cluster that is made up."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from peftmark.benchmark.launch import slurm, slurm_jobs
from peftmark.benchmark.launch.outcome import Options, Outcome
from peftmark.benchmark.launch.slurm_jobs import Array, Settings, read_settings
from peftmark.benchmark.plan.runs import Request, Spec, plan
from peftmark.errors import PeftmarkError
from peftmark.results import decode_record

pytest.importorskip("submitit")

OPTIONS = Options(
    results=Path("nowhere"), device="cpu", jobs=2, timeout_s=None, save_adapters=False, predictions=False, plugins=()
)


@pytest.fixture
def specs(toy_plugin: Path) -> list[Spec]:
    request = Request(methods=["toy_full"], tasks=["toy/bright"], backbones=["toy/pixels"], seeds=range(10))
    return plan(request).specs


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

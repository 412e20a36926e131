"""The Ray launcher on a cluster of this machine, whose nodes are processes: what it gives is as if run here."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from peftmark.benchmark.launch import ray as launcher
from peftmark.benchmark.launch.launchers import find_launcher
from peftmark.benchmark.launch.outcome import Options, Outcome
from peftmark.benchmark.launch.pool import Lost
from peftmark.benchmark.launch.ray_cluster import connected, import_ray, read_settings
from peftmark.benchmark.launch.ray_node import Sent
from peftmark.benchmark.launch.scratch import Scratch
from peftmark.benchmark.plan.runs import Request, Spec, plan
from peftmark.errors import PeftmarkError
from peftmark.registry import import_file
from peftmark.results import RunRecord, Store, read_cards

try:
    ray = import_ray()
except PeftmarkError as error:
    pytest.skip(str(error), allow_module_level=True)

PATIENCE = 90.0


def wait_for(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A Ray with one node of two CPUs, which knows of this process no more than its address."""
    from ray import cluster_utils

    folder = Scratch(Path("/tmp"))
    settings = {
        "temp_dir": str(folder.path),
        "num_cpus": 2,
        "num_gpus": 0,
        "object_store_memory": 80 * 2**20,
        "include_dashboard": False,
    }
    made = cluster_utils.Cluster(initialize_head=True, head_node_args=settings)
    yield made
    made.shutdown()
    folder.close()


class House:
    """A results folder, and runs of toys that log when they start and end."""

    def __init__(self, folder: Path, toys: Path, address: str) -> None:
        self.folder, self.address = folder, address
        import_file(toys)
        self.options = Options(
            results=folder / "results",
            device="cpu",
            jobs=2,
            timeout_s=None,
            save_adapters=False,
            predictions=True,
            plugins=(str(toys),),
            launcher={"address": address, "scratch": str(folder / "scratch")},
        )

    def toys(self, n: int = 1, method: str = "toy_full", task: str = "toy/bright", **config: Any) -> list[Spec]:
        specs = []
        for tag in range(n):
            tagged = {"tag": str(tag), "log": str(self.folder / "log.txt"), **config}
            request = Request(
                methods=[method],
                tasks=[task],
                backbones=["toy/pixels"],
                method_settings=tagged,
                protocol_settings={"epochs": 1},
            )
            specs += plan(request).specs
        return specs

    @property
    def log(self) -> list[tuple[str, str, int]]:
        """(tag, event, process) of every start and end of a run."""
        path = self.folder / "log.txt"
        lines = path.read_text().splitlines() if path.exists() else []
        return [(tag, event, int(process)) for tag, event, process in map(str.split, lines)]

    def count(self, event: str) -> Counter[str]:
        return Counter(tag for tag, what, _ in self.log if what == event)

    def processes(self) -> set[int]:
        return {process for _, _, process in self.log}

    def ray(self, specs: list[Spec], **changes: Any) -> list[Outcome]:
        return list(find_launcher("ray")(specs, replace(self.options, **changes)))

    def cluster_lives(self) -> bool:
        with connected(read_settings(self.options.launcher), 1) as found:
            return found.slots() >= 2

    def records(self, results: Path | None = None) -> dict[str, RunRecord]:
        records, problems = Store(results or self.options.results).load()
        assert problems == []
        return {record.run_id: record for record in records}


@pytest.fixture
def house(tmp_path: Path, registries: None, toys: Path, cluster: Any) -> House:
    return House(tmp_path, toys, cluster.address)


def running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_the_same_as_here_and_every_failure_costs_its_own_record_only(house: House) -> None:
    """Bit for bit; each spec has one outcome. What died was tried again once, what took too long was not."""
    good = house.toys(4)
    kinds = ("sleep", "kill", "raise", "memory", "unsupported", "KeyboardInterrupt")
    bad = {kind: house.toys(method="toy_fault", fault=kind, tag=kind)[0] for kind in kinds}
    [gone] = house.toys(task="toy/gone", tag="gone")
    here = replace(house.options, results=house.folder / "here", launcher={})
    assert [outcome.status for outcome in find_launcher("local")(good, here)] == ["ok"] * 4
    house.folder.joinpath("log.txt").unlink()
    specs = [*bad.values(), gone, *good]  # the one that sleeps does so all the while
    moved = house.options.results / "old" / f"{good[0].id}.json"
    stale = house.options.results / "predictions" / f"{gone.id}.npz"  # of a record that is made anew
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b"")
    outcomes = house.ray(specs, timeout_s=15.0, places={good[0].id: moved})
    assert sorted(outcome.spec.id for outcome in outcomes) == sorted(spec.id for spec in specs)
    assert not stale.exists()

    local, records = house.records(here.results), house.records()
    assert {outcome.spec.id: outcome.status for outcome in outcomes} == {k: r.status for k, r in records.items()}
    assert records.keys() == {spec.id for spec in specs}
    for spec in good:
        mine, other = records[spec.id], local[spec.id]
        assert mine.quality is not None, mine.error
        assert (mine.quality, mine.env) == (other.quality, other.env)  # predictions_sha256, the commit, threads: all
    assert moved.exists()
    for folder in ("old/predictions/", "predictions/"):
        mine_files = sorted(house.options.results.joinpath(folder).iterdir())
        assert [path.stem for path in mine_files] == sorted(
            spec.id for spec in good if (spec is good[0]) == folder.startswith("old")
        )
        for path in mine_files:
            assert path.read_bytes() == (here.results / "predictions" / path.name).read_bytes()
    for kind in ("methods", "backbones", "tasks"):
        mine_cards, other_cards = (read_cards(root, kind) for root in (house.options.results, here.results))  # type: ignore[arg-type]
        assert other_cards == {name: mine_cards[name] for name in other_cards}

    assert {kind: records[spec.id].status for kind, spec in bad.items()} == {
        "kill": "error",
        "sleep": "timeout",
        "raise": "error",
        "memory": "oom",
        "unsupported": "unsupported",
        "KeyboardInterrupt": "error",
    }
    errors = {kind: records[spec.id].error for kind, spec in bad.items()}
    assert errors["kill"] is not None and errors["kill"].type == "WorkerDied"
    assert errors["kill"].message.startswith("its worker ended by itself 2 times (")
    assert errors["sleep"] is not None and errors["sleep"].message == "longer than --timeout 15 s"
    missing = records[gone.id].error
    assert missing is not None
    assert (records[gone.id].status, missing.phase, missing.type) == ("error", "data", "FileNotFoundError")
    assert house.count("start") == {**dict.fromkeys("0123", 1), "sleep": 1, "kill": 2}
    # workers live on; two of them were there at a time, and three were replaced
    assert len(house.processes()) <= 2 + 3
    # of what they had on their disk, cards alone are left until the next one comes
    left = {path.parent.parent.name for path in house.folder.glob("scratch/**/*") if path.is_file()}
    assert left <= {"cards", "scratch"}, left


def test_a_node_that_joins_is_used_and_one_that_is_lost_costs_nothing(house: House, cluster: Any) -> None:
    """The plug-in is shipped: when workers look for its file it is gone."""
    [plugin] = house.options.plugins
    specs = house.toys(12, seconds=1.5)
    joined, lost = None, False
    outcomes = []
    with closing(find_launcher("ray")(specs, house.options)) as launched:
        for outcome in launched:
            outcomes.append(outcome)
            if joined is None:
                Path(plugin).unlink()
                here = house.processes()
                joined = cluster.add_node(num_cpus=1, num_gpus=0, object_store_memory=80 * 2**20)
            elif (
                not lost and (there := [line for line in house.log if line[2] not in here]) and there[-1][1] == "start"
            ):
                cluster.remove_node(joined, allow_graceful=False)
                lost = True
    assert lost, "no run was under way on the node that joined"
    assert len(here) == 2
    assert [outcome.status for outcome in outcomes] == ["ok"] * 12
    started = house.count("start")
    assert started.keys() == house.count("end").keys() == set(map(str, range(12)))
    assert sum(started.values()) <= 12 + 1
    assert len(house.records()) == 12


def test_closing_ends_the_workers_and_not_the_cluster(house: House) -> None:
    launched = find_launcher("ray")(house.toys(3) + house.toys(2, seconds=600.0), house.options)
    done = [next(launched) for _ in range(3)]
    wait_for(lambda: sum(house.count("start").values()) == 5, "the long runs")
    assert all(map(running, house.processes()))
    launched.close()
    wait_for(lambda: not any(map(running, house.processes())), "the end of the workers")
    assert house.records().keys() == {outcome.spec.id for outcome in done}
    assert not ray.is_initialized()
    assert house.cluster_lives()


def test_a_ray_of_its_own_ends_with_the_command(toys: Path, tmp_path: Path) -> None:
    """Its driver is killed; the same command does the rest, until Ctrl-C. Nothing but its lines is printed."""
    log = tmp_path / "log.txt"
    words = ["run", "--launcher", "ray", "--method", "toy_full", "--backbone", "toy/pixels", "--task", "toy/bright"]
    words += ["--import", str(toys), "--device", "cpu", "--jobs", "1", "--set", "protocol.epochs=1"]
    words += [word for seed in range(9) for word in ("--seed", str(seed))]
    words += ["--set", "method.seconds=0.7", "--set", f"method.log={log}", "--results", "results"]

    def interrupted(by: signal.Signals) -> tuple[int, list[str], str]:
        """When a first record is there and another run is under way."""
        before, started = records(), starts()
        command = subprocess.Popen(
            [sys.executable, "-m", "peftmark", *words],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "HOME": str(tmp_path)},  # Ray keeps a token there
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        try:
            wait_for(lambda: records() > before and starts() >= started + 2, "a record")
            worker = int(log.read_text().split()[-1])
            assert running(worker)
            command.send_signal(by)
            out, err = command.communicate(timeout=PATIENCE)
        finally:
            command.kill()
        wait_for(lambda: not running(worker), "the end of its worker")
        return command.returncode, out.splitlines(), err

    def records() -> int:
        return len(list((tmp_path / "results").glob("*.json")))

    def starts() -> int:
        return log.read_text().count("start") if log.exists() else 0

    code, _, err = interrupted(signal.SIGKILL)
    assert (code, err) == (-9, "")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "results").glob("*.json")}
    code, lines, err = interrupted(signal.SIGINT)
    told = len(lines)  # a record that was just written perhaps is not yet told
    assert (code, records() - len(before) - told in (0, 1)) == (130, True)
    assert err == f"interrupted: {told} records are kept in results; the same command goes on with the rest\n"
    assert [line.split()[0] for line in lines] == [f"[{i + 1}/{9 - len(before)}]" for i in range(told)]
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in before.items())


def test_mistakes_are_one_line(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    specs = house.toys()
    known = "address, cpus, gpus, memory, workers, data, scratch, wait"
    for wrong, message in (
        ({"adress": "auto"}, f"--set launcher.adress: ray has no such setting, but {known}"),
        ({"cpus": "two"}, "--set launcher.cpus=two: expected `float`, got `str`"),
        ({"cpus": 0}, "--set launcher.cpus=0: expected `float` > 0.0"),
        ({"gpus": 2}, "--set launcher.gpus=2: a run uses one GPU at most"),
        ({"address": "ray://x:1"}, "--set launcher.address=ray://x:1: auto or HOST:PORT of a Ray; start this on one"),
        ({"address": "127.0.0.1:1"}, "--set launcher.address=127.0.0.1:1: no Ray there ("),
        (
            {"address": house.address, "gpus": 0.5},
            "no node has room for a worker (CPU 1, GPU 0.5): this Ray has 2 CPUs and 0 GPUs on 1 node; where",
        ),
    ):
        with pytest.raises(PeftmarkError) as raised:
            house.ray(specs, launcher=wrong)
        assert str(raised.value).startswith(message)
        assert "\n" not in str(raised.value)
    with pytest.raises(
        PeftmarkError, match=r"^--device cuda:1: which GPU a run has is Ray's to say; leave the number out"
    ):
        house.ray(specs, device="cuda:1")
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(PeftmarkError, match=r"^--launcher ray needs Ray: pip install 'peftmark\[ray\]'$"):
        house.ray(specs)
    assert not house.options.results.exists()


@pytest.mark.parametrize(
    ("cause", "tries", "status", "kind"),
    [("memory", 2, "oom", "OutOfMemoryError"), ("node", 4, "error", "NodeDied"), ("worker", 2, "error", "WorkerDied")],
)
def test_how_often_a_run_is_tried(
    cause: Any, tries: int, status: str, kind: str, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pool, all of whose workers are lost for one reason."""
    lost = Counter[str]()

    class Pool(launcher.Pool):
        def _start(self, place: Any) -> None: ...

        def run(self, jobs: Any) -> Any:
            self._waiting.extend(jobs)
            while self._waiting:
                job = self._waiting.popleft()
                job.cause = cause
                lost[job.spec.id] += 1
                yield job, Lost("death", "it was so")

    monkeypatch.setattr(launcher, "Pool", Pool)
    [spec] = house.toys()
    [outcome] = house.ray([spec])
    assert (lost[spec.id], outcome.status) == (tries, status)
    error = house.records()[spec.id].error
    assert error is not None
    assert error.type == kind
    assert "it was so" in error.message


def test_what_a_node_cannot_record_the_driver_does(house: House) -> None:
    [spec] = house.toys()
    broken = Outcome(spec=spec, status="error", figure=None, seconds=0.0, message="--import toys.py: no module 'x'")
    told = launcher.receive(Sent(broken, {}), house.options)
    error = house.records()[spec.id].error
    assert error is not None
    assert (told.status, error.type, error.message) == ("error", "NodeError", "--import toys.py: no module 'x'")


VISIBLE = """
import os, time
from dataclasses import dataclass
from pathlib import Path
from peftmark import METHODS, Method

@METHODS.register("visible", family="toys", tracks=("image",))
@dataclass
class Visible(Method):
    folder: str = ""

    def adapt(self, anatomy):
        Path(self.folder, str(os.getpid())).write_text(os.environ["CUDA_VISIBLE_DEVICES"])
        end = time.monotonic() + 60
        while len(os.listdir(self.folder)) < 2 and time.monotonic() < end:
            time.sleep(0.05)
        raise RuntimeError("no GPU is there in truth")
"""


def test_two_workers_share_a_gpu(house: House, cluster: Any, tmp_path: Path) -> None:
    """Each sees the one that Ray gave it, and no other."""
    plugin, folder = tmp_path / "visible.py", tmp_path / "seen"
    folder.mkdir()
    plugin.write_text(VISIBLE)
    import_file(plugin)
    request = Request(
        methods=["visible"],
        backbones=["toy/pixels"],
        tasks=["toy/bright"],
        seeds=range(2),
        method_settings={"folder": str(folder)},
    )
    node = cluster.add_node(num_cpus=2, num_gpus=1, object_store_memory=80 * 2**20)
    try:
        settings = {**house.options.launcher, "gpus": 0.5, "cpus": 0.5}
        outcomes = house.ray(plan(request).specs, plugins=(*house.options.plugins, str(plugin)), launcher=settings)
    finally:
        cluster.remove_node(node)
    assert [outcome.status for outcome in outcomes] == ["error"] * 2
    assert [path.read_text() for path in folder.iterdir()] == ["0", "0"]


def test_a_run_whose_files_cannot_be_written_is_told(house: House) -> None:
    [spec] = house.toys()
    house.options.results.write_text("not a folder")
    outcome = Outcome(spec=spec, status="ok", figure="50.0", seconds=1.0, message=None)
    told = launcher.receive(Sent(outcome, {f"{spec.id}.json": b"{}"}), house.options)
    assert (told.status, told.figure) == ("error", None)
    assert told.message is not None and told.message.startswith("it cannot be written: ")

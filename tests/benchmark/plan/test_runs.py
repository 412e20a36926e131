"""From a request to run specs, and what of them remains to be done."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from peftmark import SUITES
from peftmark.benchmark.plan import runs, specs
from peftmark.benchmark.plan.runs import Request, plan
from peftmark.benchmark.plan.state import EXISTING, plan_state
from peftmark.benchmark.run.run import failed_record
from peftmark.errors import PeftmarkError
from peftmark.results import FINISHED, ErrorInfo, RunSpec, Store, encode_record

SUITE = """
description = "Mine"
protocol = "embedded-v1"
seeds = [0, 1]

[[runs]]
backbone = "toy/pixels"
tasks = ["toy/bright", "toy/bright_too"]
methods = ["toy_full", { name = "toy_full", tag = "b" }]

[[runs]]
backbone = "toy/pixels"
tasks = ["toy/clips"]
methods = ["toy_full"]
"""


@pytest.fixture
def suite(toy_plugin: Path, tmp_path: Path) -> str:
    path = tmp_path / "mine.toml"
    path.write_text(SUITE)
    return str(path)


Ask = Callable[..., list[RunSpec]]


@pytest.fixture
def toys_asked(toy_plugin: Path) -> Ask:
    """Plans of toys, without a suite."""

    def ask(**changes: Any) -> list[RunSpec]:
        request = {"methods": ["toy_full"], "backbones": ["toy/pixels"], "tasks": ["toy/bright"], **changes}
        return plan(Request(**request)).specs

    return ask


def short(specs: list[RunSpec]) -> list[tuple[str, str, str, int]]:
    return [(spec.method.name, str(spec.method.config.get("tag", "")), spec.task.name, spec.seed) for spec in specs]


def test_a_spec_holds_everything(toys_asked: Ask) -> None:
    [spec] = toys_asked(seeds=[7])
    assert (spec.method.name, spec.method.version) == ("toy_full", 1)
    assert spec.method.config == {"log": "", "tag": "", "seconds": 0.0}  # defaults too
    assert (spec.backbone.name, spec.backbone.weights) == ("toy/pixels", "random")
    assert (spec.task.name, spec.task.version, spec.task.split_sha256) == ("toy/bright", 1, "0" * 64)
    assert (spec.protocol.name, spec.protocol.version, spec.protocol.overrides) == ("embedded", 1, {})
    assert (spec.trial, spec.seed) == (0, 7)


def test_selections_are_crossed_once(toys_asked: Ask) -> None:
    specs = toys_asked(
        methods=["toy_full", "toys/*", "toy_full"], tasks=["toy/bright", "toy/bright*"], backbones=["toy/pixels"] * 2
    )
    names = ["toy_fault", "toy_full", "toy_looks_last", "toy_phases"]
    assert sorted({spec.method.name for spec in specs}) == names
    assert len(specs) == len({spec.run_id for spec in specs}) == 8


def test_a_suite_in_its_order(suite: str) -> None:
    assert short(plan(Request(suite=suite)).specs) == [
        ("toy_full", tag, task, seed)
        for seed in (0, 1)
        for task, tags in (("toy/bright", ("", "b")), ("toy/bright_too", ("", "b")), ("toy/clips", ("",)))
        for tag in tags
    ]


def test_seeds_replace_the_suite_s(suite: str) -> None:
    assert {spec.seed for spec in plan(Request(suite=suite, seeds=[5, 5])).specs} == {5}


def test_tasks_narrow_a_suite(suite: str) -> None:
    specs = plan(Request(suite=suite, tasks=["toy/bright_too"], seeds=[0])).specs
    assert short(specs) == [("toy_full", "", "toy/bright_too", 0), ("toy_full", "b", "toy/bright_too", 0)]
    with pytest.raises(PeftmarkError, match=r"suite .*mine\.toml has no task embedded/digits"):
        plan(Request(suite=suite, tasks=["embedded/digits"]))


def test_methods_select_from_a_suite_with_the_suite_s_settings(suite: str) -> None:
    specs = plan(Request(suite=suite, methods=["toy_full"], tasks=["toy/bright"], seeds=[0])).specs
    assert short(specs) == [("toy_full", "", "toy/bright", 0), ("toy_full", "b", "toy/bright", 0)]


def test_a_method_that_is_not_in_the_suite_runs_on_the_tasks_of_its_track(suite: str) -> None:
    specs = plan(Request(suite=suite, methods=["toy_fault"], seeds=[0])).specs
    assert short(specs) == [("toy_fault", "", "toy/bright", 0), ("toy_fault", "", "toy/bright_too", 0)]


def test_nothing_selected_says_why(suite: str) -> None:
    with pytest.raises(PeftmarkError, match=r"toy_fault cannot do toy/clips"):
        plan(Request(suite=suite, methods=["toy_fault"], tasks=["toy/clips"]))


def test_a_backbone_replaces_the_suite_s(suite: str) -> None:
    specs = plan(Request(suite=suite, backbones=["test_vit"], methods=["scratch"], seeds=[0])).specs
    assert {(spec.backbone.name, spec.backbone.weights) for spec in specs} == {("timm/test_vit", "random")}
    assert {spec.task.name for spec in specs} == {"toy/bright", "toy/bright_too", "toy/clips"}


def test_a_checkpoint_is_named_by_its_hash(toy_plugin: Path, checkpoint: Path) -> None:
    asked = Request(methods=["linear", "scratch"], backbones=[f"embedded/vit@{checkpoint}"], tasks=["toy/bright"])
    made = plan(asked)
    linear, scratch = made.specs
    sha = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert (linear.backbone.name, linear.backbone.weights) == ("embedded/vit", sha)
    assert (scratch.backbone.name, scratch.backbone.weights) == ("embedded/vit", "random")
    assert made.checkpoints == {sha: checkpoint.resolve()}


def test_only_changed_settings_are_deviations(toys_asked: Ask) -> None:
    [plain] = toys_asked()
    [same] = toys_asked(protocol_settings={"epochs": "15", "warmup_epochs": 2})
    [changed] = toys_asked(protocol_settings={"epochs": "2", "weight_decay": 1})
    assert same == plain
    assert changed.protocol.overrides == {"epochs": 2, "weight_decay": 1.0}
    assert changed.run_id != plain.run_id


def test_a_setting_has_the_type_of_its_field(toys_asked: Ask) -> None:
    [one] = toys_asked(method_settings={"seconds": 1})
    [text] = toys_asked(method_settings={"seconds": "1.0"})
    assert one == text
    assert one.run_id == text.run_id
    assert isinstance(one.method.config["seconds"], float)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": []}, "give at least one each of --method, --backbone and --task"),
        ({"tasks": []}, "give at least one each of --method, --backbone and --task"),
        ({"backbones": []}, "give at least one each of --method, --backbone and --task"),
        ({"methods": ["toy_ful"]}, "unknown method 'toy_ful': did you mean toy_full"),
        ({"tasks": ["toy/brigt"]}, "unknown task 'toy/brigt': did you mean toy/bright"),
        ({"backbones": ["toy/pixel"]}, "unknown backbone 'toy/pixel'"),
        ({"backbones": ["toy/pixels@nowhere"]}, "no checkpoint file nowhere: "),
        (
            {"method_settings": {"secnods": 1}},
            "has no hyper-parameter 'secnods': did you mean seconds?",
        ),
        ({"method_settings": {"seconds": "long"}}, "method 'toy_full': seconds='long' is not valid: "),
        ({"method_settings": {"seconds": float("nan")}}, "method 'toy_full'"),
        ({"protocol_settings": {"epocs": 1}}, "has no setting 'epocs': did you mean epochs?"),
        ({"protocol_settings": {"learning_rate": float("inf")}}, "learning_rate"),
        ({"protocol": "nothing"}, "unknown protocol 'nothing'"),
        ({"suite": "embeded"}, "unknown suite 'embeded': did you mean embedded"),
    ],
)
def test_a_request_that_cannot_be_planned(toys_asked: Ask, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(PeftmarkError) as error:
        toys_asked(**changes)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", list(SUITES))
def test_every_shipped_suite_plans(name: str, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With made-up weights in place of the shipped ones; runs whose data or weights are not here are counted."""
    from peftmark.backbones.embedded import builder as embedded_backbone

    monkeypatch.setattr(embedded_backbone, "WEIGHTS", checkpoint)
    made = plan(Request(suite=name, partial=True))
    runs = [spec for spec in made.specs if isinstance(spec, RunSpec)]
    trials = sum(count for wanted, count in made.wanted.items() if wanted.stage == "trial")
    budget = SUITES[name].tuning
    each = len(SUITES[name].seeds) if budget is None else 13 + 3 * 3  # 15 trials in 3 studies, 3 seeds of each's choice
    assert made.wanted.total() == len(SUITES[name].pairs()) * each
    assert len(runs) == (trials or made.wanted.total()) or made.absent
    assert not (name.startswith("embedded") and made.absent)
    assert len(made.specs) - len(runs) == sum(
        len(block.backbones) * len(block.selected()) * len(block.variants) for block in SUITES[name].profiles
    )
    assert made.checkpoints == {}
    if name == "embedded":  # a task's data are generated once
        tasks = [spec.task.name for spec in runs]
        assert tasks == sorted(tasks, key=tasks.index)


def fail(spec: RunSpec, status: str) -> bytes:
    import torch

    error = ErrorInfo(phase="train", type="X", message="x")
    return encode_record(failed_record(spec, torch.device("cpu"), status, error))


@pytest.mark.parametrize("existing", EXISTING)
@pytest.mark.parametrize("status", ["unsupported", "oom", "diverged", "timeout", "error", "cancelled"])
def test_what_counts_as_finished(toys_asked: Ask, tmp_path: Path, existing: str, status: str) -> None:
    specs = toys_asked(seeds=[0, 1])
    store = Store(tmp_path / "results")
    store.root.mkdir()
    (store.root / f"{specs[0].run_id}.json").write_bytes(fail(specs[0], status))
    state = plan_state(specs, store, existing)
    finished = existing == "skip" and status in {"unsupported", "oom", "diverged", "timeout"}
    assert state.todo == specs[1:] if finished else specs
    assert dict(state.done) == ({status: 1} if finished else {})
    assert state.damaged == []
    assert (status in FINISHED) == (status not in ("error", "cancelled"))


def test_what_seeds_share_is_found_out_once(suite: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan of 10,000 runs makes as many methods, and reads as many protocols, as one of a hundred."""
    counts: Counter[str] = Counter()

    def counted(name: str) -> None:
        for module in (runs, specs):
            call = getattr(module, name, None)
            if call is not None:
                watched = lambda *given, call=call: (counts.update([name]), call(*given))[1]  # noqa: E731
                monkeypatch.setattr(module, name, watched)

    for name in ("make_method", "load_protocol", "make_task", "find_backbone"):
        counted(name)
    assert len(plan(Request(suite=suite, seeds=[0])).specs) == 5
    once = Counter(counts)
    counts.clear()
    assert len(plan(Request(suite=suite, seeds=range(20))).specs) == 100
    assert counts == once
    assert once["make_method"] == 2  # toy_full, and toy_full with a tag


def test_planning_imports_none_of_the_libraries_that_models_are_built_from() -> None:
    """A command with nothing to run takes as long as what it imports: each of these takes as long again as torch."""
    code = """
        import sys
        from peftmark.benchmark.plan.runs import Request, plan
        assert any("noah" == spec.method.name for spec in plan(Request(suite="embedded-full")).specs)
        print(sorted({"timm", "torchvision", "open_clip", "transformers", "sklearn", "pandas"} & set(sys.modules)))
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize("existing", EXISTING)
def test_damaged_records_are_run_again(toys_asked: Ask, tmp_path: Path, existing: str) -> None:
    specs = toys_asked(seeds=[0, 1, 2])
    store = Store(tmp_path / "results")
    (store.root / f"{specs[1].run_id}.json").mkdir(parents=True)
    (store.root / f"{specs[0].run_id}.json").write_bytes(b"{")
    (store.root / f"{specs[2].run_id}.json").write_bytes(fail(specs[1], "oom"))  # a whole record of another run
    state = plan_state(specs, store, existing)
    assert state.todo == specs
    assert state.damaged == [store.root / f"{spec.run_id}.json" for spec in specs]
    assert not state.done

"""Faithful presets: the shipped files, and what a plan makes of one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from peftmark import METHODS
from peftmark.benchmark.plan import preset as presets
from peftmark.benchmark.plan.preset import CHANGED, load_presets
from peftmark.benchmark.plan.protocol import load_protocol, protocol_of
from peftmark.benchmark.plan.runs import Request, plan
from peftmark.benchmark.run.run import run
from peftmark.errors import PeftmarkError
from peftmark.methods import make_method
from peftmark.results import FAITHFUL, decode_record

TOY = """
method = "toy_full"
paper = "A paper"
repository = "a/b"
commit = "0000000000000000000000000000000000000000"
files = ["train.py"]
not_expressed = ["random crops", "drop path"]

[[recipes]]
tasks = ["toy/bright"]
protocol = { epochs = 1, batch_size = 8, learning_rate = 0.5 }
config = { tag = "paper" }

[[recipes]]
tasks = ["toy/bright*"]
protocol = { epochs = 2 }

[recipes.by_task]
"toy/bright_too" = { protocol = { learning_rate = 0.25 }, config = { tag = "too" } }
"""


@pytest.fixture
def toy_preset(toy_plugin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    path = tmp_path / "presets" / "toy_full.toml"
    path.parent.mkdir()
    path.write_text(TOY)
    monkeypatch.setattr(presets, "PRESETS", path.parent)
    load_presets.cache_clear()
    yield path
    load_presets.cache_clear()


def ask(**changes: object) -> Request:
    request = {"methods": ["toy_full"], "backbones": ["toy/pixels"], "tasks": ["toy/bright"], "preset": FAITHFUL}
    return Request(**(request | changes))  # type: ignore[arg-type]


def test_the_methods_whose_repositories_publish_a_recipe_have_one() -> None:
    assert {"vpt_deep", "vpt_shallow", "ssf", "adaptformer", "noah", "fact_tt", "fact_tk", "convpass", "repadapter"} | {
        "coop", "cocoop", "maple", "st_adapter", "aim"
    } == set(load_presets())  # fmt: skip


@pytest.mark.parametrize("method", sorted(load_presets()))
def test_every_setting_of_a_shipped_preset_is_one_that_the_harness_and_the_method_know(method: str) -> None:
    preset = load_presets()[method]
    assert method in METHODS.names()
    assert preset.repository.count("/") == 1 and len(preset.commit) == 40 and preset.files and preset.not_expressed
    for recipe in preset.recipes:
        named = [task for task in recipe.tasks if "*" not in task]
        assert all(preset.settings(task) is not None for task in (*named, *recipe.by_task))
        for task in [*recipe.tasks, *recipe.by_task]:
            settings = preset.settings(task)
            assert settings is not None
            assert {
                "epochs",
                "batch_size",
                "optimizer",
                "learning_rate",
                "weight_decay",
                "schedule",
                "warmup_epochs",
            } <= (set(settings.protocol))
            load_protocol("embedded-v1", settings.protocol)
            make_method(method, settings.config)


def test_scales_by_data_set() -> None:
    svhn = load_presets()["fact_tt"].settings("vtab/svhn")
    assert svhn is not None and svhn.config == {"dropout": 0.1, "rank": 16, "scale": 100.0}
    caltech = load_presets()["ssf"].settings("vtab/caltech101")
    assert caltech is not None
    assert (caltech.protocol["learning_rate"], caltech.protocol["weight_decay"]) == (1e-3, 0.05)
    assert load_presets()["convpass"].settings("vtab/cifar") is None  # its scale could not be read


def test_a_planned_run_has_the_recipe_and_says_whose_it_is(toy_preset: Path) -> None:
    made = plan(ask(tasks=["toy/bright", "toy/bright_too"]))
    first, second = made.specs
    assert first.protocol.overrides == {"preset": FAITHFUL, "epochs": 1, "batch_size": 8, "learning_rate": 0.5}
    assert first.method.config["tag"] == "paper"
    assert second.protocol.overrides == {"preset": FAITHFUL, "epochs": 2, "learning_rate": 0.25}
    assert second.method.config["tag"] == "too"
    assert first.protocol.faithful and protocol_of(first.protocol).epochs == 1
    assert made.notes == [
        "faithful preset of toy_full, after a/b; not expressed: random crops; drop path",
    ]


def test_a_record_says_what_is_not_expressed(toy_preset: Path) -> None:
    [spec] = plan(ask()).specs
    record = run(spec, torch.device("cpu"))
    assert record.status == "ok"
    assert record.quality is not None and len(record.quality.curve) == 1
    assert record.protocol_deviation == "faithful preset of toy_full, after a/b; not expressed: random crops; drop path"


def test_settings_of_one_s_own_go_before_it_and_are_said(toy_preset: Path) -> None:
    [spec] = plan(ask(protocol_settings={"epochs": 3})).specs
    assert spec.protocol.overrides["epochs"] == 3
    assert (spec.protocol.overrides["preset"], spec.protocol.faithful) == (CHANGED, False)
    [spec] = plan(ask(method_settings={"tag": "mine"})).specs
    assert (spec.method.config["tag"], spec.protocol.overrides["preset"]) == ("mine", CHANGED)
    with pytest.raises(PeftmarkError, match="use --preset faithful"):
        plan(ask(preset="", protocol_settings={"preset": FAITHFUL}))


def test_methods_without_a_recipe_are_named_and_not_run(toy_preset: Path) -> None:
    made = plan(ask(methods=["toy_full", "toy_fault"]))
    assert [spec.method.name for spec in made.specs] == ["toy_full"]
    assert made.notes[-1] == "not run, since there is no faithful preset: toy_fault (1 task)"
    with pytest.raises(PeftmarkError, match="no faithful preset of toy_fault for toy/bright: there are toy_full"):
        plan(ask(methods=["toy_fault"]))
    with pytest.raises(
        PeftmarkError, match=r"no faithful preset of toy_full for toy/clips: its recipes are for toy/br"
    ):
        plan(ask(tasks=["toy/clips"]))


def test_a_suite_may_ask_for_presets(toy_preset: Path, tmp_path: Path) -> None:
    suite = tmp_path / "mine.toml"
    runs = '[[runs]]\nbackbone = "toy/pixels"\ntasks = ["toy/bright"]\nmethods = ["toy_full"]\n'
    suite.write_text(f'description = "Mine"\nprotocol = "embedded-v1"\npreset = "faithful"\n{runs}')
    [spec] = plan(Request(suite=str(suite))).specs
    assert spec.protocol.faithful


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("not_expressed", "preset toy_full.toml: "),
        (TOY + "\nepochs = 2\n", "preset toy_full.toml: "),
        (TOY.replace("tasks =", "task ="), "preset toy_full.toml: Object contains unknown field `task`"),
    ],
)
def test_a_bad_file_is_named(toy_preset: Path, text: str, message: str) -> None:
    toy_preset.write_text(text)
    with pytest.raises(PeftmarkError) as caught:
        load_presets()
    assert str(caught.value).startswith(message)


PLUGIN = """
import torch
from peftmark import TASKS, Task
from peftmark.tasks import Split, TaskData


@TASKS.register("vtab/mine", track="image", group="natural")
class Mine(Task):
    \"\"\"Dark or bright.\"\"\"

    def split_sha256(self):
        return "0" * 64

    def load(self):
        labels = torch.arange(8) % 2
        images = (200 * labels).view(-1, 1, 1, 1).expand(8, 3, 8, 8).to(torch.uint8)
        return TaskData(*[Split(images, labels, ("dark", "bright"))] * 2, {"test": Split(images, labels, ("a", "b"))})
"""


def test_from_the_command_line_to_the_board(command: Callable[..., Any], tmp_path: Path) -> None:
    """In a worker of its own, with a shipped preset: a vtab task of a user's has SSF's recipe."""
    (tmp_path / "mine.py").write_text(PLUGIN)
    asked = ["run", "--method", "ssf", "--method", "linear", "--backbone", "embedded/vit", "--task", "vtab/mine"]
    asked += ["--preset", "faithful", "--import", "mine.py"]
    planned = command(*asked, "--dry-run")
    assert planned.code == 0
    assert "ssf  embedded/vit  vtab/mine  seed 0  faithful" in planned.out
    note, left_out = planned.err.splitlines()
    assert note.startswith("faithful preset of ssf, after dongzelian/SSF; not expressed: drop path")
    assert left_out == "not run, since there is no faithful preset: linear (1 task)"
    ended = command(*asked)
    assert (ended.code, "1 ok" in ended.out) == (0, True)
    [path] = (tmp_path / "runs").glob("*.json")
    record = decode_record(path.read_bytes(), path)
    assert record.spec.protocol.faithful
    assert record.spec.protocol.overrides["epochs"] == 100
    assert record.protocol_deviation == note
    assert record.quality is not None and len(record.quality.curve) == 100
    assert command("board").code == 0
    page = (tmp_path / "board" / "index.html").read_text(encoding="utf-8")
    assert ">faithful</span>" in page and "dongzelian/SSF" in page
    assert command("validate", "runs").code == 0

"""The command line: exit statuses, output, and one line for every mistake. Launching is in benchmark/test_launch.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from peftmark import METHODS, SUITES, TASKS, __version__
from peftmark.results import Store

Run = Callable[..., Any]
TOYS = ("--method", "toy_full", "--task", "toy/bright", "--backbone", "toy/pixels")


def test_python_m_and_the_console_script_are_the_same(command: Run) -> None:
    ended = command("--version")
    assert (ended.code, ended.out) == (0, f"python -m peftmark, version {__version__}\n")
    script = Path(sys.executable).with_name("peftmark")
    done = subprocess.run([script, "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ended.out.removeprefix("python -m "))
    ended = command("show", "method", "lroa")
    assert ended.code == 2
    assert ended.one_line().startswith("peftmark: unknown method 'lroa': did you mean lora")


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], *(["list", k] for k in ("methods", "suites"))])
def test_help_and_listing_import_nothing_heavy(arguments: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "peftmark", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "peftmark.registry" in imported
    assert imported.isdisjoint({"torch", "numpy", "pandas", "timm", "open_clip", "sklearn", "matplotlib", "rich"})


def test_list(invoke: Run) -> None:
    ended = invoke("list", "methods")
    assert (ended.code, ended.err) == (0, "")
    assert [line.split()[:2] for line in ended.lines] == [[n, METHODS.entry(n).family] for n in METHODS.names()]
    assert all(METHODS.entry(line.split()[0]).summary in line for line in ended.lines)
    assert [line.split()[0] for line in invoke("list", "methods", "additive/*").lines] == METHODS.names("additive/*")
    assert [line.split()[0] for line in invoke("list", "suites").lines] == SUITES.names()
    assert [line.split()[:2] for line in invoke("list", "tasks", "embedded/digits").lines] == [
        ["embedded/digits", "natural"]
    ]


def test_list_as_json(invoke: Run) -> None:
    rows = json.loads(invoke("list", "methods", "--json").out)
    assert [row["name"] for row in rows] == METHODS.names()
    [lora] = [row for row in rows if row["name"] == "lora"]
    assert lora["family"] == "reparameterized"
    assert lora["tracks"] == ["image", "openvocab", "video"]
    assert lora["origin"] == "peftmark.methods.reparameterized.lora"
    assert lora["summary"]
    tasks = json.loads(invoke("list", "tasks", "--json").out)
    assert {"name", "track", "group", "summary", "origin"} <= set(tasks[0])
    backbones = json.loads(invoke("list", "backbones", "--json").out)
    assert {"embedded/vit", "embedded/clip", "timm/*", "open_clip/*"} <= {row["name"] for row in backbones}
    assert json.loads(invoke("list", "methods", "nothing*", "--json").out) == []


def test_list_everything(invoke: Run) -> None:
    rows = json.loads(invoke("list", "backbones", "*vit_base_patch16_224", "--all", "--json").out)
    assert {"timm/vit_base_patch16_224"} <= {row["name"] for row in rows}
    assert all(row["name"].endswith("vit_base_patch16_224") for row in rows)


def test_output_may_be_cut_off(tmp_path: Path) -> None:
    """As by ``| head -1``."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "peftmark", "list", "methods"], stdout=writer, stderr=subprocess.PIPE, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


def test_show_a_method(invoke: Run) -> None:
    ended = invoke("show", "method", "lora")
    assert (ended.code, ended.err) == (0, "")
    assert ended.lines[0] == "lora"
    assert "arXiv:2106.09685" in ended.out
    for line in ("family: reparameterized", "tracks: image, openvocab, video", "--set method.rank=8"):
        assert line in ended.lines
    assert "origin: peftmark.methods.reparameterized.lora" in ended.lines
    assert any(line.startswith("version: ") for line in ended.lines)
    assert invoke("show", "method", "reparameterized/lora").out == ended.out


@pytest.mark.parametrize(("kind", "name"), [("task", "embedded/digits"), ("backbone", "timm/x"), ("suite", "embedded")])
def test_show_others(invoke: Run, kind: str, name: str) -> None:
    ended = invoke("show", kind, name)
    assert (ended.code, ended.err) == (0, "")
    assert "origin: " in ended.out


def test_a_plugin_is_listed_and_shown(invoke: Run, toys: Path) -> None:
    assert "toy_full" not in invoke("list", "methods").out
    assert "toy_full" in invoke("list", "methods", "toys/*", "--import", toys).out
    ended = invoke("show", "method", "toy_full", "--import", toys)
    assert f"origin: {toys}" in ended.lines
    assert "--set method.seconds=0.0" in ended.lines


def test_dry_run_runs_nothing(invoke: Run, toys: Path, tmp_path: Path) -> None:
    ended = invoke("run", *TOYS, "--seed", 0, "--seed", 1, "--set", "method.tag=a", "--import", toys, "--dry-run")
    assert (ended.code, ended.err) == (0, "")
    *runs, last = ended.lines
    assert last == "2 to run, 0 finished, in runs"
    labels = [line.partition("  ")[2] for line in runs]
    assert labels == [f"toy_full tag=a  toy/pixels  toy/bright  seed {seed}" for seed in (0, 1)]
    assert all(len(line.split()[0]) == 16 for line in runs)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("method.secnods=1", "method 'toy_full' has no hyper-parameter 'secnods': did you mean seconds?"),
        ("method.seconds=long", "method 'toy_full': seconds='long' is not valid: "),
        ("method.seconds=nan", "method 'toy_full': seconds=nan cannot be recorded: "),
        ("protocol.epocs=1", "protocol embedded-v1 has no setting 'epocs': did you mean epochs?"),
        ("protocol.epochs=many", "protocol embedded-v1: Expected `int`, got `str` - at `$.epochs`"),
        ("protocol.learning_rate=inf", "protocol embedded-v1: learning_rate=inf cannot be recorded: "),
        ("seconds=1", "--set seconds=1: write method.NAME=VALUE or protocol.NAME=VALUE"),
        ("method.seconds", "--set method.seconds: write method.NAME=VALUE or protocol.NAME=VALUE"),
        ("method.=1", "--set method.=1: write method.NAME=VALUE or protocol.NAME=VALUE"),
        ("task.seconds=1", "--set task.seconds=1: write method.NAME=VALUE or protocol.NAME=VALUE"),
        ("=1", "--set =1: write method.NAME=VALUE or protocol.NAME=VALUE"),
    ],
)
def test_a_bad_setting_is_one_line(invoke: Run, toys: Path, setting: str, message: str) -> None:
    ended = invoke("run", *TOYS, "--import", toys, "--set", setting)
    assert (ended.code, ended.out) == (2, "")
    assert ended.one_line().startswith(f"peftmark: {message}")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (["method.tag=8"], "'8'"),
        (["method.tag='a b'"], "a b"),
        (["method.tag=a b"], "a b"),
        (["method.tag=a=b"], "a=b"),
        (["method.tag="], None),
        (["method.tag=x", "method.tag=y"], "y"),
        (["method.seconds=8"], "8.0"),
        ([" method.seconds =1e-3"], "0.001"),
    ],
)
def test_settings_are_read_as_toml_or_text(invoke: Run, toys: Path, settings: list[str], expected: str | None) -> None:
    """A number for a text field is refused, so that ``tag=8`` and ``tag='8'`` cannot be two runs."""
    flags = [part for setting in settings for part in ("--set", setting)]
    ended = invoke("run", *TOYS, "--import", toys, "--dry-run", *flags)
    if settings == ["method.tag=8"]:
        assert ended.code == 2
        assert ended.one_line() == "peftmark: method 'toy_full': tag=8 is not valid: Expected `str`, got `int`"
        return
    name = settings[0].strip().partition("=")[0].strip().removeprefix("method.")
    shown = f" {name}={expected}" if expected else ""
    assert ended.lines[0].partition("  ")[2] == f"toy_full{shown}  toy/pixels  toy/bright  seed 0"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run"], "without --suite, give at least one each of --method, --backbone and --task"),
        (["run", "--suite", "embeded"], "unknown suite 'embeded': did you mean embedded"),
        (["run", "--suite", "no.toml"], "no suite file no.toml"),
        (["run", "--suite", "embedded", "--task", "embedded/digit"], "unknown task 'embedded/digit': did you mean "),
        (["run", "--suite", "embedded", "--method", "lorra"], "unknown method 'lorra': did you mean lora"),
        (["run", "--method", "lora", "--task", "embedded/digits", "--backbone", "vit_bsae_patch16_224"],
         "unknown backbone 'vit_bsae_patch16_224'"),
        (["run", "--method", "lora", "--task", "embedded/digits", "--backbone", "embedded/vit@missing"],
         "no checkpoint file missing: give an existing file after the @"),
        (["run", "--import", "missing.py"], "--import missing.py: no such file"),
        (["list", "methods", "x*"], "no method matches 'x*': `peftmark list methods` shows all"),
        (["list", "methods", "--import", "missing.py"], "--import missing.py: no such file"),
        (["show", "method", "x"], "unknown method 'x': see `peftmark list methods`"),
        (["show", "task", "embedded/digit"], "unknown task 'embedded/digit': did you mean embedded/digits"),
        (["board", "--results", "missing"], ""),
    ],
    ids=lambda value: "-".join(value[-2:]) if isinstance(value, list) else "",
)  # fmt: skip
def test_a_mistake_is_one_line(invoke: Run, arguments: list[str], message: str) -> None:
    ended = invoke(*arguments)
    assert (ended.code, ended.out) == (2, "")
    assert ended.one_line().startswith(f"peftmark: {message}")


def test_a_plugin_s_mistake_is_one_line_even_if_its_message_is_not(invoke: Run, tmp_path: Path) -> None:
    path = tmp_path / "broken.py"
    path.write_text("raise ValueError('one\\ntwo')")
    ended = invoke("list", "methods", "--import", path)
    assert (ended.code, ended.one_line()) == (2, f"peftmark: --import {path}: ValueError: one two")


@pytest.mark.parametrize("arguments", [["lsit"], ["list", "metods"], ["run", "--epochs", "2"], ["run", "--jobs", "0"]])
def test_usage_errors_exit_with_2(invoke: Run, arguments: list[str]) -> None:
    ended = invoke(*arguments)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("Usage: ")
    assert ended.err.splitlines()[-1].startswith("Error: ")


def test_a_device_that_is_not_there(invoke: Run, toys: Path, tmp_path: Path) -> None:
    ended = invoke("run", *TOYS, "--import", toys, "--device", "cuda:99")
    assert ended.code == 2
    assert ended.one_line().startswith("peftmark: no device 'cuda:99' here (")
    assert not (tmp_path / "runs").exists()


def test_a_results_folder_that_cannot_be_written(invoke: Run, toys: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for folder in ("file", "file/below", "/proc/peftmark"):
        ended = invoke("run", *TOYS, "--import", toys, "--results", folder, "--device", "cpu")
        assert (ended.code, ended.out) == (2, "")
        assert ended.one_line().startswith(f"peftmark: cannot write to the results folder {folder} (")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_in_use(invoke: Run, toys: Path) -> None:
    with Store("runs").lock():
        ended = invoke("run", *TOYS, "--import", toys, "--device", "cpu")
    assert (ended.code, ended.out) == (2, "")
    assert ended.one_line().startswith("peftmark: another peftmark command is writing to runs: wait for it")


def test_ctrl_c_before_anything_runs(invoke: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(pattern: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(TASKS, "names", interrupt)
    ended = invoke("list", "tasks")
    assert (ended.code, ended.err) == (130, "interrupted\n")


def test_run_board_and_a_damaged_checkpoint(command: Run, toys: Path, checkpoint: Path, tmp_path: Path) -> None:
    """A class in a file outside the repository stands on the board; weights that are none cost their own run only."""
    half = tmp_path / "half.safetensors"
    half.write_bytes(checkpoint.read_bytes()[:1000])
    arguments = ["--task", "toy/bright", "--method", "toy_full", "--import", toys, "--set", "protocol.epochs=1"]
    whole, damaged = f"embedded/vit@{checkpoint}", f"embedded/vit@{half}"
    ended = command(
        "run", *arguments, "--backbone", whole, "--backbone", damaged, "--device", "cpu", "--jobs", 1, "--save-adapters"
    )
    assert (ended.code, ended.err) == (1, "")
    assert ended.lines[-1] == "1 error, 1 ok; records in runs"
    assert f"{half} cannot be read as weights (" in ended.out
    store = Store(tmp_path / "runs")
    [ok] = [record for record in store.load()[0] if record.status == "ok"]
    [adapter] = (store.root / "adapters").iterdir()
    assert adapter.name == f"{ok.run_id}.safetensors"
    assert ok.storage is not None
    assert adapter.stat().st_size == ok.storage.adapter_bytes
    board = command("board", "--results", "runs", "--out", "page")
    assert (board.code, board.err) == (0, "")
    page = Path(board.out.strip())
    assert page == tmp_path / "page" / "index.html"
    assert "toy_full" in page.read_text()


def test_profile(invoke: Run, tmp_path: Path) -> None:
    ended = invoke("profile", "--method", "lora", "--backbone", "embedded/vit", "--batch-size", 4, "--results", "costs")
    assert (ended.code, ended.err) == (0, "")
    assert ended.lines[0] == "lora  embedded/vit  batch 4, float32  ok"
    assert ended.lines[1] == "parameters  24,576 trainable without the head, 0 added at inference"
    [words, _] = Store(tmp_path / "costs").load_costs()
    peak = words[0].memory.estimated.train_peak_allocated_bytes
    assert f"{peak / 2**20:,.0f} MiB training" in ended.lines[3]
    ended = invoke("profile", "--method", "lora", "--backbone", "embedded/vit", "--batch-size", 4, "--json")
    record = json.loads(ended.out)
    assert (
        record["memory"]
        == json.loads((tmp_path / "costs" / "costs" / f"{record['cost_id']}.json").read_text())["memory"]
    )
    assert record["spec"]["hardware_class"] is None
    assert record["speed"] is None


def test_profile_of_speed(command: Run) -> None:
    """In a process of its own: what is timed runs on one thread."""
    ended = command("profile", "--method", "lora", "--backbone", "embedded/vit", "--batch-size", 4, "--speed", "--json")
    assert (ended.code, ended.err) == (0, "")
    record = json.loads(ended.out)
    assert record["spec"]["hardware_class"].startswith("cpu:")
    assert record["speed"]["threads"] == 1
    assert len(record["speed"]["train_step_ms"]["samples"]) == record["speed"]["timed_steps"] == 12


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "lroa"], "peftmark: unknown method 'lroa': did you mean lora"),
        (["--backbone", "vit_tinypatch16_224"], "unknown backbone 'vit_tinypatch16_224': did you mean vit_tiny"),
        (["--frozen-dtype", "nf4"], "frozen_dtype=nf4 needs precision=bfloat16"),
        (["--set", "method.rnk=8"], "method 'lora' has no hyper-parameter 'rnk': did you mean rank?"),
        (["--set", "protocol.epochs=2"], "a profile has no protocol: --set takes method.NAME=VALUE here"),
        (["--device", "cuda:7"], "no device 'cuda:7' here"),
    ],
)
def test_a_profile_that_cannot_be_made(invoke: Run, arguments: list[str], message: str) -> None:
    ended = invoke("profile", "--method", "lora", "--backbone", "embedded/vit", *arguments)
    assert ended.code == 2
    assert message in ended.one_line()


def test_a_pair_that_cannot_be_profiled_is_no_failure(invoke: Run) -> None:
    ended = invoke("profile", "--method", "vpt_deep", "--backbone", "convnext_tiny")
    assert ended.code == 0
    assert ended.lines[0].endswith("unsupported")
    assert "has no place for more tokens" in ended.lines[1]

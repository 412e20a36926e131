"""``peftmark run``: settings, folders, devices. Launching is in benchmark/launch/test_local.py."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from peftmark.results import Store

Run = Callable[..., Any]
TOYS = ("--method", "toy_full", "--task", "toy/bright", "--backbone", "toy/pixels")


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
        ("seconds=1", "--set seconds=1: write method.NAME=VALUE, protocol.NAME=VALUE or launcher.NAME=VALUE"),
        ("method.seconds", "--set method.seconds: write method.NAME=VALUE, protocol.NAME=VALUE or launcher.NAME=VALUE"),
        ("method.=1", "--set method.=1: write method.NAME=VALUE, protocol.NAME=VALUE or launcher.NAME=VALUE"),
        ("task.seconds=1", "--set task.seconds=1: write method.NAME=VALUE, protocol.NAME=VALUE or launcher.NAME=VALUE"),
        ("method.seconds=" + "9" * 5000, "method 'toy_full': seconds='999"),
        ("method.seconds=" + "[" * 100_000, "method 'toy_full': seconds='[[["),
        (
            os.fsdecode(b"protocol.schedule=\xff"),
            r"--set 'protocol.schedule=\udcff': it is not UTF-8, which a record needs",
        ),
        ("=1", "--set =1: write method.NAME=VALUE, protocol.NAME=VALUE or launcher.NAME=VALUE"),
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


def test_what_is_no_file_in_a_record_s_place(invoke: Run, toys: Path, tmp_path: Path, special: Any) -> None:
    """It is set aside, as what is damaged."""
    words = ("run", *TOYS, "--import", toys, "--device", "cpu", "--jobs", 1, "--set", "protocol.epochs=1")
    run_id = invoke(*words, "--dry-run").lines[0].split()[0]
    (tmp_path / "runs" / "predictions").mkdir(parents=True)
    special.make(tmp_path / "runs" / f"{run_id}.json")
    ended = invoke(*words)
    path = f"runs/{run_id}.json"
    assert (ended.code, ended.err) == (0, f"{path} is damaged: set aside as {path}.damaged, run again\n")
    assert ended.lines[-1] == "1 ok; records in runs"
    assert (tmp_path / path).is_file() and not (tmp_path / path).is_symlink()
    assert os.path.lexists(tmp_path / f"{path}.damaged")


@pytest.mark.parametrize("option", ["--suite", "--import"])
def test_what_is_no_file_is_no_suite_and_no_plug_in(command: Run, tmp_path: Path, special: Any, option: str) -> None:
    name = "x.toml" if option == "--suite" else "x.py"
    special.make(tmp_path / name)
    ended = command("run", option, name, "--dry-run", timeout=60)
    assert (ended.code, ended.out) == (2, "")
    assert name in ended.one_line()


def test_shards_merged_are_the_whole(invoke: Run, toys: Path, tmp_path: Path) -> None:
    """Two slices, each into a folder of its own, and `validate --into`: the records of one command without --shard."""
    words = ["--import", toys, "--method", "toy_full", "--task", "toy/bright", "--backbone", "toy/pixels"]
    words += ["--device", "cpu", "--jobs", 1, "--set", "protocol.epochs=1"]
    words += [word for seed in range(6) for word in ("--seed", seed)]
    sizes = []
    for index in (1, 2):
        dry = invoke("run", *words, "--shard", f"{index}/2", "--dry-run")
        sizes.append(len(dry.lines) - 1)
        assert dry.one_line() == f"shard {index}/2: {sizes[-1]} of 6 runs"
        ended = invoke("run", *words, "--shard", f"{index}/2", "--results", f"part{index}")
        assert (ended.code, ended.lines[-1]) == (0, f"{sizes[-1]} ok; records in part{index}")
        assert invoke("validate", f"part{index}", "--into", "merged").code == 0
    assert sum(sizes) == 6 and 0 not in sizes
    assert invoke("run", *words, "--results", "whole").code == 0
    whole, merged = (
        {record.run_id: record.quality.predictions_sha256 for record in Store(tmp_path / name).load()[0]}
        for name in ("whole", "merged")
    )
    assert len(whole) == 6 and merged == whole
    assert invoke("run", *words, "--results", "merged").lines == [
        "nothing to run; 6 were finished before; records in merged"
    ]


@pytest.mark.parametrize("shard", ["3", "0/4", "5/4", "a/b"])
def test_what_is_no_shard(invoke: Run, toys: Path, shard: str) -> None:
    ended = invoke("run", "--suite", "embedded", "--shard", shard)
    assert (ended.code, ended.out) == (2, "")
    assert ended.one_line() == f"peftmark: --shard {shard}: write I/N with I from 1 to N, e.g. --shard 3/16"


def test_the_local_launcher_has_no_settings(invoke: Run, toys: Path) -> None:
    ended = invoke("run", "--import", toys, *TOYS, "--set", "launcher.nodes=2")
    assert (ended.code, ended.out) == (2, "")
    assert ended.one_line() == "peftmark: --set launcher.nodes: the local launcher has no settings"

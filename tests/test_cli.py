"""The command line as a whole: help, exit statuses, and one line for every mistake. Commands are in commands/."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from peftmark import TASKS, __version__

Run = Callable[..., Any]


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


def test_output_may_be_cut_off(tmp_path: Path) -> None:
    """As by ``| head -1``."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "peftmark", "list", "methods"], stdout=writer, stderr=subprocess.PIPE, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


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


def test_ctrl_c_before_anything_runs(invoke: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(pattern: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(TASKS, "names", interrupt)
    ended = invoke("list", "tasks")
    assert (ended.code, ended.err) == (130, "interrupted\n")

"""What is said while a command is at work."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from peftmark.benchmark.plan.runs import Request, plan
from peftmark.commands.progress import Patience
from peftmark.results import Store


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that a test sets."""
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    return clock


def test_patience_is_asked_for_after_a_second_on_a_terminal(
    now: list[float], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with Patience("planning") as patience:
        patience(1, 5000)
        assert capsys.readouterr().err == ""
        now[0] += 1
        patience(2000, 5000)
        patience(2001, 5000)
        assert capsys.readouterr().err == "\rplanning: 2,000 of 5,000 runs"
        now[0] += 0.2
        patience(3000, 5000)
        assert capsys.readouterr().err == "\rplanning: 3,000 of 5,000 runs"
    assert capsys.readouterr().err == "\r" + " " * len("planning: 3,000 of 5,000 runs") + "\r"


def test_elsewhere_nothing_is_said(now: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with Patience("planning") as patience:
        now[0] += 10
        patience(2000, 5000)
    assert capsys.readouterr().err == ""


def test_planning_says_how_far_it_is(toy_plugin: Path) -> None:
    said: list[tuple[int, int]] = []
    request = Request(
        methods=["toy_full"],
        tasks=["toy/bright", "toy/bright_too"],
        backbones=["toy/pixels"],
        seeds=range(3),
        progress=lambda done, total: said.append((done, total)),
    )
    assert len(plan(request).specs) == 6
    assert said == [(0, 6), (2, 6), (4, 6)]


@pytest.mark.parametrize("out", ["a full device", "nobody reads", "closed"])
def test_output_that_cannot_be_written_stops_no_run(toys: Path, tmp_path: Path, out: str) -> None:
    words = ["run", "--method", "toy_full", "--task", "toy/bright", "--backbone", "toy/pixels", "--import", str(toys)]
    words += ["--device", "cpu", "--jobs", "1", "--set", "protocol.epochs=1", "--seed", "0", "--seed", "1"]
    reading, writing = os.pipe()
    os.close(reading)
    if out == "a full device":
        os.close(writing)
        writing = os.open("/dev/full", os.O_WRONLY)
    command = [sys.executable, "-m", "peftmark", *words, "--results", "results"]
    if out == "closed":
        command = ["sh", "-c", '"$@" >&-', "sh", *command]
    done = subprocess.run(command, cwd=tmp_path, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=90)
    os.close(writing)
    assert done.returncode == 0
    said = "stdout cannot be written to (No space left on device): no more lines, but the runs go on\n"
    assert done.stderr == (said if out == "a full device" else "")
    records, problems = Store(tmp_path / "results").load()
    assert ([record.status for record in records], problems) == (["ok", "ok"], [])

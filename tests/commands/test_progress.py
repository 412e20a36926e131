"""What is said while a command is at work."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from peftmark.benchmark.plan.runs import Request, plan
from peftmark.commands.progress import Patience


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

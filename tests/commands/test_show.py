"""``peftmark show``: all that is known of one entry."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

Run = Callable[..., Any]


def test_show_a_method(invoke: Run) -> None:
    ended = invoke("show", "method", "lora")
    assert (ended.code, ended.err) == (0, "")
    assert ended.lines[0] == "lora"
    assert "arXiv:2106.09685" in ended.out
    for line in ("family: reparameterized", "tracks: image, openvocab, video", "--set method.rank=8  # at least 1"):
        assert line in ended.lines
    assert "origin: peftmark.methods.reparameterized.lora" in ended.lines
    searched = "learning_rate log-uniform from 0.0003 to 0.05, alpha log-uniform from 1 to 64"
    assert f"--trials K searches {searched}" in ended.lines
    assert any(line.startswith("version: ") for line in ended.lines)
    assert invoke("show", "method", "reparameterized/lora").out == ended.out


@pytest.mark.parametrize(("kind", "name"), [("task", "embedded/digits"), ("backbone", "timm/x"), ("suite", "embedded")])
def test_show_others(invoke: Run, kind: str, name: str) -> None:
    ended = invoke("show", kind, name)
    assert (ended.code, ended.err) == (0, "")
    assert "origin: " in ended.out

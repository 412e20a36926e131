"""``peftmark profile``: what it prints and writes, and mistakes. Measuring is in benchmark/measure."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from peftmark.results import Store

Run = Callable[..., Any]


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
        (
            ["--set", "protocol.epochs=2"],
            "a profile has no protocol and no launcher: --set takes method.NAME=VALUE here",
        ),
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

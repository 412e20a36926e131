"""``peftmark list``: what is registered, plug-ins' too, as text and as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from peftmark import METHODS, SUITES

Run = Callable[..., Any]


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


def test_a_plugin_is_listed_and_shown(invoke: Run, toys: Path) -> None:
    assert "toy_full" not in invoke("list", "methods").out
    assert "toy_full" in invoke("list", "methods", "toys/*", "--import", toys).out
    ended = invoke("show", "method", "toy_full", "--import", toys)
    assert f"origin: {toys}" in ended.lines
    assert "--set method.seconds=0.0" in ended.lines

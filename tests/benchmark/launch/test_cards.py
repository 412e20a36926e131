"""Cards that the harness writes beside the records."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from peftmark.benchmark.launch.cards import _CELL, sample_picture, task_facts, write_pair_cards, write_task_card
from peftmark.benchmark.plan.runs import Request, plan
from peftmark.benchmark.run.run import load_task
from peftmark.results import read_cards
from peftmark.tasks import Split, TaskData

FACTOR = round(_CELL / 8)
"""A pixel of an image of 8x8 is a square of so many in the picture, and cells have a gap of four between them."""
SIDE = 8 * FACTOR + 4


@pytest.fixture
def described(toy_plugin: Path, tmp_path: Path) -> Path:
    [spec] = plan(Request(methods=["toy_full"], tasks=["toy/bright"], backbones=["toy/pixels"])).specs
    write_pair_cards(tmp_path / "results", spec.method.name, spec.backbone.name)
    write_task_card(tmp_path / "results", *load_task("toy/bright"))
    return tmp_path / "results"


def test_plugins_get_cards_too(described: Path, toy_plugin: Path) -> None:
    [method] = read_cards(described, "methods").values()
    assert (method.name, method.family, method.origin) == ("toy_full", "toys", str(toy_plugin))
    assert method.doc.startswith("Trains everything, may take its time")
    assert method.facts["tracks"] == ["image", "video"]
    [backbone] = read_cards(described, "backbones").values()
    assert (backbone.name, backbone.family) == ("toy/pixels", "toy")
    [task] = read_cards(described, "tasks").values()
    assert (task.name, task.family, task.doc) == ("toy/bright", "toys", "Is an image dark or bright?")
    assert (described / "cards" / "tasks" / str(task.picture)).is_file()


def test_a_task_s_facts(toy_plugin: Path) -> None:
    facts = task_facts(*load_task("toy/bright"))
    assert facts == {
        "track": "image",
        "metric": "accuracy",
        "num_classes": 2,
        "chance_percent": 50.0,
        "n_train": 16,
        "n_validation": 10,
        "n_test": 12,
        "tests": {"test": 12},
    }


def test_chance_is_the_headline_of_guessing(toy_plugin: Path) -> None:
    task, data = load_task("toy/bright")
    four = Split(data.train.inputs, data.train.targets, ("a", "b", "c", "d"))
    facts = task_facts(task, TaskData(data.train, data.validation, {"two": data.train, "four": four}))
    assert facts["chance_percent"] == 37.5
    assert facts["tests"] == {"two": 16, "four": 16}


def test_the_sample_picture(toy_plugin: Path) -> None:
    task, data = load_task("toy/bright")
    picture, labels = sample_picture(task.objective(data), data.train)
    assert len(labels) == 12
    assert set(labels) == {"dark", "bright"}
    image = Image.open(io.BytesIO(picture))
    assert (image.size, image.mode) == ((6 * SIDE, 2 * SIDE), "RGB")
    first = data.train.inputs[0, :, 0, 0].tolist()
    assert list(image.getpixel((0, 0))) == list(image.getpixel((FACTOR - 1, FACTOR - 1))) == first
    assert image.getpixel((SIDE - 1, SIDE - 1)) == (255, 255, 255)


def test_of_clips_one_of_each_class(toy_plugin: Path) -> None:
    task, data = load_task("toy/clips")
    picture, labels = sample_picture(task.objective(data), data.train)
    assert labels == ["dark", "bright"]
    assert Image.open(io.BytesIO(picture)).size == (2 * SIDE, 2 * SIDE)


def test_where_a_method_sits_or_nothing(described: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [method] = read_cards(described, "methods").values()
    places = method.facts["places"]
    assert (places["model"], places["blocks"]) == ("embedded/vit", 6)
    assert places["parts"]["q"] == {"weight": 6, "bias": 6}

    monkeypatch.setattr("peftmark.benchmark.launch.cards.places_of", lambda _: 1 / 0)
    write_pair_cards(tmp_path / "others", "toy_full", "toy/pixels")
    [method] = read_cards(tmp_path / "others", "methods").values()
    assert "places" not in method.facts and method.facts["tracks"] == ["image", "video"]

"""A protocol whose tested model is trained on training and validation images, and ImageNet's normalization."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from peftmark.benchmark.plan.runs import Request, plan
from peftmark.benchmark.run import training
from peftmark.benchmark.run.run import run
from peftmark.results import RunRecord
from peftmark.tasks import Split, TaskData

CPU = torch.device("cpu")
BOTH = {"final_training": "train+validation", "epochs": 3, "learning_rate": 0.01, "batch_size": 8}


def go(method: str = "toy_full", task: str = "toy/bright", adapter: Path | None = None, **settings: Any) -> RunRecord:
    request = Request(methods=[method], tasks=[task], backbones=["toy/pixels"], protocol_settings=BOTH | settings)
    [spec] = plan(request).specs
    return run(spec, CPU, None, adapter)  # type: ignore[arg-type]


@pytest.fixture
def trained_on(toy_plugin: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images each training was of."""
    train, counts = training.train, []

    def watched(model: Any, images: Any, labels: Any, *arguments: Any) -> Any:
        assert len(images) == len(labels)
        counts.append(len(labels))
        return train(model, images, labels, *arguments)

    monkeypatch.setattr(training, "train", watched)
    return counts


def test_the_tested_model_is_trained_on_both(trained_on: list[int]) -> None:
    record = go()
    assert record.quality is not None
    assert (trained_on, record.quality.validation, record.quality.n_test) == ([26], None, 12)
    record = go(final_training="train")
    assert record.quality is not None
    assert record.quality.validation is not None
    assert trained_on == [26, 16]


def test_a_search_sees_the_training_images_and_measures_on_the_validation_split(trained_on: list[int]) -> None:
    record = go("toy_phases")
    assert record.status == "ok"
    assert trained_on == [16, 26]
    assert record.phases[1].evaluations == 2
    assert record.quality is not None
    assert [variant.validation for variant in record.quality.variants] == [None, None]


def test_a_method_that_chooses_at_the_end_cannot(trained_on: list[int]) -> None:
    record = go("toy_looks_last")
    assert record.status == "unsupported"
    assert record.error is not None
    assert record.error.message.startswith("ToyLooksLast chooses by validation figures when its training is over")
    assert go("toy_looks_last", final_training="train").status == "ok"


def test_the_order_of_the_two_is_training_first(toy_plugin: Path, tmp_path: Path) -> None:
    """Another validation split gives another model; another test split would not."""
    go(adapter=tmp_path / "one")
    go(task="toy/bright_too", adapter=tmp_path / "two")
    assert (tmp_path / "one").read_bytes() != (tmp_path / "two").read_bytes()


def split(start: int, images: torch.Tensor) -> Split:
    labels = torch.arange(start, start + len(images))
    return Split(images, labels, tuple("abcdefghijkl"))


def test_neighbours_in_memory_are_joined_without_a_copy() -> None:
    memory = torch.arange(10 * 3 * 2 * 2, dtype=torch.uint8).view(10, 3, 2, 2)
    for one, other, shared in (
        (memory[2:6], memory[6:9], True),
        (memory[2:6], memory[7:9], False),
        (memory[6:9], memory[2:6], False),
        (memory[2:6], memory[6:9].clone(), False),
        (memory[:, :, :1][2:6], memory[:, :, :1][6:9], False),
    ):
        both = TaskData(split(0, one), split(len(one), other), {}).train_and_validation()
        assert torch.equal(both.inputs, torch.cat((one, other)))
        assert both.targets.tolist() == list(range(len(one) + len(other)))
        assert (both.inputs.data_ptr() == one.data_ptr()) == shared

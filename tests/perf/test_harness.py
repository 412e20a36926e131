"""The harness: `run` of one spec against `bare.train_and_test`, a loop that does the same steps."""

from __future__ import annotations

import copy
from typing import Any

import bare
import pytest
import torch

from peftmark.backbones import find_backbone
from peftmark.benchmark.plan.protocol import protocol_of
from peftmark.benchmark.plan.runs import Request, plan
from peftmark.benchmark.run.run import load_task, run
from peftmark.registry import METHODS
from peftmark.results import predictions_sha256

TASK, BACKBONE = "embedded/digits", "embedded/vit"


@pytest.mark.parametrize("method", ["full", "lora", "linear"])
def test_harness_overhead(compare, method: str) -> None:
    """Same backbone, data and evaluation, all of them loaded before; the two end in the same predictions."""
    request = Request(methods=[method], backbones=[BACKBONE], tasks=[TASK], seeds=[0], protocol_settings={"epochs": 3})
    [spec] = plan(request).specs
    task, data = load_task(TASK)
    protocol = protocol_of(spec.protocol)
    anatomy = find_backbone(BACKBONE).build(pretrained=True)
    anatomy.root.requires_grad_(True)
    tests = {name: (split.inputs, split.targets) for name, split in data.tests.items()}

    def in_harness() -> Any:
        return run(spec, torch.device("cpu"))  # without a cache of untouched prefixes: the bare loop has none

    def by_hand() -> Any:
        return bare.train_and_test(
            copy.deepcopy(anatomy.model),
            method,
            (data.train.inputs, data.train.targets),
            {"validation": (data.validation.inputs, data.validation.targets), **tests},
            mean=anatomy.pixels.mean,
            std=anatomy.pixels.std,
            epochs=protocol.epochs,
            batch_size=protocol.batch_size,
            learning_rate=protocol.learning_rate_of(method, METHODS.entry(method).family),
            weight_decay=protocol.weight_decay,
            warmup_epochs=protocol.warmup_epochs,
            seed=spec.seed,
        )

    compare(in_harness, by_hand, target=1.03, pairs=9)
    record, (predictions, accuracies, losses) = in_harness(), by_hand()
    assert record.status == "ok", record.error
    assert record.quality.validation == accuracies.pop("validation")
    del predictions["validation"]
    assert record.quality.test == task.headline(accuracies)
    assert [epoch["train_loss"] for epoch in record.quality.curve] == losses
    assert record.quality.predictions_sha256 == predictions_sha256(
        {name: {"predicted": labels.numpy()} for name, labels in predictions.items()}
    )

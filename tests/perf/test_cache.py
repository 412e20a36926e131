"""The cache of untouched prefixes: an epoch of training with it, held against one that computes everything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from peftmark.backbones import find_backbone
from peftmark.benchmark.plan.protocol import protocol_of
from peftmark.benchmark.plan.runs import Request, plan
from peftmark.benchmark.run.inputs import Inputs
from peftmark.benchmark.run.prefix_cache import PrefixCache
from peftmark.benchmark.run.run import load_task
from peftmark.benchmark.run.training import Trainer
from peftmark.methods import make_method, make_model

DIGITS, NAMING = ("embedded/digits", "embedded/vit"), ("embedded/naming-16shot", "embedded/clip")
TARGETS = {"linear": (*DIGITS, 1 / 30), "partial": (*DIGITS, 1.0), "lora": (*DIGITS, 1.0), "coop": (*NAMING, 1 / 5)}
EPOCHS = 4
"""Of a timed run, so that what is done once a run weighs as little as it does in one: protocols have 15 and more."""


@pytest.mark.parametrize("method", TARGETS)
def test_an_epoch_of_training(compare: Any, tmp_path: Path, method: str) -> None:
    """What is in the cache is there before the epoch, as it is from the second epoch, or run, on."""
    name, backbone, target = TARGETS[method]
    request = Request(methods=[method], backbones=[backbone], tasks=[name], protocol_settings={"epochs": EPOCHS})
    [spec] = plan(request).specs
    task, data = load_task(name)
    protocol = protocol_of(spec.protocol)
    bare = find_backbone(backbone).build(pretrained=True)

    def trainer(cache: PrefixCache | None) -> Trainer:
        torch.manual_seed(0)
        anatomy = find_backbone(backbone).build(pretrained=True)
        model = make_model(anatomy, make_method(method), task.objective(data))
        inputs = Inputs(model, spec, data, anatomy.input, torch.device("cpu"), cache, bare)
        return Trainer(model, inputs, data.train.class_names, task.templates, protocol, 1e-3, 0, lambda: 0.0)

    cached, plain = trainer(PrefixCache(2**30, tmp_path)), trainer(None)
    [phase] = cached.model.method.phases()
    compare(lambda: cached.train(phase), lambda: plain.train(phase), target=target, pairs=9)
    assert cached.inputs.training(protocol.batch_size, protocol.precision)[0] > 0

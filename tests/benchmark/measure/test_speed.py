"""Timing of steps: turns are taken, ratios are of the same round, FLOPs are those of the arithmetic."""

from __future__ import annotations

import copy
import doctest
import time

import pytest
import torch
from click.testing import CliRunner

from peftmark.adapting import adapt
from peftmark.backbones import find_backbone
from peftmark.benchmark.measure import speed
from peftmark.benchmark.measure.flops import count_flops
from peftmark.benchmark.plan.protocol import load_protocol
from peftmark.benchmark.run.training import train
from peftmark.methods import AdaptedModel, Context
from peftmark.tools import steps


def model(method: str) -> AdaptedModel:
    torch.manual_seed(0)
    return adapt(find_backbone("embedded/vit").build(pretrained=False), method, num_classes=3)


def test_examples() -> None:
    assert doctest.testmod(speed).failed == 0


def test_every_round_runs_every_step_once_in_order() -> None:
    calls: list[str] = []
    waits = {"slow": 0.02, "fast": 0.0}

    def step(name: str) -> speed.Step:
        def go() -> None:
            calls.append(name)
            time.sleep(waits[name])

        return go

    seconds = speed.take_turns({name: step(name) for name in waits}, warmup=2, rounds=3)
    assert calls == ["slow", "fast"] * 5
    assert {name: len(each) for name, each in seconds.items()} == {"slow": 3, "fast": 3}
    assert min(seconds["slow"]) > 0.019 > max(seconds["fast"])


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_measured_step_is_the_trainer_s_own(optimizer: str) -> None:
    """Three of them move a model as three epochs of one batch do, bit by bit."""
    images, labels = torch.randn(4, 3, 40, 40), torch.tensor([0, 1, 2, 0])
    overrides = {"optimizer": optimizer, "weight_decay": speed.DECAY, "batch_size": 4, "epochs": 3}
    protocol = load_protocol("embedded-v1", {**overrides, "schedule": "constant", "warmup_epochs": 0})
    start = model("ssf").train()
    measured, trained = copy.deepcopy(start), copy.deepcopy(start)
    step = speed.MeasuredStep(measured, images, labels, 3, optimizer=optimizer)
    order = torch.Generator().manual_seed(7)
    for _ in range(3):
        at = torch.randperm(4, generator=order)
        step.images, step.targets = images[at], labels[at]
        step()
    train(trained, images, labels, protocol, speed.RATE, Context(3, 1, ("a", "b", "c")), seed=7)
    for (name, one), other in zip(measured.named_parameters(), trained.parameters(), strict=True):
        assert torch.equal(one, other), name
    moved = [one for one, other in zip(measured.parameters(), start.parameters(), strict=True) if not one.equal(other)]
    assert len(moved) == sum(parameter.requires_grad for parameter in start.parameters())


def test_flops_of_training_steps() -> None:
    """Full fine-tuning does each matrix product three times, a linear probe the backbone's once.

    Attention is two products forward; backward it makes the scores anew and has four more.
    """
    images, labels = torch.randn(4, 3, 40, 40), torch.tensor([0, 1, 2, 0])
    flops = {
        method: count_flops(speed.MeasuredStep(model(method).train(), images, labels, 3))
        for method in ("full", "linear")
    }
    width, tokens, blocks, patch = 128, 26, 6, 3 * 8 * 8
    products = 4 * blocks * tokens * (4 * width * width + 2 * 4 * width * width)  # multiply-adds of a forward pass
    scores = 4 * blocks * tokens**2 * width  # of one product of attention
    stem, head = 4 * (tokens - 1) * patch * width, 4 * width * 3
    # images need no gradient, features no gradient where the backbone is frozen
    assert flops["full"].counted == 2 * (3 * products + (2 + 5) * scores + 2 * stem + 3 * head)
    assert flops["linear"].counted == 2 * (products + 2 * scores + stem + 2 * head)
    assert {"native_layer_norm", "gelu"} <= flops["linear"].uncounted
    assert not {"addmm", "mm", "convolution", "view", "t", "_scaled_dot_product_flash_attention_for_cpu"} & (
        flops["full"].uncounted
    )


@pytest.mark.parametrize("groups", [1, 2, 8])
@pytest.mark.parametrize("transposed", [False, True])
def test_flops_of_a_convolution_s_gradients(groups: int, transposed: bool) -> None:
    """Each takes what the convolution takes: two a multiply-add of every kernel entry at every place."""
    kind = torch.nn.ConvTranspose2d if transposed else torch.nn.Conv2d
    conv = kind(8, 8, 3, padding=1, groups=groups)
    x = torch.randn(2, 8, 5, 7)
    once = 2 * (2 * 5 * 7) * 9 * 8 * 8 // groups
    assert count_flops(lambda: conv(x)).counted == once
    assert count_flops(lambda: conv(x).sum().backward()).counted == 2 * once  # the weight's alone
    x.requires_grad_(True)
    assert count_flops(lambda: conv(x).sum().backward()).counted == 3 * once


def test_the_command_lists_and_saves(tmp_path: object) -> None:
    out = tmp_path / "steps.csv"
    arguments = ["--backbone", "test_vit", "--method", "lora", "--method", "linear", "--rounds", "2", "--warmup", "1"]
    result = CliRunner().invoke(steps.main, [*arguments, "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert "test_vit, batch 4, float32" in result.output
    lines = out.read_text().splitlines()
    assert lines[0] == "method,step,q1,q3,flops"
    flops = {line.split(",")[0]: float(line.split(",")[-1]) for line in lines[1:]}
    assert set(flops) == {"lora", "linear"}
    assert 0.3 < flops["linear"] < 0.4 < 0.6 < flops["lora"] < 0.8

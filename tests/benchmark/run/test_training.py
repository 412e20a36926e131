"""Training: the schedule, the optimizer, what methods are told, and when it gives up."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from msgspec.structs import replace
from torch import Tensor
from torch.nn import functional as F

from peftmark import BACKBONES, Anatomy, Method
from peftmark.benchmark.plan.protocol import Protocol, load_protocol
from peftmark.benchmark.run.step import make_optimizer
from peftmark.benchmark.run.training import Diverged, _schedule, steps_per_epoch, train
from peftmark.methods import AdaptedModel, Context, make_model
from peftmark.tasks import Classification


@dataclass
class Watched(Method):
    """Trains all and writes down what it is told."""

    seen: list[tuple[int, int, list[int]]] = field(default_factory=list)
    gradients: list[bool] = field(default_factory=list)
    steps: list[tuple[int, bool]] = field(default_factory=list)
    before: Tensor = field(default_factory=lambda: torch.zeros(()))
    dtypes: set[torch.dtype] = field(default_factory=set)
    factor: float = 1.0

    def adapt(self, anatomy: Anatomy) -> None:
        anatomy.train(lambda name, parameter: True)

    def loss(self, model: AdaptedModel, images: Tensor, labels: Tensor, context: Context) -> Tensor:
        assert model.training
        self.seen.append((context.epoch, context.step, images[:, 0, 0, 0].int().tolist()))
        logits = model(images)
        self.dtypes.add(logits.dtype)
        return F.cross_entropy(logits.float(), labels) * self.factor

    def after_backward(self, model: AdaptedModel, context: Context) -> None:
        self.gradients.append(all(parameter.grad is not None for parameter in model.parameters()))
        self.before = model.head.weight.detach().clone()

    def after_step(self, model: AdaptedModel, context: Context) -> None:
        assert model.head.weight.grad is not None
        self.steps.append((context.step, not torch.equal(model.head.weight, self.before)))


def protocol(**changes: Any) -> Protocol:
    return load_protocol("embedded-v1", {"epochs": 3, "batch_size": 5, "warmup_epochs": 0, **changes})


IMAGES = torch.rand(12, 3, 8, 8, generator=torch.Generator().manual_seed(0))
IMAGES[:, 0, 0, 0] = torch.arange(12)  # a number to know it by
LABELS = torch.arange(12) % 2


@pytest.fixture
def model(toy_plugin: Path) -> AdaptedModel:
    torch.manual_seed(0)
    return make_model(BACKBONES["toy/pixels"]("toy/pixels").build(False), Watched(), Classification(2)).train()


def go(model: AdaptedModel, settings: Protocol, rate: float = 0.01, seed: int = 0) -> list[dict[str, float]]:
    context = Context(settings.epochs, steps_per_epoch(len(LABELS), settings), ("a", "b"))
    return train(model, IMAGES, LABELS, settings, rate, context, seed)


@pytest.mark.parametrize(
    ("epoch", "share"),
    [(0.0, 0.0005), (1.0, 0.5005), (2.0, 1.0), (4.0, (1 + math.sqrt(0.5)) / 2), (6.0, 0.5), (10.0, 0.0)],
)
def test_warm_up_then_cosine(epoch: float, share: float) -> None:
    assert _schedule(epoch, protocol(epochs=10, warmup_epochs=2)) == pytest.approx(share, abs=1e-9)


def test_constant_and_without_warm_up() -> None:
    assert [_schedule(e, protocol(epochs=10, schedule="constant")) for e in (0, 5, 9.9)] == [1, 1, 1]
    assert _schedule(0, protocol(epochs=10)) == 1
    assert _schedule(5, protocol(epochs=10)) == pytest.approx(0.5)


def test_every_image_once_an_epoch_in_another_order(model: AdaptedModel) -> None:
    curve = go(model, protocol())
    watched = model.method
    assert [len(numbers) for _, _, numbers in watched.seen] == [5, 5, 2] * 3  # the last, smaller batch is kept
    assert [(epoch, step) for epoch, step, _ in watched.seen] == [(i // 3, i) for i in range(9)]
    assert watched.gradients == [True] * 9
    assert watched.steps == [(i + 1, True) for i in range(9)]
    orders = [[n for e, _, batch in watched.seen if e == epoch for n in batch] for epoch in range(3)]
    assert all(sorted(order) == list(range(12)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3
    assert [entry["epoch"] for entry in curve] == [1, 2, 3]


def test_two_steps_of_sgd_by_hand(model: AdaptedModel) -> None:
    """Momentum 0.9, gradients of one batch at a time."""
    twin = copy.deepcopy(model)
    parameters = list(twin.parameters())
    velocity, losses = [torch.zeros_like(parameter) for parameter in parameters], []
    for _ in range(2):
        loss = F.cross_entropy(twin(IMAGES), LABELS)
        losses.append(loss.item())
        velocity = [0.9 * v + g for v, g in zip(velocity, torch.autograd.grad(loss, parameters), strict=True)]
        with torch.no_grad():
            for parameter, v in zip(parameters, velocity, strict=True):
                parameter -= 0.1 * v
    curve = go(model, protocol(optimizer="sgd", schedule="constant", epochs=2, batch_size=12, weight_decay=0), 0.1)
    for trained, by_hand in zip(model.parameters(), parameters, strict=True):
        torch.testing.assert_close(trained, by_hand)
    assert [entry["train_loss"] for entry in curve] == pytest.approx(losses)
    assert [entry["learning_rate"] for entry in curve] == [0.1, 0.1]


def test_train_loss_is_the_mean_over_images_and_the_rate_the_last(model: AdaptedModel) -> None:
    """A rate of (almost) zero keeps the model, so every batch has its own loss of the same model."""
    settings = protocol(epochs=1)
    losses = F.cross_entropy(model(IMAGES), LABELS, reduction="none")
    [entry] = go(model, settings, rate=1e-12)
    assert entry["train_loss"] == pytest.approx(losses.mean().item(), rel=1e-5)
    assert entry["learning_rate"] == pytest.approx(1e-12 * _schedule(2 / 3, settings), rel=1e-6, abs=0)


def test_only_matrices_are_decayed(model: AdaptedModel) -> None:
    parameters = list(model.parameters())
    for name, kind in (("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)):
        optimizer = make_optimizer(model, name, 0.1, weight_decay=0.3)
        assert type(optimizer) is kind
        decay = {p.dim(): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
        assert decay == {2: 0.3, 1: 0.0}
        assert sum(len(group["params"]) for group in optimizer.param_groups) == len(parameters)
    for parameter in parameters:
        parameter.requires_grad_(parameter.dim() == 1)
    only_biases = make_optimizer(model, "adamw", 0.1, weight_decay=0.3)
    assert only_biases is not None
    assert len(only_biases.param_groups) == 1
    assert make_optimizer(model.requires_grad_(False), "adamw", 0.1, weight_decay=0.3) is None


def test_the_head_has_a_rate_of_its_own(model: AdaptedModel) -> None:
    """Where the protocol has one: a step of SGD moves every parameter by its rate times its gradient."""
    start, other = copy.deepcopy(model), copy.deepcopy(model)
    settings = protocol(
        epochs=1, batch_size=12, optimizer="sgd", weight_decay=0.0, schedule="constant", warmup_epochs=0
    )
    go(model, settings, rate=0.1)
    go(other, replace(settings, head_learning_rate=0.3), rate=0.1)
    head = {name for name, parameter in model.named_parameters() if name.startswith("head.")}
    assert len(head) == 2
    for (name, before), at_rate, own in zip(
        start.named_parameters(), model.parameters(), other.parameters(), strict=True
    ):
        factor = 3.0 if name in head else 1.0
        torch.testing.assert_close(own - before, factor * (at_rate - before), rtol=1e-4, atol=1e-7)
        assert not torch.equal(own, before)


def state(model: AdaptedModel) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


def test_the_seed_decides_everything(model: AdaptedModel) -> None:
    same, other = copy.deepcopy(model), copy.deepcopy(model)
    assert go(model, protocol()) == go(same, protocol())
    assert all(torch.equal(a, b) for a, b in zip(state(model), state(same), strict=True))
    go(other, protocol(), seed=1)
    assert not all(torch.equal(a, b) for a, b in zip(state(model), state(other), strict=True))


def test_the_global_generator_does_not_decide_the_order(model: AdaptedModel) -> None:
    other = copy.deepcopy(model)
    go(model, protocol())
    torch.manual_seed(99)
    go(other, protocol())
    assert model.method.seen == other.method.seen


@pytest.mark.parametrize("factor", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_ends_it(model: AdaptedModel, factor: float) -> None:
    model.method.factor = factor
    with pytest.raises(Diverged, match=rf"^the loss is {factor} in epoch 1, at learning rate 0\.01$"):
        go(model, protocol())
    assert len(model.method.seen) == 3  # the epoch that it happens in is the last


@pytest.mark.parametrize("epoch", [0, 2])
def test_the_first_loss_that_is_not_finite_is_named(model: AdaptedModel, epoch: int) -> None:
    """Also where it has led to another error in the same epoch."""

    def loss(model: AdaptedModel, images: Tensor, labels: Tensor, context: Context) -> Tensor:
        if context.step == 3 * epoch + 2:
            raise RuntimeError("singular matrix")
        return F.cross_entropy(model(images), labels) * (math.inf if context.step == 3 * epoch + 1 else 1.0)

    model.method.loss = loss
    rate = 0.01 * _schedule(epoch + 1 / 3, protocol())
    with pytest.raises(Diverged, match=rf"^the loss is inf in epoch {epoch + 1}, at learning rate {rate:.3g}$"):
        go(model, protocol())


def test_nothing_to_train(model: AdaptedModel) -> None:
    before = state(model)
    assert go(model, protocol(epochs=0)) == []
    model.requires_grad_(False)
    assert go(model, protocol()) == []
    assert model.method.seen == []
    assert all(torch.equal(a, b) for a, b in zip(before, state(model), strict=True))


def test_what_is_frozen_stays(model: AdaptedModel) -> None:
    model.backbone.requires_grad_(False)
    before = model.backbone.weight.clone()
    head = model.head.weight.detach().clone()
    go(model, protocol(weight_decay=0.5))
    assert torch.equal(model.backbone.weight, before)
    assert not torch.equal(model.head.weight, head)


@pytest.mark.parametrize(("precision", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_precision(model: AdaptedModel, precision: str, dtype: torch.dtype) -> None:
    go(model, protocol(precision=precision))
    assert model.method.dtypes == {dtype}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


@pytest.mark.parametrize(("n", "steps"), [(1, 1), (5, 1), (6, 2), (12, 3)])
def test_steps_per_epoch(n: int, steps: int) -> None:
    assert steps_per_epoch(n, protocol()) == steps

"""What saves memory changes no result but by its rounding: checkpointing not at all, fewer bits a little."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from peftmark.adapting import adapt
from peftmark.backbones import find_backbone
from peftmark.backbones.anatomy.quantized import hold, is_quantized, plain
from peftmark.benchmark.plan.runs import Request, plan
from peftmark.benchmark.run.memory_savings import checkpointed, hold_frozen
from peftmark.benchmark.run.run import run
from peftmark.errors import NotMergeable, PeftmarkError
from peftmark.methods import AdaptedModel, Context, make_method
from peftmark.registry import METHODS

IMAGE_METHODS = [name for name in METHODS.expand("*") if "image" in METHODS.entry(name).metadata["tracks"]]
CONTEXT = Context(epochs=1, steps_per_epoch=1, class_names=("a", "b", "c"))
IMAGES, LABELS = torch.randn(4, 3, 40, 40, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 1, 2, 0])
QUANTIZED_ERROR = {"bfloat16": 0.004, "int8": 0.01, "nf4": 0.12}
"""Relative errors of a matrix of normal numbers: half a step of 8 bits of mantissa, of 127 steps, of 15 levels."""


def adapted(method: str) -> AdaptedModel:
    torch.manual_seed(0)
    config = {"keep": 0.05} if method in ("diff_pruning", "fish_mask", "magnitude_mask") else {}
    batches = [(IMAGES, LABELS)] if make_method(method).needs_batches else None
    anatomy = find_backbone("embedded/vit").build(pretrained=False)
    return adapt(anatomy, method, num_classes=3, batches=batches, **config)


def gradients(model: AdaptedModel, enabled: bool) -> dict[str, Tensor | None]:
    torch.manual_seed(3)
    with checkpointed(model.anatomy, enabled):
        loss = model.method.loss(model, IMAGES, LABELS, CONTEXT)
    loss.backward()
    model.method.after_backward(model, CONTEXT)
    return {name: p.grad for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("method", IMAGE_METHODS)
def test_checkpointing_changes_no_gradient(method: str) -> None:
    one, other = gradients(adapted(method), False), gradients(adapted(method), True)
    for (name, expected), found in zip(one.items(), other.values(), strict=True):
        assert (expected is None) == (found is None), name
        if expected is not None:
            assert torch.equal(expected, found), name


def test_checkpointing_leaves_no_trace() -> None:
    model = adapted("lora")
    with checkpointed(model.anatomy):
        assert all("forward" in vars(block.module) for block in model.anatomy.blocks)
    assert not any("forward" in vars(module) for module in model.modules())


@pytest.mark.parametrize("dtype", QUANTIZED_ERROR)
def test_a_product_with_a_held_matrix(dtype: str) -> None:
    """Output and the input's gradient are those of the matrix as it is held, and close to the original's."""
    torch.manual_seed(0)
    linear = nn.Linear(128, 256).requires_grad_(False)
    nn.init.normal_(linear.weight)
    before = linear.weight.clone()
    hold(linear, dtype)
    held = plain(linear.weight).float()
    assert ((held - before).norm() / before.norm()) < QUANTIZED_ERROR[dtype]
    assert is_quantized(linear.weight) == (dtype != "bfloat16")
    x = torch.randn(5, 128, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        y = linear(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), F.linear(x, held, linear.bias), rtol=0.02, atol=0.2)
    upstream = torch.randn(5, 256)
    y.backward(upstream.bfloat16())
    assert x.grad is not None
    torch.testing.assert_close(x.grad, upstream @ held, rtol=0.02, atol=0.5)


def test_a_bias_of_an_int8_matrix_trains() -> None:
    linear = nn.Linear(128, 8)
    linear.weight.requires_grad_(False)
    hold(linear, "int8")
    with torch.autocast("cpu", torch.bfloat16):
        linear(torch.randn(2, 5, 128)).sum().backward()
    assert linear.bias.grad is not None
    assert linear.bias.grad.tolist() == [10.0] * 8


def test_what_nf4_cannot_hold_is_held_in_bfloat16() -> None:
    linear = nn.Linear(10, 10).requires_grad_(False)
    hold(linear, "nf4")
    assert linear.weight.dtype == torch.bfloat16
    assert not is_quantized(linear.weight)


def test_what_trains_and_what_was_inserted_stays() -> None:
    model = adapted("partial")
    hold_frozen(model, "int8")
    for name, module in model.backbone.named_modules():
        if isinstance(module, nn.Linear):
            assert is_quantized(module.weight) != module.weight.requires_grad, name
    model = adapted("vera")
    hold_frozen(model, "bfloat16")
    assert {p.dtype for n, p in model.named_parameters() if "slots" in n} == {torch.float32}
    assert model.backbone.blocks[0].attn.qkv.weight.dtype == torch.bfloat16
    assert model.backbone.blocks[0].norm1.weight.dtype == torch.float32


def test_what_is_held_in_few_bits_is_not_merged() -> None:
    model = adapted("lora")
    hold_frozen(model, "nf4")
    with pytest.raises(NotMergeable, match="weights that are held in nf4 cannot take a change"):
        model.merge()
    with torch.autocast("cpu", torch.bfloat16):
        assert model(IMAGES).shape == (4, 3)


@pytest.mark.parametrize("method", IMAGE_METHODS)
@pytest.mark.parametrize("dtype", ["int8", "nf4"])
def test_every_method_trains_on_held_matrices(method: str, dtype: str) -> None:
    model = adapted(method)
    hold_frozen(model, dtype)
    with torch.autocast("cpu", torch.bfloat16):
        loss = model.method.loss(model, IMAGES, LABELS, CONTEXT)
    loss.backward()
    assert torch.isfinite(loss)
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


VARIANTS: list[dict[str, Any]] = [
    {"gradient_checkpointing": True},
    {"precision": "bfloat16", "frozen_dtype": "bfloat16"},
    {"precision": "bfloat16", "frozen_dtype": "int8"},
]


@pytest.mark.parametrize("settings", VARIANTS)
def test_a_run_under_a_variant(settings: dict[str, Any], checkpoint: Any, toy_plugin: Any) -> None:
    """A deviation from the protocol, that is said; checkpointing gives the very same predictions."""

    def record(**more: Any) -> Any:
        made = plan(
            Request(
                methods=["lora"],
                backbones=[f"embedded/vit@{checkpoint}"],
                tasks=["toy/bright"],
                protocol_settings={"epochs": 1, "warmup_epochs": 0, **more},
            )
        )
        return run(made.specs[0], torch.device("cpu"), made.checkpoints.get(made.specs[0].backbone.weights))

    found, expected = record(**settings), record()
    assert (found.status, found.error) == ("ok", None)
    assert all(f"{key}={value}" in found.protocol_deviation for key, value in settings.items())
    if "gradient_checkpointing" in settings:
        assert found.quality.curve == expected.quality.curve
        assert found.quality.predictions_sha256 == expected.quality.predictions_sha256
    else:
        assert found.quality.curve[0]["train_loss"] == pytest.approx(expected.quality.curve[0]["train_loss"], rel=0.1)


def test_fewer_bits_than_the_precision_allows_are_refused_when_planning() -> None:
    request = Request(
        methods=["lora"],
        backbones=["embedded/vit"],
        tasks=["embedded/digits"],
        protocol_settings={"frozen_dtype": "int8"},
    )
    with pytest.raises(PeftmarkError, match="frozen_dtype=int8 needs precision=bfloat16"):
        plan(request)

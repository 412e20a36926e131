"""Our own methods equal Hugging Face PEFT's: logits, gradients, and the weights that a merge leaves."""

from __future__ import annotations

import pytest
import torch
from bridged import CASE, adapted, vit
from invariants import labels
from torch import nn
from torch.nn import functional as F

peft = pytest.importorskip("peft")

ALL = ["q", "k", "v", "proj", "fc1", "fc2"]
Pairs = list[tuple[torch.Tensor, torch.Tensor]]


def lora_pairs(ours: list[nn.Module], theirs: list[nn.Module]) -> Pairs:
    pairs = [(o.down, t.lora_A["default"].weight) for o, t in zip(ours, theirs, strict=True)]
    return pairs + [(o.up, t.lora_B["default"].weight) for o, t in zip(ours, theirs, strict=True)]


def dora_pairs(ours: list[nn.Module], theirs: list[nn.Module]) -> Pairs:
    magnitudes = [
        (o.magnitude, t.lora_magnitude_vector["default"].weight) for o, t in zip(ours[1::2], theirs, strict=True)
    ]
    return lora_pairs(ours[::2], theirs) + magnitudes


def vera_pairs(ours: list[nn.Module], theirs: list[nn.Module]) -> Pairs:
    pairs = [(o.d, t.vera_lambda_d["default"]) for o, t in zip(ours, theirs, strict=True)]
    pairs += [(o.b, t.vera_lambda_b["default"]) for o, t in zip(ours, theirs, strict=True)]
    frozen = ours[0].projections
    return [*pairs, (frozen.down, theirs[0].vera_A["default"]), (frozen.up, theirs[0].vera_B["default"])]


def ia3_pairs(ours: list[nn.Module], theirs: list[nn.Module]) -> Pairs:
    return [(o.scale, t.ia3_l["default"]) for o, t in zip(ours, theirs, strict=True)]


NATIVE = {
    "lora": (
        {"rank": 4, "alpha": 6.0, "targets": ALL},
        "peft/lora",
        {"r": 4, "lora_alpha": 6, "targets": ALL},
        lora_pairs,
    ),
    "dora": (
        {"rank": 4, "alpha": 6.0, "targets": ALL},
        "peft/lora",
        {"r": 4, "lora_alpha": 6, "targets": ALL, "use_dora": True},
        dora_pairs,
    ),
    "vera": ({"rank": 16, "targets": ALL}, "peft/vera", {"r": 16, "targets": ALL}, vera_pairs),
    "ia3": ({}, "peft/ia3", {}, ia3_pairs),
}


@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-5), (torch.float64, 1e-12)], ids=str)
@pytest.mark.parametrize("name", NATIVE)
def test_native_equals_bridge(name: str, dtype: torch.dtype, close: float) -> None:
    """From the same weights, far from their start: logits, every gradient, and the weights that a merge leaves."""
    config, their_name, their_config, pairs_of = NATIVE[name]
    ours, theirs = adapted(name, **config).to(dtype), adapted(their_name, **their_config).to(dtype)
    pairs = pairs_of([i.insert for i in ours.anatomy.log], [i.insert.layer for i in theirs.anatomy.log])
    generator = torch.Generator().manual_seed(3)
    pairs += zip(ours.head.parameters(), theirs.head.parameters(), strict=True)
    with torch.no_grad():
        for our, their in pairs:
            our.add_(torch.randn(our.shape, generator=generator).to(dtype) * 0.2)
            their.copy_(our.view(their.shape))
    assert ours.trainable_parameters() == theirs.trainable_parameters()
    outputs, images = [], []
    for model in (ours, theirs):
        images.append(CASE.images().to(dtype).requires_grad_())
        outputs.append(model(images[-1]))
        F.cross_entropy(outputs[-1], labels()).backward()
    bare = vit().pooled(CASE.images())
    assert (ours.anatomy.pooled(images[0]) - bare).abs().max() > 0.05
    torch.testing.assert_close(outputs[1], outputs[0], rtol=close, atol=close)
    torch.testing.assert_close(images[1].grad, images[0].grad, rtol=close, atol=close)
    trained = [(our, their) for our, their in pairs if our.requires_grad]
    assert sum(our.numel() for our, _ in trained) == ours.trainable_parameters()
    for our, their in trained:
        assert our.grad.abs().max() > 0
        torch.testing.assert_close(their.grad.view(our.shape), our.grad, rtol=close, atol=close)
    ours.merge()
    theirs.merge()
    for (our_name, our), (their_name, their) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        assert our_name == their_name
        torch.testing.assert_close(their, our, rtol=close, atol=close)

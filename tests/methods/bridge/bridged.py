"""What the tests of the bridge to Hugging Face PEFT have in common."""

from __future__ import annotations

from typing import Any

import torch
from invariants import CLASS_NAMES, Case, train_a_little

from peftmark.adapting import adapt
from peftmark.backbones import Anatomy
from peftmark.methods import AdaptedModel

CASE = Case("peft/lora", "image")


def vit() -> Anatomy:
    """A random embedded ViT whose biases and norms are not zeros and ones, always the same."""
    anatomy = CASE.anatomy()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in anatomy.root.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return anatomy


def adapted(method: str, seed: int = 1, **config: Any) -> AdaptedModel:
    anatomy = vit()
    torch.manual_seed(seed)
    return adapt(anatomy, method, num_classes=len(CLASS_NAMES), **config)


def features(model: AdaptedModel | Anatomy) -> torch.Tensor:
    anatomy = model.anatomy if isinstance(model, AdaptedModel) else model
    anatomy.root.eval()
    with torch.no_grad():
        return anatomy.pooled(CASE.images())


def train(model: AdaptedModel, steps: int = 3, total: int | None = None) -> dict[str, bool]:
    """A few AdamW steps with decay, of `total`; which trainable tensors ever had a gradient that is not zero."""
    torch.manual_seed(0)
    return train_a_little(model, CASE, steps, total)

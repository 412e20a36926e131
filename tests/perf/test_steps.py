"""Training steps: of every method against full fine-tuning's, of native methods against Hugging Face PEFT's own."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from peftmark import METHODS
from peftmark.adapting import adapt
from peftmark.benchmark.measure.speed import MeasuredStep
from peftmark.errors import Unsupported
from peftmark.methods import make_method

SMALL, LARGE = "vit_tiny_patch16_224", "vit_base_patch16_224"
CLASSES, BATCH = 100, 4
QV = ["q", "v"]

IMAGE_METHODS = [
    name
    for name in METHODS.names()
    if "image" in METHODS.entry(name).metadata["tracks"] and not name.endswith("/*") and name != "full"
]

PEFT = {
    "lora": ("peft/lora", {"r": 8, "lora_alpha": 8, "targets": QV}),
    "dora": ("peft/lora", {"r": 8, "lora_alpha": 8, "targets": QV, "use_dora": True}),
    "vera": ("peft/vera", {"r": 256, "targets": QV}),
    "ia3": ("peft/ia3", {}),
}
"""The native methods that `tests/methods/test_peft.py` shows to equal PEFT's, with their defaults in PEFT's terms."""


def data() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(BATCH, 3, 224, 224, generator=generator)
    return images, torch.randint(CLASSES, (BATCH,), generator=generator)


def step(backbone: str, method: str, **config: Any) -> MeasuredStep:
    """On a random backbone: loss, backward, AdamW; with nothing to train, a forward pass."""
    torch.manual_seed(0)
    images, labels = data()
    batches = [(images, labels)] if make_method(method, config).needs_batches else None
    model = adapt(backbone, method, num_classes=CLASSES, pretrained=False, batches=batches, **config)
    return MeasuredStep(model, images, labels, CLASSES)


@pytest.fixture(scope="module")
def full() -> MeasuredStep:
    return step(SMALL, "full")


@pytest.mark.parametrize("method", ["full", *IMAGE_METHODS])
def test_step_against_full(compare, full: MeasuredStep, method: str) -> None:
    """Full fine-tuning against itself comes first: what is between its quartiles is noise."""
    try:
        candidate = step(SMALL, method)
    except Unsupported as error:
        pytest.skip(str(error))
    compare(candidate, full, target=None, pairs=15, warmup=2)


@pytest.mark.parametrize("method", PEFT)
def test_step_against_hf_peft(compare, method: str) -> None:
    """In PEFT's model q, k and v are layers of their own, as PEFT needs them."""
    pytest.importorskip("peft")
    name, config = PEFT[method]
    ours, theirs = step(LARGE, method), step(LARGE, name, **config)
    assert ours.model.trainable_parameters() == theirs.model.trainable_parameters()
    compare(ours, theirs, target=1.03, pairs=15, warmup=2)


def test_step_of_equals(compare) -> None:
    """Two models that are the same: how far from 1 the ratios above can be by chance."""
    compare(step(LARGE, "lora"), step(LARGE, "lora"), target=1.03, pairs=15, warmup=2)

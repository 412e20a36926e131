"""How methods start on the backbone of the papers."""

from __future__ import annotations

import copy
import gc
from functools import lru_cache

import pytest
import torch
from torch import Tensor

from peftmark import METHODS
from peftmark.backbones import Anatomy, find_backbone
from peftmark.methods import adapt

IMAGE_METHODS = [name for name in METHODS.expand("*") if "image" in METHODS.entry(name).metadata["tracks"]]


@lru_cache(maxsize=1)
def vit_b16() -> tuple[Anatomy, Tensor, Tensor]:
    """Random weights, an image, and the bare backbone's features of it."""
    torch.manual_seed(0)
    anatomy = find_backbone("vit_base_patch16_224").build(pretrained=False)
    image = torch.randn(1, 3, 224, 224)
    anatomy.root.eval()
    with torch.no_grad():
        return anatomy, image, anatomy.pooled(image)


@pytest.mark.parametrize("method", IMAGE_METHODS)
def test_starts_as_the_bare_backbone(method: str) -> None:
    gc.collect()  # a model and its anatomy know each other: 0.4 GB of the test before, and its gradients
    anatomy, image, bare = vit_b16()
    config = {"epochs": 1} if method == "diff_pruning" else {}  # a step of its search holds six times the backbone
    # fish_mask and its kin pay for the head from their budget: two classes leave most of it
    model = adapt(copy.deepcopy(anatomy), method, num_classes=2, batches=[(image, torch.tensor([0]))], **config)
    model.eval()
    with torch.no_grad():
        assert torch.equal(model.features(image), bare) == METHODS[method].identity_at_start

"""How methods start on the backbone of the papers."""

from __future__ import annotations

import copy
import gc
from collections.abc import Iterator
from functools import lru_cache

import pytest
import torch
from torch import Tensor

from peftmark import METHODS
from peftmark.adapting import adapt
from peftmark.backbones import Anatomy
from peftmark.benchmark.launch.malloc import return_freed_memory
from peftmark.benchmark.support import Family

IMAGE_METHODS = [name for name in METHODS.expand("*") if "image" in METHODS.entry(name).metadata["tracks"]]


@lru_cache(maxsize=2)
def vit_b16(depth: int) -> tuple[Anatomy, Tensor, Tensor]:
    """Random weights, an image, and the bare backbone's features of it."""
    anatomy = Family("ViT-B/16", "", "vit_base_patch16_224", {"depth": depth}).anatomy()
    image = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    anatomy.root.eval()
    with torch.no_grad():
        return anatomy, image, anatomy.pooled(image)


@pytest.fixture(scope="module", autouse=True)
def forgotten() -> Iterator[None]:
    """Models that the tests share are not kept for those of other files."""
    yield
    vit_b16.cache_clear()
    gc.collect()
    return_freed_memory()


@pytest.mark.usefixtures("gigabytes")
@pytest.mark.parametrize("method", IMAGE_METHODS)
def test_starts_as_the_bare_backbone(method: str) -> None:
    # of the 12 blocks two where parameters are scored: scores of all hold gigabytes, diff_pruning's search 7
    anatomy, image, bare = vit_b16(2 if METHODS[method].needs_batches else 12)
    config = {"epochs": 1} if method == "diff_pruning" else {}
    # fish_mask and its kin pay for the head from their budget: two classes leave most of it
    model = adapt(copy.deepcopy(anatomy), method, num_classes=2, batches=[(image, torch.tensor([0]))], **config)
    model.eval()
    with torch.no_grad():
        assert torch.equal(model.features(image), bare) == METHODS[method].identity_at_start

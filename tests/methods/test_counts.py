"""Trainable parameters, head excluded, on the backbones of the papers: exact (METHODS.md)."""

from __future__ import annotations

from functools import lru_cache

import pytest
import torch

from peftmark import METHODS
from peftmark.backbones import Anatomy, find_backbone
from peftmark.methods import adapt

D, BLOCKS, FFN = 768, 12, 3072

VIT_B16 = {
    ("adaptformer", ()): 1_189_632,
    ("adaptformer", (("bottleneck", 8),)): 156_768,
    ("bitfit", ()): 102_912,
    ("full", ()): 85_798_656,
    ("layernorm", ()): 38_400,
    ("linear", ()): 0,
    ("lora", ()): 294_912,
    # q, k, v and proj: D -> D; fc1: D -> FFN; fc2: FFN -> D; rank·(in + out) each
    ("lora", (("rank", 4), ("targets", ("q", "k", "v", "proj", "fc1", "fc2")))): BLOCKS
    * 4
    * (4 * 2 * D + 2 * (D + FFN)),
    ("pfeiffer_adapter", ()): 156_768,
    ("pfeiffer_adapter", (("reads", "output+residual"),)): 156_768,
    ("scratch", ()): 85_798_656,
    ("ssf", ()): 205_824,
    ("vpt_deep", ()): 9_216 * 10,
    ("vpt_deep", (("prompt_length", 1),)): 9_216,
}
CLIP_B16 = {
    ("coop", ()): 8_192,
    ("coop", (("n_ctx", 4),)): 2_048,
    ("coop", (("init_words", "a photo of a"),)): 2_048,
    # one context a class: 3 classes
    ("coop", (("class_specific", True),)): 3 * 8_192,
    ("zero_shot", ()): 0,
    # the ViT-B/16 above, whose patch embedding has a bias where CLIP has a norm before the blocks
    ("layernorm", ()): 38_400 + 2 * D,
    ("lora", ()): 294_912,
}


@lru_cache(maxsize=1)
def _anatomy(name: str) -> Anatomy:
    return find_backbone(name).build(pretrained=False)


def _count(backbone: str, method: str, config: tuple[tuple[str, object], ...], **classes: object) -> int:
    """On a backbone without storage: counts need shapes only."""
    with torch.device("meta"):
        model = adapt(find_backbone(backbone).build(pretrained=False), method, **classes, **dict(config))
    return model.trainable_parameters(include_head=False)


@pytest.mark.parametrize(("key", "count"), VIT_B16.items(), ids=str)
def test_vit_b16(key: tuple[str, tuple[tuple[str, object], ...]], count: int) -> None:
    assert _count("vit_base_patch16_224", *key, num_classes=100) == count


@pytest.mark.parametrize(("key", "count"), CLIP_B16.items(), ids=str)
def test_clip_b16(key: tuple[str, tuple[tuple[str, object], ...]], count: int) -> None:
    model = adapt(_clip(), key[0], class_names=["cat", "dog", "owl"], pretrained=False, **dict(key[1]))
    assert model.trainable_parameters(include_head=False) == count


def _clip() -> Anatomy:
    import copy

    return copy.deepcopy(_anatomy("open_clip/ViT-B-16"))


def test_every_method_has_a_count() -> None:
    """A method that changes nothing of its own (`frame_mean`) is counted by the method that it runs."""
    counted = {name for name, _ in (*VIT_B16, *CLIP_B16)}
    assert set(METHODS.names()) - counted == {"frame_mean"}


def test_the_head_is_counted_apart() -> None:
    with torch.device("meta"):
        model = adapt(find_backbone("vit_base_patch16_224").build(pretrained=False), "bitfit", num_classes=100)
    assert model.trainable_parameters() - model.trainable_parameters(include_head=False) == 100 * (D + 1)

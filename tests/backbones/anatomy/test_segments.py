"""Segments: they make up the library's own forward pass, and a model starts from each of them."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from inserts import build
from test_anatomy_families import FAMILIES, images_for, small
from torch import Tensor

from peftmark import Method
from peftmark.backbones import Anatomy
from peftmark.backbones.anatomy.segments import run_segments
from peftmark.methods import make_model
from peftmark.tasks import Classification, OpenVocabulary

BLOCKS = {
    "swin": 4,
    "padded swin": 4,
    "convnext": 5,
    "convnext of convolutions": 5,
    "convnext v2": 5,
    "convnext with two stem convolutions": 5,
    "convnext normed before pooling": 5,
    "siglip": 2,
    "mean of patches": 2,
    "giant dinov2": 2,
}


@pytest.mark.parametrize("family", FAMILIES)
def test_segments_are_timm_s_own_forward(family: str) -> None:
    """From block to block: rotary or relative positions, layer scales and registers would show."""
    anatomy = small(family)
    segments = anatomy.segments("pooled")
    assert [s.name for s in segments] == ["stem", *(f"block {i}" for i in range(BLOCKS[family])), "tail"]
    images = images_for(anatomy)
    with torch.no_grad():
        features = run_segments(segments, images)
        assert torch.equal(features, anatomy.pooled(images))
        assert torch.equal(features, anatomy.model(images))
        assert not torch.equal(features, run_segments(segments[:1] + segments[2:], images))
    check_ownership(anatomy, "pooled", set())


def check_ownership(anatomy: Anatomy, output: Any, unused: set[str]) -> None:
    """Every parameter belongs to exactly one segment."""
    owners = {name: 0 for name, _ in anatomy.model.named_parameters()}
    names = {id(parameter): name for name, parameter in anatomy.model.named_parameters()}
    for segment in anatomy.segments(output):
        for parameter in (*segment.parameters, *(p for module in segment.modules for p in module.parameters())):
            owners[names[id(parameter)]] += 1
    assert {name for name, count in owners.items() if count == 0} == unused
    assert max(owners.values()) == 1


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "test_vit", "embedded/vit"])
def test_plain_transformers(name: str) -> None:
    anatomy = build(name)
    anatomy.model.eval()
    images = images_for(anatomy)
    with torch.no_grad():
        assert torch.equal(run_segments(anatomy.segments("pooled"), images), anatomy.model(images))
    assert len(anatomy.segments("pooled")) == len(anatomy.blocks) + 2
    check_ownership(anatomy, "pooled", set())


@pytest.mark.parametrize(("output", "last"), [("pooled", ["tail"]), ("projected", ["tail", "projection"])])
def test_the_image_tower_of_a_clip(output: Any, last: list[str]) -> None:
    anatomy = build("embedded/clip")
    segments = anatomy.segments(output)
    assert [segment.name for segment in segments] == ["stem", *(f"block {i}" for i in range(6)), *last]
    images = images_for(anatomy)
    with torch.no_grad():
        assert torch.equal(run_segments(segments, images), getattr(anatomy, output)(images))
    check_ownership(anatomy, output, {"proj"} if output == "pooled" else set())


def test_a_tower_that_timm_made() -> None:
    anatomy = build("open_clip/ViT-B-16-SigLIP")
    anatomy.model.eval()
    images = images_for(anatomy, n=1)
    for output in ("pooled", "projected"):
        segments = anatomy.segments(output)
        assert [segment.name for segment in segments] == ["stem", *(f"block {i}" for i in range(12)), "tail", "head"]
        with torch.no_grad():
            assert torch.equal(run_segments(segments, images), anatomy.model(images))
        check_ownership(anatomy, output, set())


@pytest.mark.parametrize("name", ["test_resnet", "swinv2_tiny_window8_256"])
def test_a_model_whose_parts_are_not_known_is_one_segment(name: str) -> None:
    anatomy = build(name)
    [whole] = anatomy.segments("pooled")
    anatomy.model.eval()
    images = images_for(anatomy, n=1)
    with torch.no_grad():
        assert torch.equal(whole.run(images), anatomy.pooled(images))
    assert whole.modules == (anatomy.model,)


def test_a_subclass_with_another_forward_is_one_segment() -> None:
    anatomy = build("test_vit")

    class Mirrored(type(anatomy.model)):  # type: ignore[misc]
        def forward_features(self, x: Tensor) -> Tensor:
            return super().forward_features(x.flip(-1))

    anatomy.model.__class__ = Mirrored
    assert len(anatomy.segments("pooled")) == 1


class Nothing(Method):
    """Leaves the backbone alone."""


@pytest.mark.parametrize("kind", ["image", "video", "open vocabulary"])
def test_a_model_starts_from_every_segment(kind: str) -> None:
    if kind == "open vocabulary":
        model = make_model(build("embedded/clip"), Nothing(), OpenVocabulary(("cat", "dog"), ("a {}.",)))
    else:
        model = make_model(build("embedded/vit"), Nothing(), Classification(3), 2 if kind == "video" else None)
    model.eval()
    shape = (3, 2, 3, 40, 40) if kind == "video" else (3, 3, 40, 40)
    images = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    segments = model.anatomy.segments(model.output)
    assert len(segments) == (9 if kind == "open vocabulary" else 8)
    with torch.no_grad():
        logits = model(images)
        for start in range(len(segments) + 1):
            inputs = run_segments(segments[:start], images.flatten(0, -4)).unflatten(0, shape[:-3])
            with model.start_from(start):
                assert torch.equal(model(inputs), logits), start
        assert torch.equal(model(images), logits)  # and from images again


def test_it_starts_from_images_again_after_an_error() -> None:
    model = make_model(build("embedded/vit"), Nothing(), Classification(2))
    with pytest.raises(RuntimeError), model.start_from(8):
        model(torch.zeros(1, 3, 40, 40))
    assert model(torch.zeros(1, 3, 40, 40)).shape == (1, 2)
    twin = copy.deepcopy(model)
    with model.start_from(8):
        assert twin(torch.zeros(1, 3, 40, 40)).shape == (1, 2)

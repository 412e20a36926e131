"""Segments: they make up the library's own forward pass, and what a method has touched is found whatever it did."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from inserts import Add, build
from test_anatomy_families import FAMILIES, images_for, small
from torch import Tensor, nn

from peftmark import Method
from peftmark.backbones import Anatomy
from peftmark.backbones.anatomy.segments import frozen_prefix, run_segments
from peftmark.backbones.anatomy.slots import module_slots
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


def unfreeze(parameter: nn.Parameter) -> None:
    parameter.requires_grad_(True)


def write_past_autograd(parameter: Tensor) -> None:
    parameter.data.view(-1)[0] += 1e-3


def replace(model: Any) -> None:
    model.blocks[2].mlp.act = nn.ReLU()


def monkeypatch_forward(model: Any) -> None:
    model.blocks[2].attn.forward = lambda x, **_: x


TOUCHES: dict[str, tuple[int, Callable[[Anatomy], object]]] = {
    "nothing": (8, lambda a: None),
    "a copy": (8, copy.deepcopy),
    "a class token": (0, lambda a: unfreeze(a.model.cls_token)),
    "a position": (0, lambda a: write_past_autograd(a.model.pos_embed)),
    "the patch embedding": (0, lambda a: unfreeze(a.model.patch_embed.proj.weight)),
    "a trainable bias": (4, lambda a: unfreeze(a.model.blocks[3].mlp.fc2.bias)),
    "a changed weight": (6, lambda a: write_past_autograd(a.model.blocks[5].attn.qkv.weight)),
    "an insert without parameters": (2, lambda a: a.blocks[1].mlp.add_serial(Add(1.0))),
    "an insert before a block": (1, lambda a: a.blocks[0].add_before(Add(0.0))),
    "empty slots": (5, lambda a: module_slots(a.model.blocks[4].norm1)),
    "split attention": (6, lambda a: a.blocks[5].attention.split()),
    "after the blocks": (7, lambda a: a.add_after_blocks(Add(1.0))),
    "the final norm": (7, lambda a: unfreeze(a.model.norm.weight)),
    "a replaced module": (3, lambda a: replace(a.model)),
    "another forward": (3, lambda a: monkeypatch_forward(a.model)),
    "a hook": (3, lambda a: a.model.blocks[2].register_forward_hook(lambda *_: None)),
    "a hook on the model": (0, lambda a: a.model.register_forward_pre_hook(lambda *_: None)),
    "a hook on all blocks": (0, lambda a: a.model.blocks.register_forward_hook(lambda *_: None)),
    "a setting": (4, lambda a: setattr(a.model.blocks[3].norm1, "eps", 0.1)),
    "a new child": (1, lambda a: a.model.blocks[0].add_module("more", nn.Linear(1, 1))),
}


@pytest.mark.parametrize("touch", TOUCHES)
@pytest.mark.parametrize("training", [True, False])
def test_the_first_segment_that_is_touched(touch: str, training: bool) -> None:
    """The embedded ViT: stem, six blocks, tail."""
    bare = build("embedded/vit")
    anatomy = copy.deepcopy(bare)
    expected, change = TOUCHES[touch]
    change(anatomy)
    anatomy.model.train(training)
    assert frozen_prefix(anatomy, bare, "pooled", training) == expected
    anatomy.clear()
    if touch in ("an insert without parameters", "empty slots", "the final norm", "split attention"):
        assert frozen_prefix(anatomy, bare, "pooled", training) == 8


def test_statistics_of_a_norm_count() -> None:
    bare = build("test_resnet")
    anatomy = copy.deepcopy(bare)
    assert frozen_prefix(anatomy, bare, "pooled", training=True) == 1
    anatomy.model.bn1.running_mean += 1
    assert frozen_prefix(anatomy, bare, "pooled", training=True) == 0


@pytest.mark.parametrize("where", ["pos_drop", "blocks.3.drop_path1", "blocks.5.attn.attn_drop"])
def test_what_draws_random_numbers_ends_the_prefix_in_training_only(where: str) -> None:
    from timm.layers import DropPath

    bare = build("embedded/vit")
    parent, _, child = where.rpartition(".")
    setattr(bare.model.get_submodule(parent), child, DropPath(0.1) if "path" in where else nn.Dropout(0.1))
    anatomy = copy.deepcopy(bare)
    assert frozen_prefix(anatomy, bare, "pooled", training=False) == 8
    expected = {"pos_drop": 0, "blocks.3.drop_path1": 4, "blocks.5.attn.attn_drop": 6}[where]
    assert frozen_prefix(anatomy, bare, "pooled", training=True) == expected


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

"""The untouched prefix: what a method has touched is found, whatever it did."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from inserts import Add, build
from torch import Tensor, nn

from peftmark.backbones import Anatomy
from peftmark.backbones.anatomy.prefix import untouched_prefix
from peftmark.backbones.anatomy.slots import module_slots


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
    assert untouched_prefix(anatomy, bare, "pooled", training) == expected
    anatomy.clear()
    if touch in ("an insert without parameters", "empty slots", "the final norm", "split attention"):
        assert untouched_prefix(anatomy, bare, "pooled", training) == 8


def test_statistics_of_a_norm_count() -> None:
    bare = build("test_resnet")
    anatomy = copy.deepcopy(bare)
    assert untouched_prefix(anatomy, bare, "pooled", training=True) == 1
    anatomy.model.bn1.running_mean += 1
    assert untouched_prefix(anatomy, bare, "pooled", training=True) == 0


@pytest.mark.parametrize("where", ["pos_drop", "blocks.3.drop_path1", "blocks.5.attn.attn_drop"])
def test_what_draws_random_numbers_ends_the_prefix_in_training_only(where: str) -> None:
    from timm.layers import DropPath

    bare = build("embedded/vit")
    parent, _, child = where.rpartition(".")
    setattr(bare.model.get_submodule(parent), child, DropPath(0.1) if "path" in where else nn.Dropout(0.1))
    anatomy = copy.deepcopy(bare)
    assert untouched_prefix(anatomy, bare, "pooled", training=False) == 8
    expected = {"pos_drop": 0, "blocks.3.drop_path1": 4, "blocks.5.attn.attn_drop": 6}[where]
    assert untouched_prefix(anatomy, bare, "pooled", training=True) == expected

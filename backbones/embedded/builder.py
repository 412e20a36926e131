"""The embedded backbones: a small CLIP pretrained on emoji, and its image tower as a timm ViT. No download."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor, nn

from ...errors import PeftmarkError
from ...registry import BACKBONES
from ..anatomy.anatomy import Anatomy
from ..backbone import Backbone
from ..weights import load_exactly, load_state_dict
from .clip import EMBED_DIM, IMAGE_MEAN, IMAGE_STD, WEIGHTS, load_clip, load_tokenizer

if TYPE_CHECKING:
    from open_clip import CLIP

INPUT_SHAPE = (3, 40, 40)


@BACKBONES.register("embedded/clip", family="embedded", aliases=("clip_embedded",))
class EmbeddedClip(Backbone):
    """A CLIP of 2 million parameters, pretrained on emoji drawings and their names (see backbones/embedded/README.md).

    Image tower: ViT of 6 blocks, width 128, 40-pixel images, patch 8. Both towers have their anatomy.
    """

    def weights_file(self) -> Path:
        return _weights_file(self)

    def input_shape(self) -> tuple[int, ...]:
        return INPUT_SHAPE

    def build(self, pretrained: bool) -> Anatomy:
        from ..open_clip.builder import clip_anatomy

        return clip_anatomy(self.name, _clip(self, pretrained), EMBED_DIM, load_tokenizer())


@BACKBONES.register("embedded/vit", family="embedded", aliases=("vit_embedded",))
class EmbeddedViT(Backbone):
    """The image tower of ``embedded/clip`` as a timm ViT (1.2 million parameters), without its projection to text."""

    def weights_file(self) -> Path:
        return _weights_file(self)

    def input_shape(self) -> tuple[int, ...]:
        return INPUT_SHAPE

    def build(self, pretrained: bool) -> Anatomy:
        from timm.models.vision_transformer import VisionTransformer

        from ..timm.builder import timm_anatomy

        model = VisionTransformer(
            img_size=INPUT_SHAPE[-1],
            patch_size=8,
            embed_dim=128,
            depth=6,
            num_heads=4,
            num_classes=0,
            pre_norm=True,
            norm_layer=partial(nn.LayerNorm, eps=1e-5),
        )
        if pretrained:
            model.load_state_dict(vit_state_dict(_clip(self, pretrained).visual.state_dict()))
        return timm_anatomy(self.name, model, {"input_size": INPUT_SHAPE, "mean": IMAGE_MEAN, "std": IMAGE_STD})


def _weights_file(backbone: Backbone) -> Path:
    if backbone.checkpoint is None and not WEIGHTS.is_file():
        raise PeftmarkError(f"{WEIGHTS} is missing: install peftmark again, or rebuild it with `make weights`")
    return backbone.checkpoint or WEIGHTS


def _clip(backbone: Backbone, pretrained: bool) -> CLIP:
    model = load_clip(pretrained=False)
    if pretrained:
        file = backbone.weights_file()
        load_exactly(file, model, load_state_dict(file))  # half precision on disk
    return model


def vit_state_dict(tower: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of an open_clip image tower under timm's names; its text projection is left out."""
    renamed = {
        "class_embedding": "cls_token",
        "positional_embedding": "pos_embed",
        "conv1.weight": "patch_embed.proj.weight",
    }
    parts = (
        ("transformer.resblocks.", "blocks."),
        ("ln_pre.", "norm_pre."),
        ("ln_post.", "norm."),
        (".ln_1.", ".norm1."),
        (".ln_2.", ".norm2."),
        (".attn.in_proj_", ".attn.qkv."),
        (".attn.out_proj.", ".attn.proj."),
        (".mlp.c_fc.", ".mlp.fc1."),
        (".mlp.c_proj.", ".mlp.fc2."),
    )
    state = {}
    for name, value in tower.items():
        if name == "proj":
            continue
        for old, new in parts:
            name = name.replace(old, new)
        name = renamed.get(name, name)
        state[name] = value.reshape(1, -1, value.shape[-1]) if name in ("cls_token", "pos_embed") else value
    return state

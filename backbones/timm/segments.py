"""The forward passes of timm's plain vision transformers, Swin and ConvNeXt in segments."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from timm.models.convnext import ConvNeXt
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from ...errors import Unsupported
from ..anatomy.anatomy import Anatomy
from ..anatomy.segments import Segment

KNOWN = (VisionTransformer, SwinTransformer, ConvNeXt)


def timm_segments(model: Any, pre_logits: bool = True) -> tuple[Segment, ...] | None:
    """Of a `VisionTransformer`, `SwinTransformer` or `ConvNeXt` that runs forward as timm wrote it; else None.

    Args:
        pre_logits: leave the model's own classifier out.
    """
    base = next((base for base in KNOWN if isinstance(model, base)), None)
    if base is None or any(
        getattr(type(model), name) is not getattr(base, name) for name in ("forward_features", "forward_head")
    ):
        return None
    if base is VisionTransformer:
        return _transformer(model, pre_logits)
    return _swin(model, pre_logits) if base is SwinTransformer else _convnext(model, pre_logits)


def token_segments(anatomy: Anatomy, model: Any) -> tuple[Segment, ...]:
    """The same up to the final-normed patch tokens on their grid (N, rows, columns, D); a model may norm after pooling.

    Raises:
        Unsupported: of a model that is none of these.
    """
    known = timm_segments(model)
    if known is None:
        raise Unsupported(f"{anatomy.name} has no patch tokens whose place is known")

    def of_transformer(x: Tensor) -> Tensor:
        x = model.norm(x)
        return anatomy.patches(model.fc_norm(x) if anatomy.norm.module is model.fc_norm else x)

    def of_convnext(x: Tensor) -> Tensor:
        x = model.norm_pre(x)
        return (x if anatomy.norm.module is model.norm_pre else model.head.norm(x)).movedim(1, -1)

    if isinstance(model, VisionTransformer):
        read = of_transformer
    else:
        read = model.norm if isinstance(model, SwinTransformer) else of_convnext
    return (*known[:-1], Segment("tokens", read, known[-1].modules))


def _transformer(model: Any, pre_logits: bool) -> tuple[Segment, ...]:
    def embed(images: Tensor) -> Tensor:
        return model.norm_pre(model.patch_drop(model._pos_embed(model.patch_embed(images))))

    def read_out(x: Tensor) -> Tensor:
        return model.forward_head(model.norm(x), pre_logits=pre_logits)

    pooling = () if model.attn_pool is None else (model.attn_pool,)
    tokens = (model.cls_token, model.reg_token, model.pos_embed)
    return (
        Segment(
            "stem",
            embed,
            (model.patch_embed, model.pos_drop, model.patch_drop, model.norm_pre),
            tuple(cast(nn.Parameter, token) for token in tokens if token is not None),
        ),
        *_blocks(((), block) for block in model.blocks),
        Segment("tail", read_out, (model.norm, *pooling, model.fc_norm, model.head_drop, model.head), pooled=True),
    )


def _swin(model: Any, pre_logits: bool) -> tuple[Segment, ...]:
    def read_out(x: Tensor) -> Tensor:
        return model.forward_head(model.norm(x), pre_logits=pre_logits)

    return (
        Segment("stem", model.patch_embed, (model.patch_embed,)),
        *_blocks(_staged(model.layers)),
        Segment("tail", read_out, (model.norm, model.head), pooled=True),
    )


def _convnext(model: Any, pre_logits: bool) -> tuple[Segment, ...]:
    def read_out(x: Tensor) -> Tensor:
        return model.forward_head(model.norm_pre(x), pre_logits=pre_logits)

    return (
        Segment("stem", model.stem, (model.stem,)),
        *_blocks(_staged(model.stages)),
        Segment("tail", read_out, (model.norm_pre, model.head), pooled=True),
    )


def _staged(stages: Iterable[Any]) -> Iterable[tuple[tuple[nn.Module, ...], nn.Module]]:
    """Every block, the first of a stage with the downsampling before it."""
    for stage in stages:
        for index, block in enumerate(stage.blocks):
            yield ((stage.downsample,) if index == 0 else ()), block


def _blocks(blocks: Iterable[tuple[tuple[nn.Module, ...], nn.Module]]) -> list[Segment]:
    return [_chain(f"block {index}", (*before, block)) for index, (before, block) in enumerate(blocks)]


def _chain(name: str, modules: tuple[nn.Module, ...]) -> Segment:
    def run(x: Tensor) -> Tensor:
        for module in modules:
            x = module(x)
        return x

    return Segment(name, run, modules)

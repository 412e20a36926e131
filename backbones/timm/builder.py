"""Every timm model as a backbone; plain vision transformers, Swin and ConvNeXt with their full anatomy."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import timm
from timm.layers.attention import Attention as TimmAttention
from timm.models.convnext import ConvNeXt, ConvNeXtBlock
from timm.models.swin_transformer import SwinTransformer, SwinTransformerBlock
from timm.models.vision_transformer import Block as TimmBlock
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from ...errors import PeftmarkError, Unsupported
from ...registry import BACKBONES
from ..anatomy.anatomy import Anatomy
from ..anatomy.inputs import Pixels
from ..anatomy.parts import Affine, Attention, Block, Insertion, Mlp
from ..anatomy.segments import Output, Segment, run_segments
from ..anatomy.slots import SlottedAttention, SlottedBlock
from ..backbone import Backbone
from ..weights import cannot_download, local_weights
from .segments import timm_segments, token_segments
from .weights import read_weights


@BACKBONES.register("timm/*", family="timm")
class TimmBackbone(Backbone):
    """Any timm model: ``timm/NAME[.tag]``, or the bare timm name.

    The tag says how images are normalised, with a local file too, unless the checkpoint's kind says it (MoCo-v3).
    """

    @property
    def architecture(self) -> str:
        """timm's own name, without the ``timm/``."""
        return self.name.removeprefix("timm/")

    def weights_file(self) -> Path:
        file = self._local_file()
        if file is not None:
            return file
        config = timm.get_pretrained_cfg(self.architecture)
        if config is None or not (config.hf_hub_id or config.url):
            raise PeftmarkError(f"{self.name} has no pretrained weights: name a file, --backbone {self.name}@FILE")
        if not config.hf_hub_id:
            raise cannot_download(self.name, FileNotFoundError(f"timm serves it at {config.url}"))
        from huggingface_hub import hf_hub_download
        from timm.models._hub import hf_split

        repository, revision = hf_split(config.hf_hub_id)
        repository = f"{repository}{self._tagged_name(config)}" if repository.endswith("/") else repository
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # its retries would bury the one clear line
        try:
            return Path(hf_hub_download(repository, "model.safetensors", revision=revision))
        except Exception as error:  # offline, refused, gone: the user's way out is the same
            raise cannot_download(self.name, error) from error

    def _local_file(self) -> Path | None:
        return self.checkpoint or local_weights(self.name)

    def _tagged_name(self, config: Any) -> str:
        name = self.architecture.split(".")[0]
        return f"{name}.{config.tag}" if config.tag else name

    def build(self, pretrained: bool) -> Anatomy:
        file = self.weights_file() if pretrained else None
        weights = read_weights(file) if file is not None else None
        model = self._create(weights.settings if weights is not None else {})
        config = dict(cast(dict[str, Any], model.pretrained_cfg))
        if weights is not None:
            weights.load_into(model, published=file != self._local_file())
            if weights.mean is not None:
                config.update(mean=weights.mean, std=weights.std)
        return timm_anatomy(self.name, model, config)

    def _create(self, settings: dict[str, Any]) -> nn.Module:
        try:
            return timm.create_model(self.architecture, pretrained=False, num_classes=0, **settings)
        except (RuntimeError, KeyError, ValueError, TypeError, AssertionError) as error:
            reason = str(error).strip().split("\n")[0][:200]
            asked = f" with {settings}, as the weights ask" if settings else ""
            raise PeftmarkError(f"timm cannot make {self.architecture!r}{asked}: {reason}") from error


class SlottedTimmBlock(SlottedBlock):
    """The forward of `timm.models.vision_transformer.Block`, through the slots."""

    def forward(self, x: Tensor, **attention: Any) -> Tensor:
        block = cast(TimmBlock, self)
        x = entered = self.enter(x)
        normed = block.norm1(x)
        y = block.drop_path1(block.ls1(block.attn(normed, **attention)))
        x = self.residual("attention", x, normed, y)
        normed = block.norm2(x)
        y = block.drop_path2(block.ls2(block.mlp(normed)))
        return self.leave(entered, self.residual("mlp", x, normed, y))


class SlottedSwinBlock(SlottedBlock):
    """The forward of timm's `SwinTransformerBlock` on maps (N, h, w, D), through the slots."""

    def forward(self, x: Tensor) -> Tensor:
        block = cast(SwinTransformerBlock, self)
        normed = block.norm1(x)
        x = self.residual("attention", x, normed, block.drop_path1(block._attn(normed)))
        normed = block.norm2(x)
        return self.residual("mlp", x, normed, block.drop_path2(block.mlp(normed)))


class SlottedConvNeXtBlock(SlottedBlock):
    """The forward of timm's `ConvNeXtBlock` on maps (N, D, h, w), through the slots, which see (N, h, w, D)."""

    def forward(self, x: Tensor) -> Tensor:
        block = cast(ConvNeXtBlock, self)
        mixed = block.conv_dw(x)
        normed = block.norm(mixed if block.use_conv_mlp else mixed.movedim(1, -1))
        y = block.mlp(normed)
        if block.use_conv_mlp:
            normed, y = normed.movedim(1, -1), y.movedim(1, -1)
        if block.gamma is not None:
            y = y * block.gamma
        return self.residual("mlp", x.movedim(1, -1), normed, block.drop_path(y)).movedim(-1, 1)


class SlottedTimmAttention(SlottedAttention):
    """The forward of `timm.layers.Attention` without mask, through the slots."""

    def forward(self, x: Tensor, attn_mask: None = None, is_causal: bool = False) -> Tensor:
        if attn_mask is not None or is_causal:
            raise Unsupported("extra keys and values have no place in a masked attention")
        attention = cast(TimmAttention, self)
        n, length, _ = x.shape
        qkv = attention.qkv(x).reshape(n, length, 3, attention.num_heads, attention.head_dim).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        k, v = self.prefixed(x, attention.k_norm(k), v)
        dropout = attention.attn_drop.p if attention.training else 0.0
        y = F.scaled_dot_product_attention(self.queried(attention.q_norm(q)), k, v, dropout_p=dropout)
        y = attention.norm(y.transpose(1, 2).reshape(n, length, -1))
        return attention.proj_drop(attention.proj(y))


class TimmAnatomy(Anatomy):
    """Any timm model: pooled features as timm's own head would read them."""

    @property
    def classifier(self) -> str | None:
        own = cast(Any, self.model).get_classifier()  # a module that maps nothing: see `reset_classifier`
        return next((name for name, module in self.model.named_modules() if module is own), None)

    def pooled(self, images: Tensor) -> Tensor:
        model = cast(Any, self.model)
        return model.forward_head(model.forward_features(images), pre_logits=True)

    def tokens(self, images: Tensor) -> Tensor:
        return run_segments(token_segments(self, self.model), images)

    def segments(self, output: Output) -> tuple[Segment, ...]:
        if output == "tokens":
            return token_segments(self, self.model)
        known = timm_segments(self.model) if output == "pooled" else None
        return known or super().segments(output)


def timm_anatomy(name: str, model: nn.Module, config: Mapping[str, Any]) -> Anatomy:
    """The anatomy of a timm model without classifier; every part as far as `add_timm_parts` knows it.

    Args:
        config: ``input_size`` (channels, rows, columns), ``mean``, ``std`` of the input, as in timm's pretrained_cfg.
    """
    size = tuple(getattr(getattr(model, "patch_embed", None), "img_size", None) or config["input_size"][1:])
    anatomy = TimmAnatomy(
        name=name,
        model=model,
        root=model,
        # the head's input: differs from num_features where the head has hidden layers
        feature_dim=cast(int, getattr(model, "head_hidden_size", model.num_features)),
        input=Pixels(cast(tuple[int, int], size), tuple(config["mean"]), tuple(config["std"])),
        log=[],
        library_prefix="",
    )
    add_timm_parts(anatomy, model)
    return anatomy


def add_timm_parts(anatomy: Anatomy, model: nn.Module) -> None:
    """Every part of a `VisionTransformer`, a `SwinTransformer` or a `ConvNeXt`; nothing of another model.

    Swin V2 is left out: its norms come last, and its attention reads the weight of qkv past the module.
    """
    if isinstance(model, VisionTransformer):
        _add_transformer_parts(anatomy, model)
    elif isinstance(model, SwinTransformer):
        _add_swin_parts(anatomy, model)
    elif isinstance(model, ConvNeXt):
        _add_convnext_parts(anatomy, model)


def _add_transformer_parts(anatomy: Anatomy, model: VisionTransformer) -> None:
    log = anatomy.log
    anatomy.grid = cast(tuple[int, int], tuple(model.patch_embed.grid_size))
    anatomy.prefix_tokens = model.num_prefix_tokens
    anatomy.class_token = 0 if model.global_pool == "token" else None
    sink = None
    if model.pos_embed is not None:
        sink = (model, "pos_embed", 0 if model.no_embed_class else model.num_prefix_tokens)
    anatomy.patch_embedding = Affine(model.patch_embed.proj, shift_sink=sink, log=log)
    anatomy.entering = Affine(model.norm_pre, log=log)
    anatomy.leaving = Affine(model.norm, log=log)
    # a model that pools patches may norm their mean instead of them; the final norm is the one that is there
    anatomy.final_norm = next(iter(_affine_maps((model.norm, model.fc_norm), log)), None)
    blocks = [_block(module, log) for module in model.blocks if isinstance(module, TimmBlock)]
    if len(blocks) == len(model.blocks):
        anatomy.token_blocks = tuple(blocks)


def _add_swin_parts(anatomy: Anatomy, model: Any) -> None:
    log, blocks = anatomy.log, list[Block]()
    anatomy.patch_embedding = Affine(model.patch_embed.proj, log=log)
    anatomy.transitions[0] = _affine_maps((model.patch_embed.norm,), log)
    anatomy.final_norm = Affine(model.norm, log=log)
    for stage in model.layers:
        if not isinstance(stage.downsample, nn.Identity):
            # SSF leaves the reduction out: it has no bias that could take a shift
            anatomy.transitions[len(blocks)] = _affine_maps((stage.downsample.norm,), log)
        blocks += [_swin_block(module, log) for module in stage.blocks]
    anatomy.token_blocks = tuple(blocks)


def _add_convnext_parts(anatomy: Anatomy, model: Any) -> None:
    log, blocks = anatomy.log, list[Block]()
    anatomy.patch_embedding, *stem = _affine_maps(model.stem, log, channels_first=True)
    anatomy.transitions[0] = tuple(stem)
    norms = (model.norm_pre, getattr(model.head, "norm", model.norm_pre))
    anatomy.final_norm = next(iter(_affine_maps(norms, log, channels_first=True)), None)
    for stage in model.stages:
        if not isinstance(stage.downsample, nn.Identity):
            anatomy.transitions[len(blocks)] = _affine_maps(stage.downsample, log, channels_first=True)
        blocks += [_convnext_block(module, log) for module in stage.blocks]
    anatomy.token_blocks = tuple(blocks)


def _affine_maps(
    modules: Iterable[nn.Module], log: list[Insertion], channels_first: bool = False
) -> tuple[Affine, ...]:
    """Those of `modules` that have a weight: no activations and no `nn.Identity`."""
    return tuple(
        Affine(module, channels_first=channels_first, log=log) for module in modules if hasattr(module, "weight")
    )


def _block(module: TimmBlock, log: list[Insertion]) -> Block:
    # A subclass of timm's Block may have another forward; then its parts are visible but it has no slots.
    block = Block(module, SlottedTimmBlock if type(module) is TimmBlock else None, log=log)
    attention = cast(Any, module.attn)
    slotted = SlottedTimmAttention if type(attention) is TimmAttention and attention.gate is None else None
    block.branches = (
        _fused_attention(block, module.norm1, attention, slotted, pads=False),
        _mlp(block, module.norm2, module.mlp),
    )
    return block


def _swin_block(module: SwinTransformerBlock, log: list[Insertion]) -> Block:
    known = type(module) is SwinTransformerBlock
    block = Block(module, SlottedSwinBlock if known else None, map_stream=True, log=log)
    # with a mask made anew for each input, inputs of any size may come
    pads = module.dynamic_mask or any(
        size % window for size, window in zip(cast(Any, module.input_resolution), module.window_size, strict=True)
    )
    block.branches = (
        _fused_attention(block, module.norm1, module.attn, None, pads),
        _mlp(block, module.norm2, module.mlp),
    )
    return block


def _convnext_block(module: ConvNeXtBlock, log: list[Insertion]) -> Block:
    known = type(module) is ConvNeXtBlock and isinstance(module.shortcut, nn.Identity)
    block = Block(module, SlottedConvNeXtBlock if known else None, map_stream=True, log=log)
    block.branches = (_mlp(block, module.norm, module.mlp, module.use_conv_mlp, module.conv_dw),)
    return block


def _fused_attention(
    block: Block, norm: nn.Module, attention: Any, slotted: type[SlottedAttention] | None, pads: bool
) -> Attention:
    log, width = block.log, attention.proj.in_features
    q, k, v = (Affine(attention.qkv, rows=(i * width, (i + 1) * width), log=log) for i in range(3))
    return Attention(
        name="attention",
        block=block,
        norm=Affine(norm, log=log),
        inputs=(Affine(attention.qkv, log=log),),
        output=Affine(attention.proj, log=log),
        q=q,
        k=k,
        v=v,
        num_heads=attention.num_heads,
        module=attention,
        slotted=slotted,
        pads=pads,
    )


def _mlp(block: Block, norm: nn.Module, mlp: Any, channels_first: bool = False, mixing: nn.Module | None = None) -> Mlp:
    log = block.log
    return Mlp(
        name="mlp",
        block=block,
        norm=Affine(norm, channels_first=channels_first, log=log),
        inputs=(Affine(mlp.fc1, channels_first=channels_first, log=log),),
        output=Affine(mlp.fc2, channels_first=channels_first, log=log),
        mixing=None if mixing is None else Affine(mixing, log=log),
    )

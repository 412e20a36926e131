"""Every timm model as a backbone; plain vision transformers with their full anatomy."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import timm
from timm.layers.attention import Attention as TimmAttention
from timm.models.vision_transformer import Block as TimmBlock
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import PeftmarkError, Unsupported
from ..registry import BACKBONES
from .anatomy import Affine, Anatomy, Attention, Block, Insertion, Mlp
from .backbone import Backbone
from .slots import SlottedAttention, SlottedBlock
from .weights import cannot_download, load_state_dict, local_weights


@BACKBONES.register("timm/*", family="timm")
class TimmBackbone(Backbone):
    """Any timm model: ``timm/NAME[.tag]``, or the bare timm name."""

    @property
    def architecture(self) -> str:
        """timm's own name, without the ``timm/``."""
        return self.name.removeprefix("timm/")

    def weights_file(self) -> Path:
        file = self.checkpoint or local_weights(self.name)
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

    def _tagged_name(self, config: Any) -> str:
        name = self.architecture.split(".")[0]
        return f"{name}.{config.tag}" if config.tag else name

    def build(self, pretrained: bool) -> Anatomy:
        try:
            model = self._create(pretrained)
        except (RuntimeError, KeyError, ValueError, OSError) as error:
            if isinstance(error, OSError) and not pretrained:
                raise
            reason = str(error).strip().split("\n")[0][:200]
            raise PeftmarkError(f"timm cannot make {self.architecture!r}: {reason}") from error
        return timm_anatomy(self.name, model, cast(dict[str, Any], model.pretrained_cfg))

    def _create(self, pretrained: bool) -> nn.Module:
        if not pretrained:
            return timm.create_model(self.architecture, pretrained=False, num_classes=0)
        file = self.weights_file()
        load_state_dict(file)  # a damaged file gets its own message, not timm's
        return timm.create_model(
            self.architecture, pretrained=True, num_classes=0, pretrained_cfg_overlay={"file": str(file)}
        )


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

    def pooled(self, images: Tensor) -> Tensor:
        model = cast(Any, self.model)
        return model.forward_head(model.forward_features(images), pre_logits=True)


def timm_anatomy(name: str, model: nn.Module, config: Mapping[str, Any]) -> Anatomy:
    """The anatomy of a timm model without classifier; of a plain `VisionTransformer`, every part.

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
        image_size=cast(tuple[int, int], size),
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        log=[],
    )
    if isinstance(model, VisionTransformer):
        _add_transformer_parts(anatomy, model)
    return anatomy


def _add_transformer_parts(anatomy: Anatomy, model: VisionTransformer) -> None:
    log = anatomy.log
    anatomy.width = model.embed_dim
    anatomy.grid = cast(tuple[int, int], tuple(model.patch_embed.grid_size))
    anatomy.prefix_tokens = model.num_prefix_tokens
    sink = None
    if model.pos_embed is not None:
        sink = (model, "pos_embed", 0 if model.no_embed_class else model.num_prefix_tokens)
    anatomy.patch_embedding = Affine(model.patch_embed.proj, shift_sink=sink, log=log)
    anatomy.final_norm = Affine(model.norm, log=log)
    blocks = [_block(module, log) for module in model.blocks if isinstance(module, TimmBlock)]
    if len(blocks) == len(model.blocks):
        anatomy.token_blocks = tuple(blocks)


def _block(module: TimmBlock, log: list[Insertion]) -> Block:
    # A subclass of timm's Block may have another forward; then its parts are visible but it has no slots.
    block = Block(module, SlottedTimmBlock if type(module) is TimmBlock else None, log=log)
    attention = cast(Any, module.attn)
    width = attention.proj.in_features
    q, k, v = (Affine(attention.qkv, rows=(i * width, (i + 1) * width), log=log) for i in range(3))
    block.attention = Attention(
        name="attention",
        block=block,
        norm=Affine(module.norm1, log=log),
        inputs=(Affine(attention.qkv, log=log),),
        output=Affine(attention.proj, log=log),
        q=q,
        k=k,
        v=v,
        num_heads=attention.num_heads,
        module=attention,
        slotted=SlottedTimmAttention if type(attention) is TimmAttention and attention.gate is None else None,
    )
    block.mlp = Mlp(
        name="mlp",
        block=block,
        norm=Affine(module.norm2, log=log),
        inputs=(Affine(cast(nn.Module, module.mlp.fc1), log=log),),
        output=Affine(cast(nn.Module, module.mlp.fc2), log=log),
    )
    return block

"""open_clip models as backbones: both towers with their anatomy."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import open_clip
import torch
from open_clip.model import CLIP, CustomTextCLIP, get_model_preprocess_cfg
from open_clip.timm_model import TimmModel
from open_clip.transformer import ResidualAttentionBlock, TextTransformer, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from ...errors import PeftmarkError, Unsupported
from ...registry import BACKBONES
from ..anatomy.anatomy import Anatomy
from ..anatomy.explicit_branches import explicit_branches
from ..anatomy.inputs import Pixels
from ..anatomy.packed_texts import PackedTexts
from ..anatomy.parts import Affine, Block, Insertion
from ..anatomy.segments import Output, Segment, run_segments
from ..anatomy.slots import SlottedAttention, SlottedBlock
from ..backbone import Backbone
from ..timm.builder import add_timm_parts
from ..timm.segments import timm_segments, token_segments
from ..tokenizers import Tokenizer, open_clip_tokenizer
from ..weights import cannot_download, local_weights
from .text import OpenClipText
from .weights import check_activation, normalisation, read_weights


@contextmanager
def _without_warning() -> Iterator[None]:
    """open_clip warns that weights are drawn, which is what was asked for, or comes before they are loaded."""
    root = logging.getLogger()

    def keep(record: logging.LogRecord) -> bool:
        return "No pretrained weights loaded" not in record.getMessage()

    root.addFilter(keep)
    try:
        yield
    finally:
        root.removeFilter(keep)


@BACKBONES.register("open_clip/*", family="open_clip")
class OpenClipBackbone(Backbone):
    """Any open_clip model: ``open_clip/NAME[.tag]``, or the bare open_clip name."""

    @property
    def architecture(self) -> str:
        return self.name.removeprefix("open_clip/").partition(".")[0]

    @property
    def tag(self) -> str:
        return self.name.removeprefix("open_clip/").partition(".")[2]

    @property
    def config(self) -> dict[str, Any]:
        """The architecture, as open_clip's configuration file has it; empty where open_clip does not know it."""
        return open_clip.get_model_config(self.architecture) or {}

    def weights_file(self) -> Path:
        tags = open_clip.list_pretrained_tags_by_model(self.architecture)
        named = open_clip.get_pretrained_cfg(self.architecture, self.tag) if self.tag else {}
        check_activation(self.architecture, f".{self.tag}", self.config, named.get("quick_gelu", False))
        file = self.checkpoint or local_weights(self.name)
        if file is not None:
            return file
        if self.tag not in tags:
            fitting = [tag for tag in tags if self._computes_as(tag)]
            raise PeftmarkError(
                f"{self.name}: name its weights by a tag ({', '.join(fitting[:6]) or 'none is known'}) as "
                f"open_clip/{self.architecture}.TAG, or by a file as open_clip/{self.architecture}@FILE"
            )
        try:
            return Path(cast(str, open_clip.download_pretrained(named)))
        except Exception as error:  # offline, refused, gone: the user's way out is the same
            raise cannot_download(self.name, error) from error

    def _computes_as(self, tag: str) -> bool:
        needed = open_clip.get_pretrained_cfg(self.architecture, tag).get("quick_gelu", False)
        return not needed or self.config.get("quick_gelu", False)

    def build(self, pretrained: bool) -> Anatomy:
        config = self.config
        weights = read_weights(self.weights_file(), config) if pretrained else None
        if weights is not None:
            check_activation(self.architecture, f"@{weights.file}", config, weights.quick_gelu)
            config = {**config, **weights.settings}
        model = self._create(weights.settings if weights is not None else {})
        if weights is not None:
            weights.load_into(model)
        images = normalisation(self.architecture, self.tag)
        if weights is not None and weights.mean is not None:
            images = weights.mean, cast(tuple[float, ...], weights.std)
        if images is not None:
            # made without the tag, a model does not know how its images are normalised
            get_model_preprocess_cfg(model).update(mean=images[0], std=images[1])
        return clip_anatomy(self.name, model, config["embed_dim"], open_clip_tokenizer(self.architecture))

    def _create(self, settings: dict[str, Any]) -> nn.Module:
        try:
            with _without_warning():
                return open_clip.create_model(
                    self.architecture,
                    pretrained=None,
                    pretrained_text=False,  # open_clip would fetch a Hugging Face text tower's own ones
                    device=torch.get_default_device(),  # its own default would pull a model off the meta device
                    **settings,
                )
        except (RuntimeError, ValueError) as error:
            raise PeftmarkError(f"open_clip cannot make {self.architecture!r}: {error}") from error


class ExplicitAttention(nn.Module):
    """Self-attention with q, k, v and output projections of their own, equal to a packed `nn.MultiheadAttention`.

    The packed matrix hides the projections from methods; weights are copied, outputs are equal.
    """

    q_proj: nn.Linear
    k_proj: nn.Linear
    v_proj: nn.Linear

    def __init__(self, packed: nn.MultiheadAttention) -> None:
        super().__init__()
        width = packed.embed_dim
        self.num_heads = packed.num_heads
        weights = cast(Tensor, packed.in_proj_weight).chunk(3)
        biases = cast(Tensor, packed.in_proj_bias).chunk(3)
        for name, weight, bias in zip(("q_proj", "k_proj", "v_proj"), weights, biases, strict=True):
            setattr(self, name, _linear(width, weight, bias))
        self.out_proj = _linear(width, packed.out_proj.weight, cast(Tensor, packed.out_proj.bias))

    def forward(self, x: Tensor, attn_mask: Tensor | PackedTexts | None = None) -> Tensor:
        """Tokens (N, L, D) -> (N, L, D); `attn_mask` (L, L) is added to the scores, or they are of packed texts."""
        if isinstance(attn_mask, PackedTexts):
            return self.out_proj(attn_mask.attend(self.q_proj(x), self.k_proj(x), self.v_proj(x), self.num_heads))
        q, k, v = self.heads(x)
        return self.join(F.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask))

    def at_ends(self, x: Tensor, texts: PackedTexts) -> Tensor:
        """Packed texts (N, T, D) -> the output for the last token of each alone (N, C, D)."""
        q = self.q_proj(x.index_select(1, texts.row_ends))
        return self.out_proj(texts.attend_at_ends(q, self.k_proj(x), self.v_proj(x), self.num_heads))

    def heads(self, x: Tensor) -> list[Tensor]:
        """Tokens (N, L, D) -> queries, keys and values (N, heads, L, d)."""
        projections = (self.q_proj, self.k_proj, self.v_proj)
        shape = (len(x), x.shape[1], self.num_heads, -1)
        return [projection(x).view(shape).transpose(1, 2) for projection in projections]

    def join(self, y: Tensor) -> Tensor:
        """What the heads read (N, heads, L, d) -> tokens (N, L, D)."""
        return self.out_proj(y.transpose(1, 2).flatten(2))


def _linear(width: int, weight: Tensor, bias: Tensor) -> nn.Linear:
    layer = nn.Linear(width, width, device=weight.device, dtype=weight.dtype)
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    return layer.requires_grad_(weight.requires_grad)


class ExplicitBlock(ResidualAttentionBlock):
    """open_clip's block over an `ExplicitAttention`."""

    def forward(
        self,
        q_x: Tensor,
        k_x: Tensor | None = None,
        v_x: Tensor | None = None,
        attn_mask: Tensor | None = None,
        texts: PackedTexts | None = None,
        at_ends: bool = False,
    ) -> Tensor:
        """Tokens (N, L, D) -> (N, L, D), or of packed texts (N, T, D), where they are given; `at_ends` -> (N, C, D).

        A model reads the end of each text: in its last block no other token needs a query or the MLP.
        """
        if texts is None:
            return super().forward(q_x, k_x, v_x, attn_mask)
        attention, normed = cast(ExplicitAttention, self.attn), self.ln_1(q_x)
        if at_ends:
            x = texts.last(q_x) + self.ls_1(attention.at_ends(normed, texts))
        else:
            x = q_x + self.ls_1(attention(normed, texts))
        return x + self.ls_2(self.mlp(self.ln_2(x)))

    def attention(
        self,
        q_x: Tensor,
        k_x: Tensor | None = None,
        v_x: Tensor | None = None,
        attn_mask: Tensor | None = None,
    ) -> Tensor:
        return self.attn(q_x, attn_mask=None if attn_mask is None else attn_mask.to(q_x.dtype))


class SlottedClipBlock(SlottedBlock):
    """The forward of open_clip's `ResidualAttentionBlock`, through the slots."""

    def forward(
        self,
        q_x: Tensor,
        *unused: None,
        attn_mask: Tensor | None = None,
        texts: PackedTexts | None = None,
        at_ends: bool = False,
    ) -> Tensor:
        block = cast(Any, self)
        x = entered = self.enter(q_x)
        normed = block.ln_1(x)
        y = block.attention(normed, attn_mask=attn_mask) if texts is None else block.attn(normed, texts)
        x = self.residual("attention", x, normed, block.ls_1(y))
        normed = block.ln_2(x)
        x = self.leave(entered, self.residual("mlp", x, normed, block.ls_2(block.mlp(normed))))
        return texts.last(x) if texts is not None and at_ends else x  # an insert may read all tokens


class SlottedExplicitAttention(SlottedAttention):
    """The forward of `ExplicitAttention` without mask, through the slots."""

    def forward(self, x: Tensor, attn_mask: Tensor | PackedTexts | None = None) -> Tensor:
        if attn_mask is not None:
            raise Unsupported("extra keys and values have no place in a masked attention")
        attention = cast(ExplicitAttention, self)
        q, k, v = attention.heads(x)
        k, v = self.prefixed(x, k, v)
        return attention.join(F.scaled_dot_product_attention(self.queried(q), k, v))


def make_explicit(transformer: nn.Module) -> list[ExplicitBlock]:
    """Rewrite the blocks of an open_clip transformer to explicit projections, in place; outputs stay equal."""
    blocks = list(cast(nn.ModuleList, transformer.resblocks))
    for block in blocks:
        if type(block) is ResidualAttentionBlock and not hasattr(block, "ln_1_kv"):
            block.attn = cast(Any, ExplicitAttention(cast(nn.MultiheadAttention, block.attn)))
            block.__class__ = ExplicitBlock
    return [block for block in blocks if isinstance(block, ExplicitBlock)]


def _block(module: ExplicitBlock, log: list[Insertion]) -> Block:
    block = Block(module, SlottedClipBlock, log=log)
    attention = cast(ExplicitAttention, module.attn)
    block.branches = explicit_branches(
        block,
        norms=(module.ln_1, module.ln_2),
        attention=attention,
        projections=(attention.q_proj, attention.k_proj, attention.v_proj, attention.out_proj),
        num_heads=attention.num_heads,
        slotted=SlottedExplicitAttention,
        mlp=(cast(nn.Module, module.mlp.c_fc), cast(nn.Module, module.mlp.c_proj)),
    )
    return block


class ClipAnatomy(Anatomy):
    """The image tower of an open_clip model."""

    def pooled(self, images: Tensor) -> Tensor:
        """What a ViT pools before the projection to the shared space (as CLIP's own linear probes read it).

        Of another tower, its projected feature.
        """
        tower = self.model
        if isinstance(tower, VisionTransformer) and self.token_blocks:
            return tower._pool(tower.transformer(tower._embeds(images)))[0]
        return self.projected(images)

    def projected(self, images: Tensor) -> Tensor:
        output = self.model(images)
        return output[0] if isinstance(output, tuple) else output  # CoCa's gives its tokens, too

    def tokens(self, images: Tensor) -> Tensor:
        return run_segments(self.segments("tokens"), images)

    def drop_text(self) -> None:
        super().drop_text()
        if isinstance(self.model, VisionTransformer) and self.token_blocks:
            self.model.proj = cast(Any, None)  # a classifier reads what is pooled

    def segments(self, output: Output) -> tuple[Segment, ...]:
        tower = cast(Any, self.model)
        if isinstance(tower, TimmModel):
            if output == "tokens":
                return token_segments(self, tower.trunk)
            known = timm_segments(tower.trunk, pre_logits=False)
            return (
                (*known, Segment("head", tower.head, (tower.head,), pooled=True)) if known else super().segments(output)
            )
        with_parts = isinstance(tower, VisionTransformer) and bool(self.token_blocks)
        if output == "tokens" and not with_parts:
            raise Unsupported(f"{self.name} has no patch tokens whose place is known")
        if not with_parts or (tower.output_tokens and output != "tokens"):
            return super().segments(output)
        read_out = Segment("tail", lambda x: tower._pool(x)[0], (tower.ln_post,), pooled=True)
        projection = Segment("projection", lambda x: x @ tower.proj, (), (tower.proj,), pooled=True)
        patches = Segment("tokens", lambda x: self.patches(tower.ln_post(x)), (tower.ln_post,))
        return (
            Segment(
                "stem",
                tower._embeds,
                (tower.conv1, tower.patch_dropout, tower.ln_pre),
                (tower.class_embedding, tower.positional_embedding),
            ),
            *(Segment(f"block {i}", block, (block,)) for i, block in enumerate(tower.transformer.resblocks)),
            patches if output == "tokens" else read_out,
            *((projection,) if output == "projected" and tower.proj is not None else ()),
        )


def clip_anatomy(name: str, model: nn.Module, embed_dim: int, tokenizer: Tokenizer) -> Anatomy:
    """The anatomy of an open_clip model.

    A text tower that open_clip made and a plain ViT image tower have all their parts (their attention is rewritten to
    explicit projections), a tower that timm made (SigLIP's) those that `add_timm_parts` knows. Of others only the
    features are known: methods that need parts are `Unsupported`.

    Args:
        embed_dim: of the space that images and texts share.
    """
    tower = cast(nn.Module, model.visual)
    log: list[Insertion] = []
    preprocess = get_model_preprocess_cfg(model)
    size = preprocess["size"]
    anatomy = ClipAnatomy(
        name=name,
        model=tower,
        root=model,
        feature_dim=embed_dim,
        input=Pixels(
            (size, size) if isinstance(size, int) else cast(tuple[int, int], tuple(size)),
            tuple(preprocess["mean"]),
            tuple(preprocess["std"]),
        ),
        log=log,
    )
    text = cast(Any, model if isinstance(model, CLIP) else model.text)
    # a CoCa reads its texts at a class token of its own; HFTextEncoder is a Hugging Face model of any kind
    if isinstance(model, CLIP) or (isinstance(model, CustomTextCLIP) and isinstance(text, TextTransformer)):
        anatomy.text = OpenClipText(
            root=model,
            image=tower,
            width=text.token_embedding.embedding_dim,
            embed_dim=embed_dim,
            context_length=text.context_length,
            log=log,
            tokenizer=tokenizer,
            token_blocks=tuple(_block(block, log) for block in make_explicit(text.transformer)),
        )
    else:
        anatomy.text_lack = (
            f"has a {type(text).__name__} in a {type(model).__name__}, a text tower whose parts are not known"
        )
    if isinstance(tower, VisionTransformer) and tower.attn_pool is None:
        anatomy.feature_dim = tower.conv1.out_channels
        anatomy.grid = cast(tuple[int, int], tuple(tower.grid_size))
        anatomy.prefix_tokens = 1
        anatomy.class_token = 0 if tower.pool_type == "tok" else None
        anatomy.token_blocks = tuple(_block(block, log) for block in make_explicit(tower.transformer))
        anatomy.patch_embedding = Affine(tower.conv1, shift_sink=(tower, "positional_embedding", 1), log=log)
        anatomy.entering = Affine(tower.ln_pre, log=log)
        anatomy.final_norm = Affine(tower.ln_post, log=log)
        anatomy.norm_after_pooling = tower.final_ln_after_pool
    if isinstance(tower, TimmModel):
        add_timm_parts(anatomy, tower.trunk)
    return anatomy

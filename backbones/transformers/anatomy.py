"""The image towers of Hugging Face transformers: of CLIP, SigLIP, FLAVA and ALIGN, and ViT."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, cast

from torch import Tensor, nn
from torch.nn import functional as F

from ...errors import Unsupported
from ..anatomy.anatomy import Anatomy
from ..anatomy.explicit_branches import explicit_branches
from ..anatomy.parts import Affine, Block, Insertion
from ..anatomy.segments import Output, Segment, run_segments
from ..anatomy.slots import Insert, SlottedAttention, SlottedBlock


def run_layer(layer: nn.Module, x: Tensor, mask: Tensor | None = None) -> Tensor:
    """A transformer layer on tokens (N, L, D); `mask` is added to the scores. FLAVA's gives a tuple."""
    output = layer(x, attention_mask=mask)
    return output[0] if isinstance(output, tuple) else output


class SlottedClipLayer(SlottedBlock):
    """The forward of `CLIPEncoderLayer` and `SiglipEncoderLayer`, through the slots."""

    def forward(self, hidden_states: Tensor, attention_mask: Tensor | None = None, **settings: Any) -> Tensor:
        layer = cast(Any, self)
        x = entered = self.enter(hidden_states)
        normed = layer.layer_norm1(x)
        y, _ = layer.self_attn(hidden_states=normed, attention_mask=attention_mask, **settings)
        x = self.residual("attention", x, normed, y)
        normed = layer.layer_norm2(x)
        return self.leave(entered, self.residual("mlp", x, normed, layer.mlp(normed)))


class SlottedFlavaLayer(SlottedBlock):
    """The forward of `FlavaLayer`, through the slots."""

    def forward(
        self, hidden_states: Tensor, attention_mask: Tensor | None = None, output_attentions: bool = False
    ) -> tuple[Tensor]:
        layer = cast(Any, self)
        x = entered = self.enter(hidden_states)
        normed = layer.layernorm_before(x)
        x = self.residual("attention", x, normed, layer.attention(normed, attention_mask=attention_mask)[0])
        normed = layer.layernorm_after(x)
        # FlavaOutput's own forward would add the stream before the slots are reached
        y = layer.output.dropout(layer.output.dense(layer.intermediate(normed)))
        return (self.leave(entered, self.residual("mlp", x, normed, y)),)


class SlottedVitLayer(SlottedBlock):
    """The forward of `ViTLayer`, through the slots."""

    def forward(self, hidden_states: Tensor, attention_mask: Tensor | None = None, **settings: Any) -> Tensor:
        layer = cast(Any, self)
        x = entered = self.enter(hidden_states)
        normed = layer.layernorm_before(x)
        y, _ = layer.attention(normed, attention_mask, **settings)
        x = self.residual("attention", x, normed, layer.dropout(y))
        normed = layer.layernorm_after(x)
        return self.leave(entered, self.residual("mlp", x, normed, layer.dropout(layer.mlp(normed))))


class _SlottedSelfAttention(SlottedAttention):
    """An attention over explicit projections without mask, through the slots."""

    names: ClassVar[tuple[str, str, str]]

    def attend(self, x: Tensor, mask: Tensor | None, head_dim: int, dropout: float) -> Tensor:
        """Tokens (N, L, D) -> what the heads read, joined (N, L, D)."""
        if mask is not None:
            raise Unsupported("extra keys and values have no place in a masked attention")
        projections = (getattr(self, name) for name in self.names)
        q, k, v = (layer(x).unflatten(2, (-1, head_dim)).transpose(1, 2) for layer in projections)
        k, v = self.prefixed(x, k, v)
        rate = dropout if self.training else 0.0
        return F.scaled_dot_product_attention(self.queried(q), k, v, dropout_p=rate).transpose(1, 2).flatten(2)


class SlottedClipAttention(_SlottedSelfAttention):
    """The forward of `CLIPAttention` and `SiglipAttention`, through the slots."""

    names = ("q_proj", "k_proj", "v_proj")

    def forward(
        self, hidden_states: Tensor, attention_mask: Tensor | None = None, **settings: Any
    ) -> tuple[Tensor, None]:
        attention = cast(Any, self)
        y = self.attend(hidden_states, attention_mask, attention.head_dim, attention.dropout)
        return attention.out_proj(y), None


class SlottedVitAttention(_SlottedSelfAttention):
    """The forward of `ViTAttention`, through the slots."""

    names = ("q_proj", "k_proj", "v_proj")

    def forward(
        self, hidden_states: Tensor, attention_mask: Tensor | None = None, **settings: Any
    ) -> tuple[Tensor, None]:
        attention = cast(Any, self)
        y = self.attend(hidden_states, attention_mask, attention.head_dim, attention.attention_dropout)
        return attention.o_proj(y), None


class SlottedFlavaAttention(_SlottedSelfAttention):
    """The forward of `FlavaSelfAttention`, through the slots."""

    names = ("query", "key", "value")

    def forward(
        self, hidden_states: Tensor, attention_mask: Tensor | None = None, output_attentions: bool = False
    ) -> tuple[Tensor]:
        attention = cast(Any, self)
        return (self.attend(hidden_states, attention_mask, attention.attention_head_size, attention.dropout.p),)


def clip_block(layer: Any, log: list[Insertion]) -> Block:
    """Of a `CLIPEncoderLayer` or a `SiglipEncoderLayer`."""
    block = Block(layer, SlottedClipLayer, log=log)
    attention, mlp = layer.self_attn, layer.mlp
    block.branches = explicit_branches(
        block,
        norms=(layer.layer_norm1, layer.layer_norm2),
        attention=attention,
        projections=(attention.q_proj, attention.k_proj, attention.v_proj, attention.out_proj),
        num_heads=attention.num_heads,
        slotted=SlottedClipAttention,
        mlp=(mlp.fc1, mlp.fc2),
    )
    return block


def flava_block(layer: Any, log: list[Insertion]) -> Block:
    """Of a `FlavaLayer`."""
    block = Block(layer, SlottedFlavaLayer, log=log)
    attention = layer.attention.attention
    block.branches = explicit_branches(
        block,
        norms=(layer.layernorm_before, layer.layernorm_after),
        attention=attention,
        projections=(attention.query, attention.key, attention.value, layer.attention.output.dense),
        num_heads=attention.num_attention_heads,
        slotted=SlottedFlavaAttention,
        mlp=(layer.intermediate.dense, layer.output.dense),
    )
    return block


def vit_block(layer: Any, log: list[Insertion]) -> Block:
    """Of a `ViTLayer`."""
    block = Block(layer, SlottedVitLayer, log=log)
    attention, mlp = layer.attention, layer.mlp
    block.branches = explicit_branches(
        block,
        norms=(layer.layernorm_before, layer.layernorm_after),
        attention=attention,
        projections=(attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj),
        num_heads=attention.num_attention_heads,
        slotted=SlottedVitAttention,
        mlp=(mlp.fc1, mlp.fc2),
    )
    return block


class TransformersAnatomy(Anatomy):
    """A vision transformer of transformers. Each family has its own names for the same parts.

    The projection to the space shared with text lies outside the tower in transformers; `adopt_projection` moves it
    inside, so that it is the image tower's own for every method.
    """

    projection: ClassVar[str | None]
    """Its name in the model; None where the tower pools into the shared space."""

    @property
    @abstractmethod
    def layers(self) -> nn.ModuleList: ...

    @property
    @abstractmethod
    def stem_modules(self) -> tuple[nn.Module, ...]:
        """What makes tokens of images, in order."""

    @property
    @abstractmethod
    def pool_modules(self) -> tuple[nn.Module, ...]:
        """The norm of all tokens and, in SigLIP, the pooling after it."""

    def read(self, x: Tensor) -> Tensor:
        """The tokens of the last layer (N, L, D) -> what is pooled (N, D): the class token, normed."""
        for module in self.pool_modules:
            x = module(x)
        assert self.class_token is not None
        return x[:, self.class_token]

    def adopt_projection(self) -> None:
        if self.projection is not None:
            projection = self.root.get_submodule(self.projection)
            delattr(self.root, self.projection)
            self.model.add_module(self.projection, projection)
            # the whole model's own forward still finds it; registered twice it would be named and saved twice
            object.__setattr__(self.root, self.projection, projection)

    def drop_text(self) -> None:
        super().drop_text()
        if self.projection is not None and hasattr(self.model, self.projection):  # a classifier reads what is pooled
            delattr(self.model, self.projection)

    def add_parts(self) -> None:
        """Fill in what the towers have in common."""
        norm = self.pool_modules[0]
        self.final_norm = Affine(norm, log=self.log)
        if len(self.stem_modules) > 1:
            self.entering = Affine(self.stem_modules[-1], log=self.log)

    def pooled(self, images: Tensor) -> Tensor:
        return run_segments(self.segments("pooled"), images)

    def projected(self, images: Tensor) -> Tensor:
        return run_segments(self.segments("projected"), images)

    def tokens(self, images: Tensor) -> Tensor:
        return run_segments(self.segments("tokens"), images)

    def segments(self, output: Output) -> tuple[Segment, ...]:
        def embed(images: Tensor) -> Tensor:
            for module in self.stem_modules:
                images = module(images)
            return images

        segments = (
            Segment("stem", embed, self.stem_modules),
            *(_layer_segment(f"block {index}", layer) for index, layer in enumerate(self.layers)),
            Segment("tail", self.read, self.pool_modules, pooled=True),
        )
        if output == "tokens":
            norm = self.pool_modules[0]
            return (*segments[:-1], Segment("tokens", lambda x: self.patches(norm(x)), (norm,)))
        if output == "pooled" or self.projection is None:
            return segments
        projection = self.model.get_submodule(self.projection)
        return (*segments, Segment("projection", projection, (projection,), pooled=True))


def _layer_segment(name: str, layer: nn.Module) -> Segment:
    return Segment(name, lambda x: run_layer(layer, x), (layer,))


class ClipVision(TransformersAnatomy):
    """The image tower of a `CLIPModel`."""

    projection = "visual_projection"

    @property
    def layers(self) -> nn.ModuleList:
        return cast(Any, self.model).encoder.layers

    @property
    def stem_modules(self) -> tuple[nn.Module, ...]:
        tower = cast(Any, self.model)
        return tower.embeddings, tower.pre_layrnorm

    @property
    def pool_modules(self) -> tuple[nn.Module, ...]:
        return (cast(Any, self.model).post_layernorm,)

    def add_parts(self) -> None:
        super().add_parts()
        embeddings = cast(Any, self.model).embeddings
        self.prefix_tokens, self.class_token = 1, 0
        self.patch_embedding = Affine(
            embeddings.patch_embedding, shift_sink=(embeddings.position_embedding, "weight", 1), log=self.log
        )
        self.token_blocks = tuple(clip_block(layer, self.log) for layer in self.layers)


class SiglipVision(TransformersAnatomy):
    """The image tower of a `SiglipModel`: no class token, pooled by attention, no projection."""

    projection = None

    @property
    def layers(self) -> nn.ModuleList:
        return cast(Any, self.model).encoder.layers

    @property
    def stem_modules(self) -> tuple[nn.Module, ...]:
        return (cast(Any, self.model).embeddings,)

    @property
    def pool_modules(self) -> tuple[nn.Module, ...]:
        tower = cast(Any, self.model)
        return tower.post_layernorm, tower.head

    def read(self, x: Tensor) -> Tensor:
        for module in self.pool_modules:
            x = module(x)
        return x

    def add_before_blocks(self, insert: Insert) -> None:
        self.blocks[0].add_before(insert)  # there is no norm in front of it

    def add_parts(self) -> None:
        super().add_parts()
        embeddings = cast(Any, self.model).embeddings
        self.patch_embedding = Affine(
            embeddings.patch_embedding, shift_sink=(embeddings.position_embedding, "weight", 0), log=self.log
        )
        self.token_blocks = tuple(clip_block(layer, self.log) for layer in self.layers)


class FlavaVision(TransformersAnatomy):
    """The image tower of a `FlavaModel`, whose pooler has no part in its contrastive features."""

    projection = "image_projection"

    @property
    def layers(self) -> nn.ModuleList:
        return cast(Any, self.model).encoder.layer

    @property
    def stem_modules(self) -> tuple[nn.Module, ...]:
        return (cast(Any, self.model).embeddings,)

    @property
    def pool_modules(self) -> tuple[nn.Module, ...]:
        return (cast(Any, self.model).layernorm,)

    def add_parts(self) -> None:
        super().add_parts()
        embeddings = cast(Any, self.model).embeddings
        self.prefix_tokens, self.class_token = 1, 0
        self.patch_embedding = Affine(
            embeddings.patch_embeddings.projection, shift_sink=(embeddings, "position_embeddings", 1), log=self.log
        )
        self.entering = Affine(embeddings.dropout, log=self.log)
        self.token_blocks = tuple(flava_block(layer, self.log) for layer in self.layers)


class VitVision(TransformersAnatomy):
    """A `ViTModel`: no text tower, so no shared space. Its pooler has no part in what its own classifier reads."""

    projection = None

    @property
    def classifier(self) -> str:
        return "classifier"

    @property
    def layers(self) -> nn.ModuleList:
        return cast(Any, self.model).layers

    @property
    def stem_modules(self) -> tuple[nn.Module, ...]:
        return (cast(Any, self.model).embeddings,)

    @property
    def pool_modules(self) -> tuple[nn.Module, ...]:
        return (cast(Any, self.model).layernorm,)

    def projected(self, images: Tensor) -> Tensor:
        return Anatomy.projected(self, images)

    def add_parts(self) -> None:
        super().add_parts()
        embeddings = cast(Any, self.model).embeddings
        self.prefix_tokens, self.class_token = 1, 0
        self.patch_embedding = Affine(
            embeddings.patch_embeddings.projection, shift_sink=(embeddings, "position_embeddings", 1), log=self.log
        )
        self.entering = Affine(embeddings.dropout, log=self.log)
        self.token_blocks = tuple(vit_block(layer, self.log) for layer in self.layers)


class AlignVision(Anatomy):
    """The image tower of an `AlignModel`: an EfficientNet, pooled into the space shared with text. It has no tokens."""

    def pooled(self, images: Tensor) -> Tensor:
        tower = cast(Any, self.model)
        return tower.pooler(tower.encoder(tower.embeddings(images))[0]).flatten(1)

    def projected(self, images: Tensor) -> Tensor:
        return self.pooled(images)

"""The text towers of Hugging Face transformers' vision-language models: CLIP, SigLIP, FLAVA and ALIGN."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from ..anatomy.packed_texts import PackedTexts
from ..anatomy.text import TextTower
from ..tokenizers import Tokenizer
from .anatomy import run_layer


@dataclass(kw_only=True)
class TransformersText(TextTower):
    """What the text towers have in common."""

    tokenizer: Tokenizer

    @property
    def tower(self) -> Any:
        return cast(Any, self.root).text_model

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        return self.tokenizer(texts, self.context_length)

    def logits(self, cosines: Tensor) -> Tensor:
        return cast(Any, self.root).logit_scale.exp() * cosines

    def _layers(self, x: Tensor, mask: Tensor | None) -> Tensor:
        encoder = self.tower.encoder
        for layer in encoder.layers if hasattr(encoder, "layers") else encoder.layer:
            x = run_layer(layer, x, mask)
        return x


@dataclass(kw_only=True)
class ClipText(TransformersText):
    """Of a `CLIPModel`: causal attention, the feature is read at the end token."""

    def trim(self, ids: Tensor) -> Tensor:
        return ids[:, : int(self.lengths(ids).max())]

    def embed(self, ids: Tensor) -> Tensor:
        return self.tower.embeddings.token_embedding(ids)

    def encode(self, embedded: Tensor, ids: Tensor | PackedTexts) -> Tensor:
        assert isinstance(ids, Tensor)
        tower, length = self.tower, embedded.shape[1]
        mask = torch.full((length, length), float("-inf"), device=embedded.device, dtype=embedded.dtype).triu(1)
        x = tower.final_layer_norm(self._layers(self._positioned(embedded), mask[None, None]))
        # an id of 2 is a mistake of old configurations, in which the end token has the highest id
        end = tower.eos_token_id
        place = (ids if end == 2 else (ids == end).int()).argmax(dim=-1)
        pooled = x[torch.arange(len(x), device=x.device), place]
        return cast(Any, self.root).text_projection(pooled)

    def _positioned(self, embedded: Tensor) -> Tensor:
        return embedded + self.tower.embeddings.position_embedding.weight[: embedded.shape[1]]


@dataclass(kw_only=True)
class SiglipText(ClipText):
    """Of a `SiglipModel`: attention to all positions, read at the last one, so that padding is part of the text."""

    def trim(self, ids: Tensor) -> Tensor:
        return ids

    def encode(self, embedded: Tensor, ids: Tensor | PackedTexts) -> Tensor:
        assert isinstance(ids, Tensor)
        tower = self.tower
        return tower.head(tower.final_layer_norm(self._layers(self._positioned(embedded), None))[:, -1])

    def logits(self, cosines: Tensor) -> Tensor:
        return super().logits(cosines) + cast(Any, self.root).logit_bias


@dataclass(kw_only=True)
class BertText(TransformersText):
    """Of a `FlavaModel` or an `AlignModel`: attention to all words, not to padding; read at the first token.

    FLAVA's layers norm before they attend, ALIGN's after they added, as BERT's do: only FLAVA's are `token_blocks`.
    """

    def trim(self, ids: Tensor) -> Tensor:
        return ids[:, : int(self.lengths(ids).max())]

    def embed(self, ids: Tensor) -> Tensor:
        return self.tower.embeddings.word_embeddings(ids)

    def encode(self, embedded: Tensor, ids: Tensor | PackedTexts) -> Tensor:
        assert isinstance(ids, Tensor)
        tower, length = self.tower, embedded.shape[1]
        embeddings = tower.embeddings
        x = embedded + embeddings.token_type_embeddings.weight[0] + embeddings.position_embeddings.weight[:length]
        padding = (ids == tower.config.pad_token_id)[:, None, None, :]
        mask = torch.zeros_like(padding, dtype=x.dtype).masked_fill(padding, torch.finfo(x.dtype).min)
        x = self._layers(embeddings.dropout(embeddings.LayerNorm(x)), mask)
        x = tower.layernorm(x) if hasattr(tower, "layernorm") else x
        return cast(Any, self.root).text_projection(x[:, 0])


@dataclass(kw_only=True)
class AlignText(BertText):
    """Of an `AlignModel`, whose cosines are divided by a temperature."""

    def logits(self, cosines: Tensor) -> Tensor:
        return cosines / cast(Any, self.root).temperature

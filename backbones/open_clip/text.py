"""The text towers that open_clip makes itself: CLIP's, and those of SigLIP, CLIPA, EVA and MobileCLIP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from open_clip.model import CLIP
from open_clip.transformer import text_global_pool
from torch import Tensor, nn

from ..anatomy.packed_texts import PackedTexts
from ..anatomy.text import TextTower
from ..tokenizers import Tokenizer


@dataclass(kw_only=True)
class OpenClipText(TextTower):
    """The text tower of a `CLIP`, whose parts are the model's own, or of a `CustomTextCLIP`, whose are in ``text``.

    Causal attention and a feature read at the end token (CLIP), or attention to all positions and a feature read at the
    last one, which mostly is padding (SigLIP, CLIPA): there padding is part of the text and `trim` keeps it.
    """

    tokenizer: Tokenizer

    @property
    def tower(self) -> Any:
        """What holds the parts."""
        return self.root if isinstance(self.root, CLIP) else self.root.text

    @property
    def pooling(self) -> tuple[str, int]:
        """Where the feature is read, in open_clip's words, and the id of the end token."""
        tower = self.tower
        if isinstance(tower, CLIP):
            return cast(str, tower.text_pool_type), cast(int, tower.text_eos_id)
        return tower.pool_type, tower.eos_id

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        return self.tokenizer(list(texts), self.context_length)

    def trim(self, ids: Tensor) -> Tensor:
        if self.tower.attn_mask is None or self.pooling[0] == "last":
            return ids
        return ids[:, : int(self.lengths(ids).max())]

    def embed(self, ids: Tensor) -> Tensor:
        return self.tower.token_embedding(ids)

    def pack(self, ids: Tensor) -> PackedTexts | None:
        causal = self.tower.attn_mask is not None and self.pooling[0] in ("argmax", "eos")
        return PackedTexts(ids, self.lengths(ids)) if causal and self.token_blocks else None

    def encode(self, embedded: Tensor, ids: Tensor | PackedTexts) -> Tensor:
        tower = self.tower
        x = self._encode_packed(embedded, ids) if isinstance(ids, PackedTexts) else self._encode_alone(embedded, ids)
        if isinstance(tower.text_projection, nn.Linear):
            return tower.text_projection(x)
        return x if tower.text_projection is None else x @ tower.text_projection

    def _encode_alone(self, embedded: Tensor, ids: Tensor) -> Tensor:
        """(C, L, width) -> the normalised ends of the texts (C, width)."""
        tower, length, (pool_type, end) = self.tower, embedded.shape[1], self.pooling
        mask = None if tower.attn_mask is None else tower.attn_mask[:length, :length]
        x = tower.transformer(embedded + tower.positional_embedding[:length], attn_mask=mask)
        return text_global_pool(tower.ln_final(x), ids, pool_type, eos_token_id=end)

    def _encode_packed(self, embedded: Tensor, texts: PackedTexts) -> Tensor:
        """(…, T, width) -> the normalised ends of the texts (…, C, width)."""
        tower, times = self.tower, embedded.shape[:-2]
        embedded = embedded.reshape(-1, *embedded.shape[-2:])
        if self.dropping:
            alone = self._encode_alone(texts.spread(embedded).flatten(0, 1), texts.ids.repeat(len(embedded), 1))
            return alone.view(*times, -1, alone.shape[-1])
        x = embedded + tower.positional_embedding[texts.positions]
        *blocks, last = tower.transformer.resblocks
        for block in blocks:
            x = block(x, texts=texts)
        x = tower.ln_final(last(x, texts=texts, at_ends=True))
        return x.view(*times, *x.shape[1:])

    def logits(self, cosines: Tensor) -> Tensor:
        model = cast(Any, self.root)
        logits = model.logit_scale.exp() * cosines
        return logits if model.logit_bias is None else logits + model.logit_bias

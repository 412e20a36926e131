"""Gated prompt tuning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from ...backbones import Anatomy, Insert
from ...registry import METHODS
from ..method import Method
from ..parts.prompts import around
from ..ranges import Count, Rate
from .vpt import add_shallow_prompts


class PromptGate(Insert):
    """Prompts leave a block as ``g * out + (1 - g) * in``, g = sigmoid(logit); for the ``carry`` slot.

    Args:
        length: prompts in the stream (N, L, D). prefix: tokens before them. logit: where the gate starts.
    """

    def __init__(self, length: int, prefix: int, logit: float) -> None:
        super().__init__()
        self.logit = nn.Parameter(torch.full((1,), logit))
        self.length, self.at = length, prefix

    def forward(self, entered: Tensor, x: Tensor) -> Tensor:
        gate, place = self.logit.sigmoid(), slice(self.at, self.at + self.length)
        prompts = gate * x[:, place] + (1 - gate) * entered[:, place]
        before, behind = around(x, self.at, self.length)
        return torch.cat((before, prompts, behind), dim=1)


class Temperature(Insert):
    """Queries over a learned temperature, one for all heads, kept within [0.01, 10]; for the ``query`` slot."""

    MIN, MAX = 0.01, 10.0

    def __init__(self) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(1))

    def forward(self, q: Tensor) -> Tensor:
        if not self.training:
            return q / self.temperature.clamp(self.MIN, self.MAX)
        with torch.no_grad():  # in place: through a clamp it would get no gradient to come back by
            self.temperature.clamp_(self.MIN, self.MAX)
        return q / self.temperature


class MeanOfOthers(Insert):
    """Puts the mean of the tokens behind the first `prefix` in the place of every token of a stream (N, L, D)."""

    def __init__(self, prefix: int) -> None:
        super().__init__()
        self.prefix = prefix

    def forward(self, x: Tensor) -> Tensor:
        return x[:, self.prefix :].mean(dim=1, keepdim=True).expand_as(x)


@METHODS.register("gated_vpt", family="additive", tracks=("image", "openvocab", "video"))
@dataclass
class GatedVPT(Method):
    """Prompts at the input, gated from block to block (Yoo et al. 2023, arXiv:2306.05067).

    `prompt_length` tokens behind the class token; after every block but the last they are
    ``g * P_out + (1 - g) * P_in``, P_in being what entered it (the gated prompts of the block before), g one scalar a
    block; every block's attention is softmax(scores / t) with a learned t in [0.01, 10]. p·D + (L - 1) + L parameters:
    76,823 on ViT-B/16 with p = 100. Prompts start uniform as VPT's and attention reads them from the first step on, so
    an untrained model is not the bare backbone.

    Defaults are the README's run (100 prompts, gate logits -5); config.py has -10.

    `read_out`: prompts leave before the final norm and the ``backbone`` reads its own tokens: the official read-out for
    MoCo v3, a class token. For MAE the official code takes the ``mean`` of all tokens but the class token, prompts
    included, and then norms it (vit_prompt/vit_mae.py); whatever the backbone reads is that, then.
    """

    version: ClassVar[int] = 2
    identity_at_start: ClassVar[bool] = False

    prompt_length: Count = 100
    gate_logit: float = -5.0
    dropout: Rate = 0.1
    read_out: Literal["backbone", "mean"] = "backbone"

    def adapt(self, anatomy: Anatomy) -> None:
        blocks = anatomy.blocks
        if self.read_out == "mean":
            anatomy.add_after_blocks(MeanOfOthers(anatomy.prefix_tokens))  # before the prompts leave
        add_shallow_prompts(anatomy, self.prompt_length, self.dropout)
        for block in blocks:
            block.attention.add_query(Temperature())
        for block in blocks[:-1]:
            block.add_carry(PromptGate(self.prompt_length, anatomy.prefix_tokens, self.gate_logit))

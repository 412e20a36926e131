"""UniPELT."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from ...backbones import Anatomy, Insert
from ...registry import METHODS
from ..additive.prefix_tuning import MlpPrefix, PrefixTrunk
from ..method import Method
from ..parts.bottleneck import Bottleneck
from ..parts.low_rank import LowRank
from ..ranges import Count

INIT_STD = 0.02
"""BERT's initializer range, which the official code draws all but LoRA from."""


class TokenGate(nn.Module):
    """``mean over tokens of sigmoid(w x + b)``: (N, L, D) -> (N, 1, 1)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, 1)
        nn.init.normal_(self.linear.weight, std=INIT_STD)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x).sigmoid().mean(dim=1, keepdim=True)


class GatedPrefix(MlpPrefix):
    """Keys and values of a block times its gate, (N, length, D) each."""

    def __init__(self, trunk: PrefixTrunk, owner: bool) -> None:
        super().__init__(trunk, owner)
        self.gate = TokenGate(trunk.down.in_features)
        nn.init.normal_(self.up.weight, std=INIT_STD)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        keys, values = super().forward(x)
        gate = self.gate(x)
        return keys * gate, values * gate


class GatedLowRank(LowRank):
    """``gate(x) * B A x``: the gate, one a sample, takes the place of alpha / rank, so nothing can be folded."""

    fold_into = Insert.fold_into

    def __init__(self, in_features: int, out_features: int, rank: int) -> None:
        gate = TokenGate(in_features)
        super().__init__(in_features, out_features, rank, scale=1.0, dropout=0.0)
        self.gate = gate

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        return super().forward(x, weight) * self.gate(x)


class GatedBottleneck(Insert):
    """``x + gate(x) * up(ReLU(down(x)))``, (N, L, D)."""

    def __init__(self, width: int, bottleneck: int) -> None:
        super().__init__()
        self.bottleneck = Bottleneck(width, bottleneck, "relu", dropout=0.0)
        self.gate = TokenGate(width)
        for linear in (self.bottleneck.down, self.bottleneck.up):
            nn.init.normal_(linear.weight, std=INIT_STD)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bottleneck(x) * self.gate(x)


@METHODS.register("unipelt", family="hybrid", tracks=("image", "openvocab", "video"))
@dataclass
class UniPELT(Method):
    """Adapter, prefix tuning and LoRA, each behind a learned gate (Mao et al. 2022, arXiv:2110.07577, section 3).

    In every block: prefixes of `prompt_length` keys and values times their gate, from one MLP that all blocks share;
    ``gate * B A x`` on q and on v; after the MLP's residual add, ``x + gate * up(ReLU(down(x)))`` with a bottleneck of
    D / 16 (`bottleneck=None`). A gate is the mean over tokens of sigmoid(Linear(D, 1)) of what its part reads, four a
    block, one number a sample. Not mergeable. With p, m = `hidden`, h and r:
    pD + (D·m + m) + 2·L·D(m + 1) + L(2Dh + h + D) + 4·L·D·r + 4·L(D + 1) parameters, 11,083,376 on ViT-B/16 (prefix
    9,857,024, adapter 894,528, LoRA 294,912, gates 36,912).

    All but LoRA starts from N(0, 0.02) with zero biases, as in the official code, so an untrained model is not the bare
    backbone. Its gates read BERT's post-norm streams; a ViT's norms come first: prefix and LoRA gates read norm1's
    output, the adapter and its gate the stream. Its LoRA's merge, which would bake in the last batch's gate, is left
    out.
    """

    identity_at_start: ClassVar[bool] = False

    prompt_length: Count = 10
    hidden: Count = 512
    bottleneck: Count | None = None
    rank: Count = 8

    def adapt(self, anatomy: Anatomy) -> None:
        blocks = anatomy.blocks
        trunk = PrefixTrunk(anatomy.width, self.prompt_length, self.hidden)
        for tensor in (trunk.tokens, trunk.down.weight):
            nn.init.normal_(tensor, std=INIT_STD)
        nn.init.zeros_(trunk.down.bias)
        for index, block in enumerate(blocks):
            block.attention.add_prefix(GatedPrefix(trunk, owner=index == 0))
            for linear in (block.attention.q, block.attention.v):
                linear.add_delta(GatedLowRank(linear.in_features, linear.out_features, self.rank))
            block.mlp.add_after_add(GatedBottleneck(block.width, self.bottleneck or block.width // 16))

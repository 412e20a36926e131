"""DoRA: weight-decomposed low-rank adaptation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from ...backbones import Affine, Anatomy, Insert
from ...registry import METHODS
from ..method import Method
from ..parts.low_rank import LowRank, Projection
from ..parts.peft_adapter import PeftAdapter, inserts_by_layer, low_rank_adapter, rows_of
from ..ranges import NOT_EMPTY, Count, Rate
from ..search_space import Dimension, LogUniform


class Magnitude(Insert):
    """Gives every row of ``W' = W + scale * B A`` a learned norm m (out,): ``y - b`` becomes ``(m / |W'|) (y - b)``.

    Args:
        linear: the map W that it scales, whose frozen weight it reads. low_rank: the update of W.

    m starts as the rows' norms, so the factor starts at one exactly. |W'| gets no gradient (the paper's section 4.3).
    """

    low_rank: LowRank

    def __init__(self, linear: Affine, low_rank: LowRank) -> None:
        super().__init__()
        self.linear = linear
        self.share("low_rank", low_rank, owner=False)
        self.magnitude = nn.Parameter(torch.linalg.vector_norm(linear.weight.detach(), dim=1))

    def forward(self, y: Tensor) -> Tensor:
        with torch.no_grad():
            weight = self.linear.weight
            norm = torch.linalg.vector_norm(weight + self.low_rank.weight_delta(weight), dim=1)
        bias = self.linear.bias
        return y + (self.magnitude / norm - 1) * (y if bias is None else y - bias)

    def fold_into(self, host: Any) -> None:
        norm = torch.linalg.vector_norm(host.weight, dim=1)  # deltas fold first: this is W'
        host.weight.mul_((self.magnitude / norm).unsqueeze(1))


@METHODS.register("dora", family="reparameterized", tracks=("image", "openvocab", "video"))
@dataclass
class DoRA(Method):
    """LoRA on a weight's directions, and its magnitudes apart (Liu et al. 2024, arXiv:2402.09353, equation 5).

    ``W x`` becomes ``m * (W + (alpha / rank) B A) x / |W + (alpha / rank) B A|``, norms over the inputs of each output
    (the paper's columns), held constant in the backward pass (section 4.3); A (rank, in) Kaiming-uniform (a = sqrt(5)),
    B (out, rank) zero, m the norms of W. Merges into the weights. (r(in + out) + out) parameters a projection: 313,344
    on ViT-B/16 with q and v.

    Rank, alpha and targets are `lora`'s, so that the two differ in the decomposition alone; the paper has no image
    classifier. Equal to HF PEFT's (lora/dora.py) with dropout 0; with dropout, PEFT's and the official code also drop
    inputs of the frozen W in the magnitude's term, here only the low-rank branch's are dropped.
    """

    rank: Count = 8
    alpha: float = 8.0
    dropout: Rate = 0.0
    targets: Annotated[tuple[Projection, ...], NOT_EMPTY] = ("q", "v")

    def search_space(self) -> Mapping[str, Dimension]:
        return {"alpha": LogUniform(1.0, 64.0)}

    def adapt(self, anatomy: Anatomy) -> None:
        for block in anatomy.blocks:
            for linear in block.linears(self.targets):
                low_rank = LowRank(
                    linear.in_features, linear.out_features, self.rank, self.alpha / self.rank, self.dropout
                )
                linear.add_delta(low_rank)
                linear.add_after(Magnitude(linear, low_rank))

    def to_peft(self, anatomy: Anatomy) -> PeftAdapter:
        """Rows of a fused layer that are no target get the norms that they have, as their magnitudes."""
        layers = inserts_by_layer(anatomy, Magnitude)
        changes = {
            name: [(host, own.low_rank.down, own.low_rank.up) for host, own in layer] for name, layer in layers.items()
        }
        adapter = low_rank_adapter(changes, self.alpha / self.rank, self.dropout, use_dora=True)
        for name, layer in layers.items():
            whole = Affine(layer[0][0].module, log=[])
            magnitudes = torch.linalg.vector_norm(whole.weight.detach(), dim=1)
            for host, own in layer:
                magnitudes[slice(*rows_of(host))] = own.magnitude.detach()
            adapter.layers[name]["lora_magnitude_vector"] = magnitudes
        return adapter

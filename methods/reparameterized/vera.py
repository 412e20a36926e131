"""VeRA: vector-based random matrix adaptation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...backbones import Affine, Anatomy, WeightDelta
from ...registry import METHODS
from ..method import Method
from ..parts.low_rank import Projection
from ..parts.peft_adapter import PeftAdapter, inserts_by_layer, rows_of
from ..ranges import NOT_EMPTY, Count, Rate


class RandomProjections(nn.Module):
    """Frozen A (rank, in) and B (out, rank), Kaiming-uniform by a seed of their own, so no adapter has to hold them."""

    down: Tensor
    up: Tensor

    def __init__(self, in_features: int, out_features: int, rank: int, seed: int) -> None:
        super().__init__()
        generator = torch.Generator("cpu").manual_seed(seed)
        for name, shape in (("down", (rank, in_features)), ("up", (out_features, rank))):
            bound = math.sqrt(6 / shape[1])
            drawn = torch.empty(shape, device="cpu").uniform_(-bound, bound, generator=generator)
            self.register_buffer(name, torch.empty(shape).copy_(drawn), persistent=False)


class VectorDelta(WeightDelta):
    """``x -> b * (B (d * (A dropout(x))))``: d (rank,) starts at `d_initial`, b (out,) at zero.

    A layer smaller than A and B takes their first columns and rows.
    """

    projections: RandomProjections

    def __init__(
        self,
        projections: RandomProjections,
        owner: bool,
        in_features: int,
        out_features: int,
        d_initial: float,
        dropout: float,
    ) -> None:
        super().__init__()
        self.share("projections", projections, owner)
        self.in_features = in_features
        self.d = nn.Parameter(torch.full((projections.down.shape[0],), d_initial))
        self.b = nn.Parameter(torch.zeros(out_features))
        self.dropout = nn.Dropout(dropout)

    def matrices(self) -> tuple[Tensor, Tensor]:
        return self.projections.down[:, : self.in_features], self.projections.up[: len(self.b)]

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        down, up = self.matrices()
        return self.b * F.linear(self.d * F.linear(self.dropout(x), down), up)

    def weight_delta(self, weight: Tensor) -> Tensor:
        down, up = self.matrices()
        return (self.b.unsqueeze(1) * up) @ (self.d.unsqueeze(1) * down)


@METHODS.register("vera", family="reparameterized", tracks=("image", "openvocab", "video"))
@dataclass
class VeRA(Method):
    """Frozen random matrices shared by all layers, trained scaling vectors (Kopiczko et al. 2024, arXiv:2310.11454).

    ``W x`` becomes ``W x + b * (B (d * (A x)))`` (equation 2): A (rank, in) and B (out, rank) Kaiming-uniform, frozen
    and common to all `targets` of all blocks, d (rank,) starting at `d_initial`, b (out,) at zero. Merges into the
    weights. (rank + out) parameters a projection: 24,576 on ViT-B/16 with rank 256 on q and v, as in the paper.

    A and B follow from `projection_seed` alone, as HF PEFT's do from projection_prng_key: they are neither trained nor
    saved. As there, they are as large as the largest target.
    """

    rank: Count = 256
    d_initial: float = 0.1
    dropout: Rate = 0.0
    targets: Annotated[tuple[Projection, ...], NOT_EMPTY] = ("q", "v")
    projection_seed: int = 0

    def adapt(self, anatomy: Anatomy) -> None:
        linears = [linear for block in anatomy.blocks for linear in block.linears(self.targets)]
        projections = RandomProjections(
            max(linear.in_features for linear in linears),
            max(linear.out_features for linear in linears),
            self.rank,
            self.projection_seed,
        )
        for index, linear in enumerate(linears):
            linear.add_delta(
                VectorDelta(
                    projections,
                    index == 0,
                    linear.in_features,
                    linear.out_features,
                    self.d_initial,
                    self.dropout,
                )
            )

    def to_peft(self, anatomy: Anatomy) -> PeftAdapter:
        """A and B are written down: PEFT draws others.

        PEFT's are common to all layers, too, so each place that a target has in its layer (the rows of q, those of v,
        a whole layer) has a block of its own in B, and A once more; d is zero in the blocks of other places. Without
        fused layers there is one block, of the very A and B.
        """
        layers = inserts_by_layer(anatomy, VectorDelta)
        places = sorted({_place(host) for layer in layers.values() for host, _ in layer})
        blocks = {place: slice(i * self.rank, (i + 1) * self.rank) for i, place in enumerate(places)}
        projections = next(own.projections for layer in layers.values() for _, own in layer)
        up = torch.zeros(max(len(_weight(layer)) for layer in layers.values()), len(places) * self.rank)
        for place, block in blocks.items():
            start, stop = place or (0, len(projections.up))
            up[start:stop, block] = projections.up[: stop - start]
        made = {}
        for name, layer in layers.items():
            d, b = torch.zeros(len(places) * self.rank), torch.zeros(len(_weight(layer)))
            for host, own in layer:
                d[blocks[_place(host)]] = own.d.detach()
                b[slice(*rows_of(host))] = own.b.detach()
            made[name] = {"vera_lambda_d": d, "vera_lambda_b": b}
        settings = {
            "r": up.shape[1],
            "d_initial": self.d_initial,
            "vera_dropout": self.dropout,
            "projection_prng_key": self.projection_seed,
            "save_projection": True,
        }
        down = projections.down.repeat(len(places), 1)
        return PeftAdapter("VERA", settings, made, {"vera_A": down, "vera_B": up})


def _place(host: Affine) -> tuple[int, ...]:
    """The rows of its layer that a map is; empty of a whole layer."""
    return host.rows or ()


def _weight(layer: Sequence[tuple[Affine, VectorDelta]]) -> Tensor:
    return cast(Tensor, layer[0][0].module.weight)

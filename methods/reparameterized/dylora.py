"""DyLoRA."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Annotated, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...backbones import Anatomy, WeightDelta
from ...registry import METHODS
from ..adapted_model import AdaptedModel
from ..method import Context, Method, Variant
from ..parts.low_rank import LowRank, Projection
from ..ranges import NOT_EMPTY, Count, Rate
from ..search_space import Dimension, LogUniform

if TYPE_CHECKING:
    from ...tasks import Targets


class NestedLowRank(WeightDelta):
    """``x -> alpha / b · B[:, :b] A[:b] dropout(x)``, b being how many of the ranks are in use.

    A's rows and B's columns are tensors of their own, so that an optimizer leaves alone those without a gradient.

    Attributes:
        rank: b. only_last: whether ranks below b are held fixed, as in training.
    """

    def __init__(self, in_features: int, out_features: int, rank: int, alpha: float, dropout: float) -> None:
        super().__init__()
        start = LowRank(in_features, out_features, rank, 1.0, dropout)
        self.down = nn.ParameterList(row.detach().clone() for row in start.down.split(1))
        self.up = nn.ParameterList(column.detach().clone() for column in start.up.split(1, dim=1))
        self.dropout = start.dropout
        self.alpha = alpha
        self.rank = rank
        self.only_last = False

    def _factors(self) -> tuple[Tensor, Tensor]:
        """A (b, in) and B (out, b), scaled."""
        down, up = list(self.down)[: self.rank], list(self.up)[: self.rank]
        if self.only_last:
            down[:-1], up[:-1] = [row.detach() for row in down[:-1]], [column.detach() for column in up[:-1]]
        return torch.cat(down), torch.cat(up, dim=1) * (self.alpha / self.rank)

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        down, up = self._factors()
        return F.linear(F.linear(self.dropout(x), down), up)

    def weight_delta(self, weight: Tensor) -> Tensor:
        down, up = self._factors()
        return up @ down


@METHODS.register("dylora", family="reparameterized", tracks=("image", "openvocab", "video"))
@dataclass
class DyLoRA(Method):
    """LoRA whose ranks are nested: one training gives every rank up to `rank` (Valipour et al. 2023, arXiv:2210.07558).

    At each step b is drawn uniformly from 1…rank, for all layers at once, and the step is LoRA's at that rank:
    ``W x + (alpha / b) B[:, :b] A[:b] x`` (section 4), of which row b of A and column b of B alone train (`frozen`), or
    all up to b. Every rank is evaluated; the method's own figure is that of the whole
    rank, and the survey's choice of a rank, r = argmin L(B_r, A_r), is the best of them on the validation split. Merges
    into the weights at the rank in use. 294,912 parameters on ViT-B/16: as many as `lora`.

    The official code (Efficient-NLP, DyLoRA/loralib) multiplies A and B by sqrt(r / b) each and their product by
    alpha / r, which is alpha / b. Its ranks are slices of one tensor, which AdamW's momentum and decay go on moving
    while another rank trains; here they stay as they are. Its ``eval()`` never merges. Under the same epochs as `lora`
    each of its ranks trains in one step of `rank`.
    """

    looks_at_images: ClassVar[bool] = False

    rank: Count = 8
    alpha: float = 8.0
    dropout: Rate = 0.0
    targets: Annotated[tuple[Projection, ...], NOT_EMPTY] = ("q", "v")
    frozen: bool = True

    def search_space(self) -> Mapping[str, Dimension]:
        return {"alpha": LogUniform(1.0, 64.0)}

    def adapt(self, anatomy: Anatomy) -> None:
        self._random = Random(torch.initial_seed())  # here, when a run has set its seed
        for block in anatomy.blocks:
            for linear in block.linears(self.targets):
                linear.add_delta(
                    NestedLowRank(linear.in_features, linear.out_features, self.rank, self.alpha, self.dropout)
                )

    def loss(self, model: AdaptedModel, images: Tensor, targets: Targets, context: Context) -> Tensor:
        self._use(model, self._random.randint(1, self.rank), only_last=self.frozen)
        return super().loss(model, images, targets, context)

    def after_backward(self, model: AdaptedModel, context: Context) -> None:
        self._use(model, self.rank, only_last=False)  # not before: the backward pass may compute blocks again

    def variants(self) -> Sequence[Variant]:
        return [Variant("rank", rank) for rank in range(1, self.rank + 1)]

    def select(self, model: AdaptedModel, variant: Variant) -> None:
        self._use(model, variant.value, only_last=False)

    def _use(self, model: AdaptedModel, rank: int, only_last: bool) -> None:
        for module in model.modules():
            if isinstance(module, NestedLowRank):
                module.rank, module.only_last = rank, only_last

"""Units: the attention heads and FFN nodes that structured masks choose among."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn

from ...backbones import Affine
from ..adapted_model import AdaptedModel
from ..method import Batches
from ..scoring_method import Scores, Selection
from .scoring import draw, squared_gradients

Score = Literal["gradient", "magnitude"]


@dataclass
class Units:
    """The `count` units of one branch: equal slices of the outputs of `writes` and of the inputs of `reads`.

    An attention head is rows of q, k and v, with their biases, and columns of the output projection; a node is a row of
    fc1, with its bias, and a column of fc2.
    """

    writes: tuple[Affine, ...]
    reads: Affine
    count: int

    def parts(self, tensors: Mapping[nn.Parameter, Tensor]) -> Iterator[Tensor]:
        """Views (count, …) of tensors that are shaped like the parameters: what belongs to each unit."""
        for affine in self.writes:
            rows = slice(None) if affine.rows is None else slice(*affine.rows)
            for parameter in (affine.module.weight, affine.module.bias):
                if parameter is not None:
                    yield tensors[cast(nn.Parameter, parameter)][rows].unflatten(0, (self.count, -1))
        weight = tensors[cast(nn.Parameter, self.reads.module.weight)]
        yield weight.unflatten(1, (self.count, -1)).movedim(1, 0)


def entry_scores(model: AdaptedModel, score: Score, batches: Batches) -> Scores:
    """Of each entry, a unit's score being the sum over its entries: the squared gradient or the squared weight.

    The gradient is of the mean loss of 32 images; squares are summed over 16 batches at most, as SPT scores entries.
    """
    if score == "gradient":
        return squared_gradients(model, draw(batches, size=32, count=16))
    return {name: parameter.detach().square() for name, parameter in model.anatomy.named_parameters()}


def choose_units(model: AdaptedModel, groups: Sequence[Units], keep: float, scores: Scores) -> Selection:
    """Masks of the share `keep` of all units, at least one, that have the largest scores."""
    own = dict(model.anatomy.named_parameters())
    by_parameter = {own[name]: values for name, values in scores.items()}
    values = torch.cat([sum_of_parts(group.parts(by_parameter)) for group in groups])
    chosen = torch.zeros_like(values, dtype=torch.bool)
    chosen[values.topk(max(1, round(keep * len(values)))).indices] = True
    masks = {name: torch.zeros_like(parameter, dtype=torch.bool) for name, parameter in own.items()}
    for group, picked in zip(groups, chosen.split([group.count for group in groups]), strict=True):
        for part in group.parts({own[name]: mask for name, mask in masks.items()}):
            part[picked] = True
    return masks


def sum_of_parts(parts: Iterator[Tensor]) -> Tensor:
    """Parts (count, …) of units -> the sum over each unit's entries (count,)."""
    return torch.stack([part.flatten(1).sum(dim=1) for part in parts]).sum(dim=0)

"""What methods that score parameters on training data share: the data, the gradients, the choice.

A score is a tensor of a parameter's shape, under the parameter's name in `Anatomy.named_parameters`. Scoring leaves
nothing behind (see `observing`) and uses no global random numbers, so what follows is as if it had not been.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import reduce
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from ...errors import PeftmarkError, Unsupported
from ..adapted_model import AdaptedModel
from ..method import Batches
from ..scoring_method import Scores

if TYPE_CHECKING:
    from ...tasks import Targets


@contextmanager
def observing(model: AdaptedModel) -> Iterator[dict[str, nn.Parameter]]:
    """The image backbone's own parameters, with gradients asked for, in a model that is in evaluation mode.

    Evaluation mode makes scores deterministic and keeps the running statistics of a BatchNorm. Afterwards modes,
    ``requires_grad`` and gradients are what they were.
    """
    modes = [(module, module.training) for module in model.modules()]
    flags = [(parameter, parameter.requires_grad, parameter.grad) for parameter in model.parameters()]
    own = dict(model.anatomy.named_parameters())
    model.eval()
    try:
        for parameter in own.values():
            parameter.requires_grad_(True)
        with torch.enable_grad():
            yield own
    finally:
        for parameter, trainable, gradient in flags:
            parameter.requires_grad_(trainable)
            parameter.grad = gradient
        for module, mode in modes:
            module.training = mode


def draw(batches: Batches, size: int, count: int | None = None, seed: int = 0) -> Iterator[tuple[Tensor, Targets]]:
    """Training data in a random order (always the same for a seed), each image once.

    The order of `batches` is the data set's, which may be sorted by class: some of the first would be no sample.

    Args:
        size: images a batch; the last may be smaller.
        count: stop after so many batches.

    Raises:
        PeftmarkError: where there is no data.
    """
    data = list(batches)
    places = [(batch, index) for batch, (images, _) in enumerate(data) for index in range(len(images))]
    if not places:
        raise PeftmarkError("there are no training images to score parameters on")
    targets = reduce(_joined, [targets for _, targets in data])
    order = torch.randperm(len(places), generator=torch.Generator().manual_seed(seed))
    for chosen in order.split(size)[:count]:
        images = torch.stack([data[batch][0][index] for batch, index in map(places.__getitem__, chosen.tolist())])
        yield images, targets[chosen.to(images.device)]


def _joined(one: Targets, other: Targets) -> Targets:
    return torch.cat((one, cast(Tensor, other))) if isinstance(one, Tensor) else one.joined(other)


def gradients(loss: Tensor, parameters: Mapping[str, nn.Parameter]) -> Scores:
    """∂loss/∂parameter of those on which the loss depends; no ``.grad`` is written."""
    found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    return {name: gradient for name, gradient in zip(parameters, found, strict=True) if gradient is not None}


def squared_gradients(model: AdaptedModel, data: Iterable[tuple[Tensor, Targets]]) -> Scores:
    """Σ over batches of (∂L/∂θ)², L the objective's loss, a mean over the batch; per sample where batches hold one."""
    with observing(model) as own:
        scores = {name: torch.zeros_like(parameter) for name, parameter in own.items()}
        for images, targets in data:
            for name, gradient in gradients(model.objective.loss(model(images), targets), own).items():
                scores[name].addcmul_(gradient, gradient)
    return {name: score.detach() for name, score in scores.items()}


def entries_to_keep(model: AdaptedModel, keep: float) -> int:
    """``int(keep · all parameters) − head``: `keep` is a share of backbone and head, of which the head trains whole.

    Raises:
        Unsupported: where the head alone takes that share.
    """
    head = sum(parameter.numel() for parameter in model.head_parameters())
    everything = head + sum(parameter.numel() for _, parameter in model.anatomy.named_parameters())
    if int(keep * everything) <= head:
        raise Unsupported(
            f"{model.anatomy.name}: keep={keep} of {everything:,} parameters leaves none beside the head's {head:,}"
        )
    return int(keep * everything) - head


def top_entries(scores: Scores, k: int) -> dict[str, Tensor]:
    """Masks of the `k` entries with the largest scores over all parameters together; a score of 0 is never chosen.

    Of entries that are equal at the edge, the first ones are. No copy of all scores is made, nor are they sorted.
    """
    largest = torch.cat([score.flatten().topk(min(k, score.numel())).values for score in scores.values()])
    edge = largest.topk(min(k, len(largest))).values[-1]
    left = k - sum(int((score > edge).sum()) for score in scores.values())
    masks = {}
    for name, score in scores.items():
        at_edge = (score == edge).flatten().nonzero().squeeze(1)[:left]
        left -= len(at_edge)
        mask = (score > edge).flatten()
        mask[at_edge] = True
        masks[name] = mask.view_as(score) & (score > 0)
    return masks

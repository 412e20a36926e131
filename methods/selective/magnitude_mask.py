"""A mask by gradient magnitude."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, count, islice
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...registry import METHODS
from ..adapted_model import AdaptedModel
from ..method import Batches
from ..parts.scoring import draw, entries_to_keep, gradients, observing, top_entries
from ..ranges import Count, NotNegative, Share
from ..scoring_method import Scores, ScoringMethod, Selection

if TYPE_CHECKING:
    from ...tasks import Targets


@METHODS.register("magnitude_mask", family="selective", tracks=("image", "openvocab", "video"))
@dataclass
class MagnitudeMask(ScoringMethod):
    """Train the entries whose gradients were largest in a first phase of training.

    The survey's second unstructured mask (section 3.2.2, equation 8: "by the size of the gradients' changes, found in a
    preliminary phase of training"); it cites no paper. The phase is `steps` steps of plain SGD,
    ``θ ← θ − learning_rate · g``, on every parameter of the image backbone and on the head, each on `batch_size`
    images; the score of an entry is ``Σ_t |g_t|``. Then the weights go back to where they were, bit for bit, so that
    training starts where every other method's does, and the ``int(keep · all parameters) − head`` entries with the
    largest scores train, as in `fish_mask`: 352,477 on ViT-B/16 with 100 classes.

    The relatives: FISH's code has the same sum with ``grad_type="absolute"``, per sample and without the steps (here
    ``learning_rate=0``, ``batch_size=1``); Lottery-Ticket SFT (Ansell et al. 2022, arXiv:2110.07560) has the same phase
    and rewinding, scored by how far an entry moved. A small rate lets the fresh head settle, whose random
    directions would otherwise decide the mask. No dropout, no running statistics change in the phase.
    """

    keep: Share = 0.005
    steps: Count = 16
    batch_size: Count = 32
    learning_rate: NotNegative = 0.01

    def scores_of(self, model: AdaptedModel, batches: Batches) -> Scores:
        entries_to_keep(model, self.keep)  # too small a budget is refused before any scoring
        with observing(model) as own:
            trained = {**own, **{f"head.{i}": parameter for i, parameter in enumerate(model.head_parameters())}}
            start = {name: parameter.detach().clone() for name, parameter in trained.items()}
            scores = {name: torch.zeros_like(parameter) for name, parameter in own.items()}
            try:
                for images, targets in islice(self._batches(batches), self.steps):
                    found = gradients(model.objective.loss(model(images), targets), trained)
                    with torch.no_grad():
                        for name, gradient in found.items():
                            trained[name].sub_(gradient, alpha=self.learning_rate)
                            if name in scores:
                                scores[name] += gradient.abs()
            finally:
                with torch.no_grad():
                    for name, parameter in trained.items():
                        parameter.copy_(start[name])
        return scores

    def choose(self, model: AdaptedModel, scores: Scores) -> Selection:
        return top_entries(scores, entries_to_keep(model, self.keep))

    def _batches(self, batches: Batches) -> Iterator[tuple[Tensor, Targets]]:
        """Epoch after epoch, each in another order."""
        return chain.from_iterable(draw(batches, self.batch_size, seed=epoch) for epoch in count())

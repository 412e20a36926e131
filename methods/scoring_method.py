"""Methods that choose among the backbone's own parameters, by scores on training data or as they are told."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..errors import PeftmarkError
from .adapted_model import AdaptedModel
from .method import Batches, Method

Scores = dict[str, Tensor]
"""By names in `Anatomy.named_parameters`: float, of the parameter's shape. What has no score is not chosen by one."""

Selection = dict[str, Tensor]
"""By names in `Anatomy.named_parameters`: bool, of the parameter's shape. A parameter that is left out has no entry."""


@dataclass
class ScoringMethod(Method):
    """Base of methods that score the image backbone's parameters and train what scores highest.

    `adapt` of the package keeps what they found, ``model.scores``, and takes a choice in place of data:

    >>> import torch
    >>> from peftmark import adapt
    >>> data = [(torch.rand(4, 3, 40, 40), torch.tensor([0, 1, 2, 0]))]
    >>> model = adapt("embedded/vit", "fish_mask", num_classes=3, keep=0.01, batches=data)
    >>> mask, score = model.selection["blocks.0.attn.qkv.weight"], model.scores["blocks.0.attn.qkv.weight"]
    >>> mask.shape == score.shape, bool(score[mask].min() >= score[~mask].max())
    (True, True)
    >>> again = adapt("embedded/vit", "fish_mask", num_classes=3, selection=model.selection)
    >>> again.trainable_parameters() == model.trainable_parameters()
    True

    A choice may be made by hand: nothing of the method's own rule (its budget) is asked of it.
    """

    needs_batches: ClassVar[bool] = True

    def scores_of(self, model: AdaptedModel, batches: Batches) -> Scores:
        """Scores of the parameters that can be chosen. The model is left as it was."""
        raise NotImplementedError

    def choose(self, model: AdaptedModel, scores: Scores) -> Selection:
        """What trains, given the scores."""
        raise NotImplementedError

    def take(self, model: AdaptedModel, selection: Selection) -> None:
        """Train what is chosen, by default these entries and the head."""
        model.anatomy.train_entries(selection)

    def scored(self, model: AdaptedModel, batches: Batches) -> Scores:
        """Score, choose and take; returns the scores."""
        scores = self.scores_of(model, batches)
        self.take(model, self.choose(model, scores))
        return scores

    def prepare(self, model: AdaptedModel, batches: Batches) -> None:
        self.scored(model, batches)


def check_selection(model: AdaptedModel, selection: Mapping[str, Tensor]) -> Selection:
    """A copy of a given choice, on the parameters' devices.

    Raises:
        PeftmarkError: on a parameter that the image backbone has not, or what is no mask of its shape.
    """
    own = dict(model.anatomy.named_parameters())
    for name, mask in selection.items():
        if name not in own:
            near = difflib.get_close_matches(name, own, n=1)
            hint = f"did you mean {near[0]}?" if near else "names are those of model.anatomy.named_parameters()"
            raise PeftmarkError(f"selection: {model.anatomy.name} has no parameter {name!r}: {hint}")
        shape = tuple(own[name].shape)
        if mask.dtype != torch.bool or mask.shape != shape:
            raise PeftmarkError(
                f"selection: {name!r} is {mask.dtype} of shape {tuple(mask.shape)}: give a bool mask of shape {shape}"
            )
    return {name: mask.to(own[name].device, copy=True) for name, mask in selection.items()}

"""Diff pruning."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ...registry import METHODS
from ..adapted_model import AdaptedModel
from ..method import Batches
from ..parts.scoring import draw, entries_to_keep, observing, top_entries
from ..ranges import Count, NotNegative, Positive, Share
from ..scoring_method import Scores, ScoringMethod, Selection

LOWER, UPPER = -1.5, 1.5


@METHODS.register("diff_pruning", family="selective", tracks=("image", "openvocab", "video"))
@dataclass
class DiffPruning(ScoringMethod):
    """Learn a sparse change of the weights (Guo et al. 2021, arXiv:2012.07463, sections 3.1-3.3).

    ``θ = θ₀ + z_g ⊙ z ⊙ w``: w starts at zero, z (one for each entry) and z_g (one for each parameter tensor, with
    `structured`) are hard-concrete gates, ``z = clamp(σ(log u − log(1 − u) + α)·(r − l) + l, 0, 1)`` with u uniform,
    l = −1.5 and r = 1.5. The loss is the cross-entropy plus ``penalty · Σ σ(α − log(−l/r))·σ(α_g − log(−l/r))``, the
    expected number of entries whose gates are open.

    Three stages, as in the paper. `prepare` does two: the search trains w, the gates (α from `gate_init`, at
    `gate_rate`) and the head for `epochs` epochs, rates falling linearly; then magnitude pruning keeps the k =
    ``int(keep · all parameters) − head`` entries of which ``|z_g z w|``, u left out, is largest, as in `fish_mask`
    (352,477 on ViT-B/16 with 100 classes). What then trains under the protocol, is counted and is stored are these k
    entries with the mask fixed; entries whose gate closed are never among them, so where the penalty alone gives a
    sparser change, fewer than k. Training goes on from the pruned change and the head of the search, so an adapted
    model is not the bare backbone (run_glue_fixmask_finetune.py with ``--finetune 1``); of a given `selection` there is
    no change yet, and it begins at the pretrained weights. Scores are ``|z_g z w|``. The search holds w, α and two
    Adam moments of either, six times the backbone; its time is in the record's ``setup``.

    The paper's rate for w is 1e-5, over thousands of steps on BERT. In the few steps of a small training set w then
    stays so small that the penalty closes nearly all gates: the default here is 1e-4. The rest are the paper's values.

    The official code penalises ``Σ σ(α) + σ(α_g)``, so that closing a group's gate spares nothing; here the product,
    which is the paper's. It trains with dropout and lets decay move w; here both are off in the search.
    """

    identity_at_start: ClassVar[bool] = False

    keep: Share = 0.005
    penalty: NotNegative = 1.25e-7
    structured: bool = True
    gate_init: float = 5.0
    gate_rate: NotNegative = 0.1
    epochs: Count = 3
    batch_size: Count = 8
    learning_rate: Positive = 1e-4

    def choose(self, model: AdaptedModel, scores: Scores) -> Selection:
        return top_entries(scores, entries_to_keep(model, self.keep))

    def scored(self, model: AdaptedModel, batches: Batches) -> Scores:
        entries_to_keep(model, self.keep)  # too small a budget is refused before any search
        with observing(model) as own:
            change = self._search(model, own, batches)
        scores = {name: value.abs() for name, value in change.items()}
        masks = self.choose(model, scores)
        self.take(model, masks)
        with torch.no_grad():
            for name, mask in masks.items():
                own[name].add_(change[name] * mask)
        return scores

    def _search(self, model: AdaptedModel, own: dict[str, nn.Parameter], batches: Batches) -> dict[str, Tensor]:
        """The change of every parameter that the search finds, gates without noise; trains the head in place."""
        in_model = {id(parameter): name for name, parameter in model.named_parameters()}
        diffs = {name: torch.zeros_like(parameter, requires_grad=True) for name, parameter in own.items()}
        gates = {name: torch.full_like(p, self.gate_init, requires_grad=True) for name, p in own.items()}
        groups = {name: p.new_full((1,), self.gate_init, requires_grad=self.structured) for name, p in own.items()}
        head = list(model.head_parameters())
        weights = [*diffs.values(), *head]
        logits = [*gates.values(), *(groups.values() if self.structured else ())]
        optimizer = torch.optim.AdamW(
            [{"params": weights, "lr": self.learning_rate}, {"params": logits, "lr": self.gate_rate}], weight_decay=0.0
        )
        device = next(iter(own.values())).device
        noise = torch.Generator(device).manual_seed(0)
        epochs = [list(draw(batches, self.batch_size, seed=epoch)) for epoch in range(self.epochs)]
        steps = [batch for epoch in epochs for batch in epoch]
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / len(steps))
        for images, targets in steps:
            changed = {}
            for name, parameter in own.items():
                gate = hard_concrete(gates[name], noise)
                if self.structured:
                    gate = gate * hard_concrete(groups[name], noise)
                changed[in_model[id(parameter)]] = parameter.detach() + gate * diffs[name]
            loss = model.objective.loss(functional_call(model, changed, (images,)), targets)
            optimizer.zero_grad()
            (loss + self.penalty * self._expected_entries(gates, groups)).backward()
            nn.utils.clip_grad_norm_(weights, 1.0)
            nn.utils.clip_grad_norm_(logits, 1.0)
            optimizer.step()
            schedule.step()
        with torch.no_grad():
            return {name: self._gate(gates[name], groups[name]) * diffs[name] for name in own}

    def _gate(self, logits: Tensor, group: Tensor) -> Tensor:
        return hard_concrete(logits) * (hard_concrete(group) if self.structured else 1)

    def _expected_entries(self, gates: dict[str, Tensor], groups: dict[str, Tensor]) -> Tensor:
        """E[number of entries whose gates are open]."""
        shift = math.log(-LOWER / UPPER)
        return torch.stack(
            [
                (logits - shift).sigmoid().sum() * ((groups[name] - shift).sigmoid().sum() if self.structured else 1)
                for name, logits in gates.items()
            ]
        ).sum()


def hard_concrete(logits: Tensor, noise: torch.Generator | None = None) -> Tensor:
    """Gates in [0, 1] of `logits`: a sample (Louizos et al. 2018, arXiv:1712.01312, temperature 1), or noise-free."""
    if noise is not None:
        uniform = torch.empty_like(logits).uniform_(generator=noise).clamp(1e-4, 1 - 1e-4)
        logits = logits + uniform.logit()
    return (logits.sigmoid() * (UPPER - LOWER) + LOWER).clamp(0, 1)

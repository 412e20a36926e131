"""Gradient-based parameter selection."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...errors import Unsupported
from ...registry import METHODS
from ..adapted_model import AdaptedModel
from ..method import Batches
from ..parts.scoring import draw, gradients, observing
from ..ranges import Count, Positive
from ..scoring_method import Scores, ScoringMethod, Selection

AREA, LOG_RATIO = (0.08, 1.0), math.log(4 / 3)


@METHODS.register("gps", family="selective", tracks=("image", "openvocab", "video"))
@dataclass
class GPS(ScoringMethod):
    """Train the input weights of each neuron with the largest gradient (Zhang et al. 2024, arXiv:2312.10136).

    Of every linear and convolutional layer's weight (out, …) the `connections` entries of each output row with the
    largest ``|Σ_batches ∂L/∂W|`` train, and the layer's bias (and a layer scale) whole; norms, class token and
    positions stay frozen. One weight and one bias for each of the neurons: L·(3·D + D + FFN + D) + D of either, 167,424
    parameters on ViT-B/16 (CLIP's patch embedding has no bias; its projection to the shared space stays frozen).

    L is the supervised contrastive loss (Khosla et al. 2020, arXiv:2004.11362) of a batch of images in two views each:
    ``−mean_i mean_{p∈P(i)} log(exp(z_i·z_p / T) / Σ_{a≠i} exp(z_i·z_a / T))``, z (2N, D) the normalised features that
    the head would read (no projector), P(i) the other views of the image and of its class. Its signed gradients are
    summed over one epoch, so directions on which batches disagree cancel; FISH and SPT sum squares.

    The official code (train_gps.py, utils/pruning.py) scores in training mode, so with drop path where that is on; here
    dropout is off. A view is a random crop (area 8-100 %, ratio 3/4-4/3) and flip, as with its prefetcher (without,
    colour jitter and greyscale too); here the crop is cut, without antialiasing, from the preprocessed image.
    """

    connections: Count = 1
    temperature: Positive = 0.07
    batch_size: Count = 64

    def scores_of(self, model: AdaptedModel, batches: Batches) -> Scores:
        """Of the layers' weights: ``|Σ_batches ∂L/∂W|``."""
        weights = _of_layers(model, "weight")
        views = torch.Generator().manual_seed(0)
        with observing(model) as own:
            scored = {name: parameter for name, parameter in own.items() if id(parameter) in weights}
            sums: dict[str, Tensor] = {}
            for images, labels in draw(batches, self.batch_size):
                if not isinstance(labels, Tensor) or labels.dim() != 1 or labels.is_floating_point():
                    raise Unsupported("gps contrasts images of different classes: it needs one label an image")
                both = torch.cat((random_view(images, views), random_view(images, views)))
                features = F.normalize(model.features(both), dim=-1)
                loss = supervised_contrastive(features, labels.repeat(2), self.temperature)
                for name, gradient in gradients(loss, scored).items():
                    sums[name] = sums.get(name, 0) + gradient
        return {name: total.abs() for name, total in sums.items()}

    def choose(self, model: AdaptedModel, scores: Scores) -> Selection:
        masks = {name: self._largest(score) for name, score in scores.items()}
        biases = _of_layers(model, "bias")
        for name, parameter in model.anatomy.named_parameters():
            if id(parameter) in biases or name.endswith("gamma"):
                masks[name] = torch.ones_like(parameter, dtype=torch.bool)
        return masks

    def _largest(self, score: Tensor) -> Tensor:
        """(out, …) -> a mask of the largest entries of each row."""
        rows = score.flatten(1)
        chosen = rows.topk(min(self.connections, rows.shape[1]), dim=1).indices
        return torch.zeros_like(rows, dtype=torch.bool).scatter_(1, chosen, True).view_as(score)


def _of_layers(model: AdaptedModel, kind: str) -> set[int]:
    """The ids of the weights, or biases, of every linear and convolutional layer."""
    layers = [m for m in model.anatomy.model.modules() if isinstance(m, (nn.Linear, nn.modules.conv._ConvNd))]
    return {id(getattr(layer, kind)) for layer in layers}


def supervised_contrastive(features: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Normalised features (M, D), labels (M,), each of them twice or more -> the loss (Khosla et al., equation 2)."""
    itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    alike = (labels[:, None] == labels) & ~itself
    logits = (features @ features.T / temperature).masked_fill(itself, -torch.inf)
    log_share = logits - logits.logsumexp(dim=1, keepdim=True)
    return -(log_share.masked_fill(~alike, 0).sum(dim=1) / alike.sum(dim=1)).mean()


def random_view(images: Tensor, generator: torch.Generator) -> Tensor:
    """A random crop, resized, and flip of each image (N, 3, H, W) or clip (N, T, 3, H, W), the same for its frames."""

    def uniform(low: float, high: float) -> Tensor:
        return torch.empty(len(images)).uniform_(low, high, generator=generator)

    area, ratio = uniform(*AREA), uniform(-LOG_RATIO, LOG_RATIO).exp()
    width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    x, y = (1 - width) * uniform(-1, 1), (1 - height) * uniform(-1, 1)
    flip = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    zero = torch.zeros(len(images))
    maps = torch.stack((width * flip, zero, x, zero, height, y), dim=1).view(-1, 2, 3).to(images)
    planes = images.view(len(images), -1, *images.shape[-2:])
    grid = F.affine_grid(maps, list(planes.shape), align_corners=False)
    return F.grid_sample(planes, grid, padding_mode="border", align_corners=False).view_as(images)

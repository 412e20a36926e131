"""What the tests of methods that score parameters on data have in common."""

from __future__ import annotations

import torch
from invariants import CASES, CLASS_NAMES, Case, labels
from torch import Tensor
from torch.nn import functional as F

from peftmark import METHODS
from peftmark.methods import AdaptedModel, make_method, make_model
from peftmark.methods.parts.scoring import draw
from peftmark.tasks import Classification, OpenVocabulary

SCORING = [
    case for case in CASES if METHODS[case.method].needs_batches and METHODS.entry(case.method).family != "openvocab"
]
CLASSES = len(CLASS_NAMES)
WIDTH, BLOCKS, HEADS, FFN = 128, 6, 4, 512
OWN, HEAD = 1_218_176, CLASSES * 129
"""Parameters of the embedded ViT and of its head."""


def image_case(method: str = "fish_mask") -> Case:
    return Case(method, "image")


def data(case: Case) -> list[tuple[Tensor, Tensor]]:
    return list(zip(case.images().split(4), labels().split(4), strict=True))


def unprepared(case: Case, **config: object) -> AdaptedModel:
    anatomy, method = case.anatomy(), make_method(case.method, config)
    torch.manual_seed(1)
    if case.track == "openvocab":
        return make_model(anatomy, method, OpenVocabulary(CLASS_NAMES, ["a photo of a {}."]))
    return make_model(anatomy, method, Classification(CLASSES), 3 if case.track == "video" else None)


def prepared(case: Case, **config: object) -> AdaptedModel:
    model = unprepared(case, **config)
    model.method.prepare(model, data(case))
    return model


def own_gradients(model: AdaptedModel, loss: Tensor) -> dict[str, Tensor]:
    """By a plain backward pass."""
    model.zero_grad()
    loss.backward()
    return {
        name: torch.zeros_like(p) if p.grad is None else p.grad.clone() for name, p in model.anatomy.named_parameters()
    }


def observer(case: Case) -> AdaptedModel:
    """The model before any scoring, every parameter of which takes gradients."""
    model = unprepared(case).eval()
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    return model


def squares_by_hand(case: Case, size: int) -> dict[str, Tensor]:
    """Σ (mean gradient over `size` images)², the images in the order in which they are drawn."""
    model, sums = observer(case), {}
    for images, truth in draw(data(case), size):
        for name, gradient in own_gradients(model, F.cross_entropy(model(images), truth)).items():
            sums[name] = sums.get(name, 0) + gradient**2
    return sums


def assert_largest(masks: dict[str, Tensor], scores: dict[str, Tensor], k: int) -> None:
    """The masks hold the k largest scores over all parameters (up to rounding at the border)."""
    mask = torch.cat([masks.get(name, torch.zeros_like(s, dtype=torch.bool)).flatten() for name, s in scores.items()])
    flat = torch.cat([score.flatten() for score in scores.values()])
    assert int(mask.sum()) == k
    assert flat[mask].min() >= flat[~mask].max() * (1 - 1e-4)
    assert len(masks) > 1

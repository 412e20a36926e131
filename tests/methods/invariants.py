"""Small adapted models of every registered method, on every track that it declares."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from peftmark import METHODS
from peftmark.adapting import adapt
from peftmark.backbones import Anatomy, find_backbone
from peftmark.methods import AdaptedModel, Context

# DyLoRA trains one of its ranks a step, and a rank's first factor has a gradient from its second step on
CONFIGS: dict[str, dict[str, int]] = {"dylora": {"rank": 2}}
STEPS = {"dylora": 12}
CLASS_NAMES = ("red apple", "grinning face", "sailboat", "dog", "hammer")
FRAMES = 3


@dataclass(frozen=True)
class Case:
    """One method on one track."""

    method: str
    track: str

    @property
    def backbone(self) -> str:
        return "embedded/clip" if self.track == "openvocab" else "embedded/vit"

    def anatomy(self) -> Anatomy:
        """Always the same random backbone."""
        torch.manual_seed(0)
        return find_backbone(self.backbone).build(pretrained=False)

    def model(self, anatomy: Anatomy | None = None) -> AdaptedModel:
        anatomy = anatomy or self.anatomy()
        torch.manual_seed(1)
        batches, config = [(self.images(), labels())], CONFIGS.get(self.method, {})
        if self.track == "openvocab":
            return adapt(anatomy, self.method, class_names=CLASS_NAMES, batches=batches, **config)
        frames = FRAMES if self.track == "video" else None
        return adapt(anatomy, self.method, num_classes=len(CLASS_NAMES), num_frames=frames, batches=batches, **config)

    def images(self, n: int = 6) -> torch.Tensor:
        generator = torch.Generator().manual_seed(2)
        shape = (n, FRAMES, 3, 40, 40) if self.track == "video" else (n, 3, 40, 40)
        return torch.randn(shape, generator=generator)


CASES = [Case(name, track) for name in METHODS.expand("*") for track in METHODS.entry(name).metadata["tracks"]]


def labels(n: int = 6) -> torch.Tensor:
    return torch.arange(n) % len(CLASS_NAMES)


def train_a_little(
    model: AdaptedModel, case: Case, steps: int | None = None, total: int | None = None
) -> dict[str, bool]:
    """A few AdamW steps with decay, of `total`; which trainable tensors ever had a gradient that is not zero."""
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if not trained:
        return {}
    optimizer = torch.optim.AdamW(trained.values(), lr=3e-3, weight_decay=0.1)
    images, steps = case.images(), steps or STEPS.get(case.method, 3)
    context = Context(epochs=1, steps_per_epoch=total or steps, class_names=CLASS_NAMES)
    moved = dict.fromkeys(trained, False)
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        model.method.loss(model, images, labels(), context).backward()
        model.method.after_backward(model, context)
        for name, parameter in trained.items():
            moved[name] |= parameter.grad is not None and bool(parameter.grad.abs().max() > 0)
        model.optimizer_step(optimizer)
        context.step += 1
        model.method.after_step(model, context)
    return moved


def logits(model: AdaptedModel, case: Case) -> torch.Tensor:
    model.eval()
    with torch.no_grad():
        return model(case.images())


def bare_features(case: Case) -> torch.Tensor:
    """What the untouched backbone computes, as `features` of a model that does nothing to it."""
    return features(
        Case("zero_shot" if case.track == "openvocab" else "linear", case.track).model(case.anatomy()), case
    )


def features(model: AdaptedModel, case: Case) -> torch.Tensor:
    """What a linear head reads; for open vocabulary, whose normalised features a method may map, image embeddings."""
    model.eval()
    with torch.no_grad():
        return model.encode(case.images()) if case.track == "openvocab" else model.features(case.images())

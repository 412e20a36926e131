"""An image tower's forward pass in parts, and the first of them that a method touches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .slots import has_slots, is_inserted


@dataclass(frozen=True)
class Segment:
    """One part.

    Attributes:
        run: what the part before gives, images (N, 3, H, W) at first, -> what the next part reads.
        modules: that only this part runs. What is in no part's list belongs to the first.
    """

    run: Callable[[Tensor], Tensor]
    modules: Sequence[nn.Module] = ()


def run_segments(segments: Sequence[Segment], x: Tensor) -> Tensor:
    for segment in segments:
        x = segment.run(x)
    return x


def first_touched(model: nn.Module, segments: Sequence[Segment], original: Mapping[str, Tensor]) -> int:
    """The first segment that does not compute what the frozen original would; their number where all do.

    A segment is touched if a parameter of it trains, if something is inserted in it, if it drops something at random,
    or if a weight of it is not the original's.

    Args:
        model: the image tower, whose forward pass `segments` are.
        original: the pretrained weights by their names in `model`.
    """
    place = {
        id(module): number
        for number, segment in enumerate(segments)
        for root in segment.modules
        for module in root.modules()
    }
    touched = {place.get(id(module), 0) for _, module in _touched(model, original)}
    return min(touched, default=len(segments))


def _touched(model: nn.Module, original: Mapping[str, Tensor]) -> Iterator[tuple[str, nn.Module]]:
    for path, module in model.named_modules():
        if is_inserted(path):
            continue
        prefix = f"{path}." if path else ""
        own = list(module.named_parameters(recurse=False))
        trains = any(parameter.requires_grad for _, parameter in own)
        if trains or has_slots(module) or _drops(module) or _changed(prefix, own, original):
            yield path, module


def _changed(prefix: str, parameters: Sequence[tuple[str, nn.Parameter]], original: Mapping[str, Tensor]) -> bool:
    for name, parameter in parameters:
        before = original.get(f"{prefix}{name}")
        if before is None or not torch.equal(parameter.detach(), before.to(parameter.device)):
            return True
    return False


def _drops(module: nn.Module) -> bool:
    """Dropout of timm, open_clip and torch, of values, patches or whole branches."""
    rates = (getattr(module, name, 0.0) for name in ("p", "prob", "drop_prob"))
    return "drop" in type(module).__name__.lower() and any(isinstance(rate, float) and rate > 0 for rate in rates)

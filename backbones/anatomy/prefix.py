"""The untouched prefix: how many of a backbone's first segments a method has left as they were loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import FunctionType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .segments import Output, Segment

if TYPE_CHECKING:
    from .anatomy import Anatomy


def untouched_prefix(anatomy: Anatomy, bare: Anatomy, output: Output, training: bool) -> int:
    """How many of the first segments compute what they compute in the bare backbone, and go on to.

    That is found by comparison, not by asking where something was inserted: a method may also replace a module, hook
    into it, write into a weight or have trained it in an earlier phase. Nothing in the prefix is trainable.

    Args:
        bare: the backbone as it was loaded.
        training: stop, too, before what draws random numbers in training mode.
    """
    segments, others = anatomy.segments(output), bare.segments(output)
    if len(segments) != len(others) or not _same_between(anatomy.model, bare.model, segments, others):
        return 0
    for index, (segment, other) in enumerate(zip(segments, others, strict=True)):
        if not _same_segment(segment, other) or (training and _is_random(segment)):
            return index
    return len(segments)


def _same_between(model: nn.Module, bare: nn.Module, segments: Sequence[Segment], others: Sequence[Segment]) -> bool:
    """Whether what belongs to no segment (the model itself, containers) is the same."""
    own, reference = _outside(model, segments), _outside(bare, others)
    return own.keys() == reference.keys() and all(_same_module(own[name], reference[name]) for name in own)


def _outside(model: nn.Module, segments: Sequence[Segment]) -> dict[str, nn.Module]:
    inside = {id(module) for segment in segments for module in _all_modules(segment)}
    return {name: module for name, module in model.named_modules() if id(module) not in inside}


def _all_modules(segment: Segment) -> Iterator[nn.Module]:
    for module in segment.modules:
        yield from module.modules()


def _same_segment(segment: Segment, other: Segment) -> bool:
    own, reference = list(_all_modules(segment)), list(_all_modules(other))
    tensors = zip(segment.parameters, other.parameters, strict=True)
    return (
        len(own) == len(reference)
        and all(_same_module(a, b) for a, b in zip(own, reference, strict=True))
        and all(_same_tensors(m._parameters, n._parameters) for m, n in zip(own, reference, strict=True))
        and all(_same_tensors(m._buffers, n._buffers) for m, n in zip(own, reference, strict=True))
        and all(_same_tensors({"": a}, {"": b}) for a, b in tensors)
    )


def _same_module(module: nn.Module, other: nn.Module) -> bool:
    """The same class with the same settings, children and hooks; tensors are not looked at."""
    return type(module) is type(other) and _settings(module) == _settings(other)


def _settings(module: nn.Module) -> dict[str, Any]:
    return {name: _comparable(value) for name, value in vars(module).items() if name != "training"}


def _comparable(value: Any) -> Any:
    if isinstance(value, Mapping):  # of children, parameters, hooks
        return list(value)
    if isinstance(value, (bool, int, float, str, FunctionType)):
        return value
    return repr(value) if isinstance(value, tuple) else type(value)


def _same_tensors(own: Mapping[str, Tensor | None], reference: Mapping[str, Tensor | None]) -> bool:
    for name, tensor in own.items():
        other = reference[name]
        if tensor is None or other is None:
            if tensor is not other:
                return False
        elif tensor.requires_grad or tensor.dtype != other.dtype or not torch.equal(tensor, other.to(tensor.device)):
            return False
    return True


def _is_random(segment: Segment) -> bool:
    """Whether a dropout, of whatever kind, is not off in training mode: by the names libraries give to its rate."""
    rates = ("p", "prob", "drop_prob", "drop_rate")
    return any(
        isinstance(rate := getattr(module, name, None), (int, float)) and rate > 0
        for module in _all_modules(segment)
        for name in rates
    )

"""Floating-point operations, two a multiply-add, fused attention counted; and the names of what is not counted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count, sdpa_backward_flop_count, sdpa_flop_count

_aten = torch.ops.aten


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query, key, value)


def _attention_backward(gradient: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return sdpa_backward_flop_count(gradient, query, key, value)


def _convolution_backward(
    gradient: Any,
    x: Any,
    weight: Any,
    _bias: Any,
    _stride: Any,
    _padding: Any,
    _dilation: Any,
    transposed: bool,
    _output_padding: Any,
    _groups: int,
    output_mask: Sequence[bool],
    **_: Any,
) -> int:
    """The gradients of the input and of the weight take as many products each as the convolution."""
    return (output_mask[0] + output_mask[1]) * conv_flop_count(x, weight, gradient, transposed)


FORMULAS: dict[Any, Callable[..., int]] = {
    _aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    _aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    _aten.convolution_backward: _convolution_backward,
}
"""In place of torch's, which take the fused attention of a CPU for nothing, and the weight gradient of a convolution in
groups for that of one without: C times too much where it is depthwise over C channels (2.14.1)."""


@dataclass(frozen=True)
class Flops:
    """Of one call.

    Attributes:
        counted: of matrix products, convolutions and attention.
        uncounted: names of the other operations that computed something; they do work in proportion to their tensors.
    """

    counted: int
    uncounted: frozenset[str]


def count_flops(call: Callable[[], object]) -> Flops:
    """Run `call`, on real tensors or on fake ones under their mode."""
    counter = FlopCounterMode(display=False, custom_mapping=FORMULAS)
    seen = _Operations()
    with seen, counter:  # the counter first: what it decomposes is seen in parts
        call()
    counted = {packet.__name__ for packet in counter.flop_registry}
    return Flops(counter.get_total_flops(), frozenset(seen.names - counted))


_NO_WORK = ("empty", "new_empty", "detach", "device", "_unsafe_view", "_local_scalar_dense", "_record_function")
"""Operations that only look at a tensor, or at no tensor at all."""


class _Operations(TorchDispatchMode):
    """Names of the operations that compute."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        views = any(value.alias_info is not None and not value.alias_info.is_write for value in func._schema.returns)
        name = func._overloadpacket.__name__
        if not views and not name.startswith(_NO_WORK):
            self.names.add(name)
        return func(*args, **(kwargs or {}))

"""Frozen matrices in fewer bits: how they are held, and products that keep nothing more for the backward pass."""

from __future__ import annotations

import importlib
import logging
from functools import cache
from importlib.util import find_spec
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from ...errors import PeftmarkError

QUANTIZED = ("int8", "nf4")
NF4_BLOCK = 64 * 256
"""Entries that a matrix must be divisible into: 64 share a scale, and 256 scales a scale of their own."""


def check_held(dtype: str) -> None:
    """Raises PeftmarkError where `dtype` needs torchao and it is not installed."""
    if dtype in QUANTIZED and find_spec("torchao") is None:
        raise PeftmarkError(f"frozen_dtype={dtype} needs torchao: pip install 'peftmark[quant]'")


def hold(module: nn.Linear | nn.modules.conv._ConvNd, dtype: str) -> None:
    """Hold a frozen weight in `dtype`; products with it must then be under bfloat16 autocast.

    Args:
        dtype: ``bfloat16``; of a linear map also ``int8`` (a scale a row) and ``nf4``, QLoRA's 4-bit type with double
            quantisation (Dettmers et al. 2023, arXiv:2305.14314). What they cannot hold is held in bfloat16.

    Raises:
        PeftmarkError: where torchao is needed and not installed.
    """
    check_held(dtype)
    weight: Tensor = module.weight.detach().to(torch.bfloat16)
    linear = isinstance(module, nn.Linear)
    if linear and dtype == "int8":
        weight = _int8(weight)
    elif linear and dtype == "nf4" and weight.numel() % NF4_BLOCK == 0:
        weight = _torchao().to_nf4(weight, block_size=64, scaler_block_size=256)
    module.weight = nn.Parameter(weight, requires_grad=False)
    if is_quantized(weight):
        module.register_forward_pre_hook(_cast_input)
        module.register_forward_hook(_cast_output)


def is_quantized(weight: Tensor) -> bool:
    return is_traceable_wrapper_subclass(weight)


def plain(weight: Tensor) -> Tensor:
    """The values of a weight, however it is held."""
    if not is_quantized(weight):
        return weight
    original = getattr(weight, "get_original_weight", None)  # torchao's NF4Tensor.dequantize is something else
    return weight.dequantize() if original is None else original()


def product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``x Wᵀ + b``, of the type of `x` also where a quantised matrix has a wider bias."""
    if is_quantized(weight):
        return cast(Tensor, _FrozenProduct.apply(x, weight, bias))
    return F.linear(x, weight, bias)


def _autocast(x: Tensor) -> Tensor:
    """Autocast does not reach into a quantised product."""
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x


def _cast_input(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    return (_autocast(args[0]), *args[1:])


def _cast_output(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
    return _autocast(output)  # a float32 bias has widened it


@cache
def _torchao() -> Any:
    logger = logging.getLogger("torch.utils._pytree")
    level = logger.level
    logger.setLevel(logging.ERROR)  # torch deprecates on import how torchao registers an enumeration
    try:
        return importlib.import_module("torchao.quantization")
    finally:
        logger.setLevel(level)


@cache
def _int8_type() -> Any:
    """torchao's int8 matrix with another product: its own keeps a bfloat16 copy of the matrix for the backward pass."""
    base: Any = _torchao().Int8Tensor

    class FrozenInt8(base):
        pass

    @FrozenInt8.implements_torch_function(F.linear)  # type: ignore[untyped-decorator]
    def _linear(func: Any, types: Any, args: Any, kwargs: Any) -> Tensor:
        return _FrozenProduct.apply(*args, **(kwargs or {}))

    return FrozenInt8


def _int8(weight: Tensor) -> Tensor:
    return _int8_type().from_hp(weight, _torchao().PerRow())


class _FrozenProduct(torch.autograd.Function):
    """The same; W is made plain in the forward pass and again in the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        ctx.weight = weight
        return F.linear(x, plain(weight).to(x.dtype), None if bias is None else bias.to(x.dtype))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        of_input = gradient @ plain(ctx.weight).to(gradient.dtype) if ctx.needs_input_grad[0] else None
        of_bias = gradient.flatten(0, -2).sum(0) if len(ctx.needs_input_grad) > 2 and ctx.needs_input_grad[2] else None
        return of_input, None, of_bias

"""What saves memory whatever the method: frozen weights in fewer bits, a block's activations computed twice."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from ..backbones import Anatomy
from ..errors import PeftmarkError
from ..methods import AdaptedModel


def save_memory(model: AdaptedModel, frozen_dtype: str, gradient_checkpointing: bool, precision: str) -> None:
    """Apply the savings that a protocol or a cost spec asks for, in place."""
    store_frozen(model, frozen_dtype, precision)
    if gradient_checkpointing:
        checkpoint_blocks(model.anatomy)


def checkpoint_blocks(anatomy: Anatomy) -> None:
    """Keep only the input of each block for the backward pass, which computes the rest again (Chen et al. 2016,
    arXiv:1604.06174).

    Raises:
        Unsupported: where the backbone has no known blocks.
    """
    for block in anatomy.blocks:
        block.module.forward = partial(checkpoint, block.module.forward, use_reentrant=False)  # type: ignore[method-assign]


def store_frozen(model: AdaptedModel, dtype: str, precision: str) -> None:
    """Hold the frozen matrices of linear maps and convolutions in `dtype`; vectors (norms, biases) stay float32.

    Args:
        dtype: ``float32`` (nothing changes) or ``bfloat16``.
        precision: of the computation; matrices in fewer bits need ``bfloat16``, whose autocast brings both sides of a
            product to one type.

    Raises:
        PeftmarkError: on fewer bits with computation in float32.
    """
    if dtype == "float32":
        return
    if precision != "bfloat16":
        raise PeftmarkError(f"frozen_dtype={dtype} needs precision=bfloat16: float32 products take float32 matrices")
    for module in model.backbone.modules():
        if isinstance(module, (nn.Linear, nn.modules.conv._ConvNd)) and not module.weight.requires_grad:
            module.weight.data = module.weight.data.to(torch.bfloat16)

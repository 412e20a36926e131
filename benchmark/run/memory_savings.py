"""What saves memory whatever the method: fewer bits in computation and for frozen matrices, activations made twice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from ...backbones import Anatomy
from ...backbones.anatomy.quantized import hold
from ...backbones.anatomy.slots import is_inserted
from ...methods import AdaptedModel


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """What training, evaluation and the measurement of cost compute under."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


@contextmanager
def checkpointed(anatomy: Anatomy, enabled: bool = True) -> Iterator[None]:
    """Within it, blocks keep only their input for the backward pass, which computes the rest again.

    Gradient checkpointing (Chen et al. 2016, arXiv:1604.06174).

    Raises:
        Unsupported: where the backbone has no known blocks.
    """
    modules = [block.module for block in anatomy.blocks] if enabled else []
    for module in modules:
        vars(module)["forward"] = partial(checkpoint, module.forward, use_reentrant=False)
    try:
        yield
    finally:
        for module in modules:
            del vars(module)["forward"]


def hold_frozen(model: AdaptedModel, dtype: str) -> None:
    """Hold the backbone's matrices that do not train in `dtype`, in place (see `backbones.anatomy.quantized.hold`).

    Biases, norms and embeddings stay in float32, and so does what the method inserted.
    """
    if dtype == "float32":
        return
    for name, module in model.backbone.named_modules():
        linear = isinstance(module, (nn.Linear, nn.modules.conv._ConvNd))
        if linear and not is_inserted(name) and not module.weight.requires_grad:
            hold(module, dtype)
    model.anatomy.held_in = dtype

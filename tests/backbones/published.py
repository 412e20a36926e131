"""Checkpoints as their authors published them: the same names, shapes and containers, at a small size."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

WIDTH, HEADS, DEPTH, PATCH, GRID = 24, 3, 2, 8, 4
"""Of the timm model `small_vit` below, unless a function is told otherwise."""


def google_arrays(
    width: int = WIDTH, heads: int = HEADS, depth: int = DEPTH, patch: int = PATCH, grid: int = GRID, seed: int = 0
) -> dict[str, np.ndarray]:
    """All names of Google's imagenet21k/ViT-B_16.npz, its head and representation layer included; shapes are scaled."""
    generator = np.random.default_rng(seed)

    def draw(*shape: int, around: float = 0.0) -> np.ndarray:
        return (around + 0.1 * generator.standard_normal(shape)).astype(np.float32)

    d, hidden = width // heads, 4 * width
    arrays = {
        "cls": draw(1, 1, width),
        "embedding/kernel": draw(patch, patch, 3, width),
        "embedding/bias": draw(width),
        "Transformer/posembed_input/pos_embedding": draw(1, 1 + grid * grid, width),
        "Transformer/encoder_norm/scale": draw(width, around=1),
        "Transformer/encoder_norm/bias": draw(width),
        "pre_logits/kernel": draw(width, width),
        "pre_logits/bias": draw(width),
        "head/kernel": draw(width, 11),
        "head/bias": draw(11),
    }
    for layer in range(depth):
        block = f"Transformer/encoderblock_{layer}"
        for norm in ("LayerNorm_0", "LayerNorm_2"):
            arrays |= {f"{block}/{norm}/scale": draw(width, around=1), f"{block}/{norm}/bias": draw(width)}
        for part in ("query", "key", "value"):
            attention = f"{block}/MultiHeadDotProductAttention_1/{part}"
            arrays |= {f"{attention}/kernel": draw(width, heads, d), f"{attention}/bias": draw(heads, d)}
        attention = f"{block}/MultiHeadDotProductAttention_1/out"
        arrays |= {f"{attention}/kernel": draw(heads, d, width), f"{attention}/bias": draw(width)}
        arrays |= {f"{block}/MlpBlock_3/Dense_0/kernel": draw(width, hidden)}
        arrays |= {f"{block}/MlpBlock_3/Dense_0/bias": draw(hidden)}
        arrays |= {f"{block}/MlpBlock_3/Dense_1/kernel": draw(hidden, width)}
        arrays |= {f"{block}/MlpBlock_3/Dense_1/bias": draw(width)}
    return arrays


def draw_state(model: torch.nn.Module, seed: int = 0) -> dict[str, Tensor]:
    """Values for every tensor of a model, none of them what an initialisation gives."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(value.shape, generator=generator) * 0.1 + 0.01 if value.is_floating_point() else value
        for name, value in model.state_dict().items()
    }


def save_mae(encoder: dict[str, Tensor], file: Path, decoder: bool) -> None:
    """facebookresearch/mae: the encoder alone, as published, or a whole run's (util/misc.py, save_model)."""
    if not decoder:
        torch.save({"model": encoder}, file)
        return
    width = 16
    more = {
        "mask_token": torch.zeros(1, 1, width),
        "decoder_pos_embed": torch.zeros(1, 1 + GRID * GRID, width),
        "decoder_embed.weight": torch.zeros(width, WIDTH),
        "decoder_embed.bias": torch.zeros(width),
        "decoder_blocks.0.norm1.weight": torch.ones(width),
        "decoder_norm.weight": torch.ones(width),
        "decoder_pred.weight": torch.zeros(PATCH * PATCH * 3, width),
    }
    options = argparse.Namespace(model="mae_vit_base_patch16", norm_pix_loss=True)
    torch.save({"model": {**more, **encoder}, "optimizer": {}, "epoch": 799, "scaler": {}, "args": options}, file)


def save_moco_v3(encoder: dict[str, Tensor], file: Path) -> None:
    """facebookresearch/moco-v3: main_moco.py's save_checkpoint of a distributed run."""
    state = {f"module.base_encoder.{name}": value for name, value in encoder.items()}
    state |= {f"module.momentum_encoder.{name}": -value for name, value in encoder.items()}
    for part in ("base_encoder.head", "momentum_encoder.head", "predictor"):
        state |= {f"module.{part}.0.weight": torch.zeros(8, 8), f"module.{part}.1.running_mean": torch.zeros(8)}
    torch.save({"epoch": 300, "arch": "vit_small", "state_dict": state, "optimizer": {}, "scaler": {}}, file)


def save_dinov2(state: dict[str, Tensor], file: Path) -> None:
    """facebookresearch/dinov2: a plain state dict of timm's names with the token for masked patches."""
    torch.save({**state, "mask_token": torch.zeros(1, state["cls_token"].shape[-1])}, file)

"""A Vision Transformer's forward pass in numpy, written from the paper (arXiv:2010.11929, equations 1 to 4)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.special import erf

Arrays = Mapping[str, np.ndarray]


def forward(arrays: Arrays, image: np.ndarray, depth: int) -> np.ndarray:
    """An image (H, W, 3), from Google's arrays by their names -> the normed tokens (1 + patches, D)."""
    kernel = arrays["embedding/kernel"]
    side = kernel.shape[0]
    rows, columns = image.shape[0] // side, image.shape[1] // side
    patches = [
        image[side * i : side * (i + 1), side * j : side * (j + 1)].reshape(-1)
        for i in range(rows)
        for j in range(columns)
    ]
    x = np.stack(patches) @ kernel.reshape(-1, kernel.shape[-1]) + arrays["embedding/bias"]
    x = np.concatenate((arrays["cls"][0], x)) + arrays["Transformer/posembed_input/pos_embedding"][0]
    for layer in range(depth):
        block = f"Transformer/encoderblock_{layer}"
        x = x + attention(arrays, f"{block}/MultiHeadDotProductAttention_1", norm(arrays, f"{block}/LayerNorm_0", x))
        x = x + mlp(arrays, f"{block}/MlpBlock_3", norm(arrays, f"{block}/LayerNorm_2", x))
    return norm(arrays, "Transformer/encoder_norm", x)


def norm(arrays: Arrays, name: str, x: np.ndarray) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    return (
        centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6) * arrays[f"{name}/scale"]
        + arrays[f"{name}/bias"]
    )


def attention(arrays: Arrays, name: str, x: np.ndarray) -> np.ndarray:
    """Head by head, with each head's slice of the kernels."""
    y = np.array(arrays[f"{name}/out/bias"])
    for head in range(arrays[f"{name}/query/kernel"].shape[1]):
        q, k, v = (
            x @ arrays[f"{name}/{part}/kernel"][:, head] + arrays[f"{name}/{part}/bias"][head]
            for part in ("query", "key", "value")
        )
        scores = q @ k.T / np.sqrt(q.shape[-1])
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        y = y + weights / weights.sum(-1, keepdims=True) @ v @ arrays[f"{name}/out/kernel"][head]
    return y


def mlp(arrays: Arrays, name: str, x: np.ndarray) -> np.ndarray:
    hidden = x @ arrays[f"{name}/Dense_0/kernel"] + arrays[f"{name}/Dense_0/bias"]
    hidden = hidden * 0.5 * (1 + erf(hidden / np.sqrt(2)))
    return hidden @ arrays[f"{name}/Dense_1/kernel"] + arrays[f"{name}/Dense_1/bias"]

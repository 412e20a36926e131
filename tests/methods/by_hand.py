"""The embedded ViT's blocks in plain tensor operations, for tests that recompute what a method does to them."""

from __future__ import annotations

import math

import torch
from invariants import Case
from torch import Tensor
from torch.nn import functional as F

from peftmark.adapting import adapt
from peftmark.backbones import Anatomy
from peftmark.methods import AdaptedModel

WIDTH, HEADS, TOKENS, GRID = 128, 4, 26, 5


def anatomy() -> Anatomy:
    return Case("linear", "image").anatomy()


def randomize(model: AdaptedModel) -> AdaptedModel:
    """Everything trainable, and the frozen biases and norms, far from where they start."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
            elif parameter.dim() == 1:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model


def adapted(method: str, **config: object) -> AdaptedModel:
    """In evaluation mode, far from where it starts."""
    return randomize(adapt(anatomy(), method, num_classes=3, **config).eval())


def stream() -> Tensor:
    return torch.randn(2, TOKENS, WIDTH, generator=torch.Generator().manual_seed(6))


def norm(layer: torch.nn.Module, x: Tensor) -> Tensor:
    return F.layer_norm(x, (WIDTH,), layer.weight, layer.bias, 1e-5)


def linear(layer: torch.nn.Module, x: Tensor) -> Tensor:
    return x @ layer.weight.T + layer.bias


def qkv(block: torch.nn.Module, normed: Tensor) -> list[Tensor]:
    """q, k and v (N, L, D) without what a method does to them."""
    return list(linear(block.attn.qkv, normed).chunk(3, dim=-1))


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Multi-head attention of q, k and v (N, L, D), without the output projection."""
    n, length = q.shape[:2]
    q, k, v = (part.reshape(n, -1, HEADS, WIDTH // HEADS).transpose(1, 2) for part in (q, k, v))
    scores = (q @ k.transpose(-2, -1) / math.sqrt(WIDTH // HEADS)).softmax(-1)
    return (scores @ v).transpose(1, 2).reshape(n, length, WIDTH)


def attention(block: torch.nn.Module, normed: Tensor) -> Tensor:
    """The whole operator, without what a method does to it."""
    return linear(block.attn.proj, attend(*qkv(block, normed)))


def mlp(block: torch.nn.Module, normed: Tensor) -> Tensor:
    return linear(block.mlp.fc2, F.gelu(linear(block.mlp.fc1, normed)))


def bare_block(block: torch.nn.Module, x: Tensor) -> Tensor:
    x = x + attention(block, norm(block.norm1, x))
    return x + mlp(block, norm(block.norm2, x))


def close(got: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)

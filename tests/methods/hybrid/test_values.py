"""The hybrid methods' formulas, in plain tensor operations."""

from __future__ import annotations

import pytest
import torch
from by_hand import adapted, anatomy, attend, close, linear, mlp, norm, qkv, stream
from torch import Tensor
from torch.nn import functional as F

from peftmark.adapting import adapt
from peftmark.errors import PeftmarkError
from peftmark.methods import make_method


def test_mam_adapter_is_a_prefix_and_a_parallel_adapter() -> None:
    block, x = adapted("mam_adapter", prompt_length=3, bottleneck=4, scale=2.0).backbone.blocks[0], stream()
    prefix, adapter = block.attn.slots["prefix"][0], block.slots["mlp"]["parallel"][0]
    q, k, v = qkv(block, norm(block.norm1, x))
    k = torch.cat((prefix.keys.expand(2, -1, -1), k), dim=1)
    v = torch.cat((prefix.values.expand(2, -1, -1), v), dim=1)
    x1 = x + linear(block.attn.proj, attend(q, k, v))
    bottleneck = linear(adapter.up, F.relu(linear(adapter.down, x1)))
    close(block(x), x1 + mlp(block, norm(block.norm2, x1)) + 2.0 * bottleneck)


def test_unipelt_gates_its_three_parts() -> None:
    model = adapted("unipelt", prompt_length=3, hidden=16, rank=2)
    block, x = model.backbone.blocks[4], stream()
    trunk = model.backbone.blocks[0].attn.slots["prefix"][0].trunk
    prefix = block.attn.slots["prefix"][0]
    q_delta, v_delta = (block.attn.qkv.slots["rows"][part]["delta"][0] for part in (0, 2))
    adapter = block.slots["mlp"]["after_add"][0]

    def gate(insert: torch.nn.Module, y: Tensor) -> Tensor:
        """One number a sample."""
        return (1 / (1 + torch.exp(-linear(insert.gate.linear, y)))).sum(dim=1, keepdim=True) / y.shape[1]

    def low_rank(delta: torch.nn.Module, y: Tensor) -> Tensor:
        return gate(delta, y) * (y @ delta.down.T @ delta.up.T)

    normed = norm(block.norm1, x)
    q, k, v = qkv(block, normed)
    put_out = linear(prefix.up, torch.tanh(linear(trunk.down, trunk.tokens)))
    keys, values = (part * gate(prefix, normed) for part in (put_out[None, :, :128], put_out[None, :, 128:]))
    q, v = q + low_rank(q_delta, normed), v + low_rank(v_delta, normed)
    mixed = attend(q, torch.cat((keys, k), dim=1), torch.cat((values, v), dim=1))
    y = x + linear(block.attn.proj, mixed)
    y = y + mlp(block, norm(block.norm2, y))
    bottleneck = linear(adapter.bottleneck.up, F.relu(linear(adapter.bottleneck.down, y)))
    close(block(x), y + gate(adapter, y) * bottleneck)


def test_unipelt_starts_as_bert_does() -> None:
    torch.manual_seed(0)
    model = adapt(anatomy(), "unipelt", num_classes=3)
    block = model.backbone.blocks[0]
    prefix, adapter = block.attn.slots["prefix"][0], block.slots["mlp"]["after_add"][0]
    assert adapter.bottleneck.down.weight.shape == (8, 128)  # a reduction of 16
    drawn = (prefix.trunk.tokens, prefix.trunk.down.weight, prefix.up.weight, adapter.bottleneck.up.weight)
    for tensor in drawn:
        assert tensor.std().item() == pytest.approx(0.02, rel=0.1)
    for layer in (prefix.trunk.down, prefix.up, adapter.bottleneck.up, adapter.gate.linear, prefix.gate.linear):
        assert not layer.bias.any()
    assert not block.attn.qkv.slots["rows"][0]["delta"][0].up.any()
    assert not model.anatomy.mergeable


@pytest.mark.parametrize(
    ("method", "config"),
    [
        ("mam_adapter", {"prompt_length": 0}),
        ("mam_adapter", {"bottleneck": 0}),
        ("unipelt", {"rank": 0}),
        ("unipelt", {"bottleneck": 0}),
    ],
)
def test_sizes_are_checked(method: str, config: dict[str, object]) -> None:
    with pytest.raises(PeftmarkError, match=method):
        make_method(method, config)

"""The additive methods' formulas, in plain tensor operations."""

from __future__ import annotations

import math

import pytest
import torch
from by_hand import (
    GRID,
    adapted,
    anatomy,
    attend,
    attention,
    bare_block,
    close,
    linear,
    mlp,
    norm,
    qkv,
    stream,
)
from torch import Tensor
from torch.nn import functional as F

from peftmark.adapting import adapt
from peftmark.errors import PeftmarkError
from peftmark.methods import make_method


def quick_gelu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(1.702 * x)


def test_houlsby_after_both_operators() -> None:
    block, x = adapted("houlsby_adapter", bottleneck=4).backbone.blocks[0], stream()

    def adapter(branch: str, y: Tensor) -> Tensor:
        insert = block.slots[branch]["serial"][0]
        z = linear(insert.down, y)
        z = 0.5 * z * (1 + torch.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)))
        return y + linear(insert.up, z)

    expected = x + adapter("attention", attention(block, norm(block.norm1, x)))
    expected = expected + adapter("mlp", mlp(block, norm(block.norm2, expected)))
    close(block(x), expected)


def test_houlsby_starts_nearly_as_the_identity_and_trains_the_norms() -> None:
    torch.manual_seed(0)
    model = adapt("vit_tiny_patch16_224", "houlsby_adapter", num_classes=3, pretrained=False)
    names = [name for name, p in model.named_parameters() if p.requires_grad and "slots" not in name]
    assert {name.split(".")[-2] for name in names if "head" not in name} == {"norm1", "norm2", "norm"}
    adapter = model.backbone.blocks[0].slots["mlp"]["serial"][0]
    for weight in (adapter.down.weight, adapter.up.weight):
        assert 1.8e-3 < weight.abs().max() <= 2e-3  # cut at two deviations
        assert weight.std().item() == pytest.approx(0.88e-3, rel=0.05)  # what is left of 1e-3
    without = adapt(anatomy(), "houlsby_adapter", num_classes=3, train_norms=False)
    assert not without.backbone.norm.weight.requires_grad


def test_parallel_adapter_reads_the_stream_before_the_norm() -> None:
    block, x = adapted("parallel_adapter", scale=3.0).backbone.blocks[0], stream()
    insert = block.slots["mlp"]["parallel"][0]
    assert insert.down.weight.shape == (64, 128)
    x1 = x + attention(block, norm(block.norm1, x))
    expected = x1 + mlp(block, norm(block.norm2, x1)) + 3.0 * linear(insert.up, F.relu(linear(insert.down, x1)))
    close(block(x), expected)


@pytest.mark.parametrize("conv_init", ["identity", "xavier"])
def test_convpass_convolves_the_grid_and_the_class_token_alone(conv_init: str) -> None:
    block, x = adapted("convpass", bottleneck=3, scale=0.5, conv_init=conv_init).backbone.blocks[0], stream()

    def bypass(branch: str, normed: Tensor) -> Tensor:
        insert = block.slots[branch]["parallel_norm"][0]
        down = quick_gelu(linear(insert.down, normed))
        kernel = insert.conv.weight
        padded = torch.zeros(2, GRID + 2, GRID + 2, 3)
        padded[:, 1:-1, 1:-1] = down[:, 1:].reshape(2, GRID, GRID, 3)
        convolved = torch.zeros(2, GRID, GRID, 3) + insert.conv.bias
        for row in range(3):
            for column in range(3):
                window = padded[:, row : row + GRID, column : column + GRID]
                convolved = convolved + window @ kernel[:, :, row, column].T
        alone = down[:, :1] @ kernel[:, :, 1, 1].T + insert.conv.bias
        tokens = torch.cat((alone, convolved.reshape(2, GRID * GRID, 3)), dim=1)
        return 0.5 * linear(insert.up, quick_gelu(tokens))

    normed = norm(block.norm1, x)
    expected = x + attention(block, normed) + bypass("attention", normed)
    normed = norm(block.norm2, expected)
    expected = expected + mlp(block, normed) + bypass("mlp", normed)
    close(block(x), expected)


def test_convpass_starts_from_the_centre_tap_or_from_xavier() -> None:
    centre = torch.zeros(8, 8, 3, 3)
    centre[:, :, 1, 1] = torch.eye(8)
    for conv_init in ("identity", "xavier"):
        model = adapt(anatomy(), "convpass", num_classes=3, conv_init=conv_init, targets=("mlp",))
        block = model.backbone.blocks[0]
        assert not len(block.slots["attention"]["parallel_norm"])
        conv = block.slots["mlp"]["parallel_norm"][0].conv
        assert torch.equal(conv.weight, centre) == (conv_init == "identity")
        assert conv.weight.abs().max() <= (1 if conv_init == "identity" else math.sqrt(6 / (2 * 8 * 9)))
        assert not conv.bias.any()


def test_mona_filters_the_grid_and_the_class_token_alone() -> None:
    """After both residual adds; kernels of three sizes, tap by tap."""
    block, x = adapted("mona", bottleneck=3).backbone.blocks[0], stream()

    def filtered(insert: torch.nn.Module, z: Tensor) -> Tensor:
        """Maps (N, rows, columns, 3), kernels summed over shifted copies."""
        rows, columns = z.shape[1:3]
        total = torch.zeros_like(z)
        for size, conv in zip((3, 5, 7), insert.filters, strict=True):
            reach = size // 2
            padded = F.pad(z, (0, 0, reach, reach, reach, reach))
            total = total + conv.bias
            for i in range(size):
                for j in range(size):
                    total = total + padded[:, i : i + rows, j : j + columns] * conv.weight[:, 0, i, j]
        z = z + total / 3
        return z + z @ insert.mix.weight[:, :, 0, 0].T + insert.mix.bias

    def mona(insert: torch.nn.Module, x: Tensor) -> Tensor:
        z = linear(insert.down, norm(insert.norm, x) * insert.norm_scale + x * insert.input_scale)
        alone = filtered(insert, z[:, :1, None])[:, :, 0]
        patches = filtered(insert, z[:, 1:].reshape(2, GRID, GRID, 3)).reshape(2, GRID * GRID, 3)
        return x + linear(insert.up, F.gelu(torch.cat((alone, patches), dim=1)))

    expected = mona(block.slots["attention"]["after_add"][0], x + attention(block, norm(block.norm1, x)))
    expected = mona(block.slots["mlp"]["after_add"][0], expected + mlp(block, norm(block.norm2, expected)))
    close(block(x), expected)


def test_mona_starts_without_its_norm() -> None:
    insert = adapt(anatomy(), "mona", num_classes=3).backbone.blocks[0].slots["mlp"]["after_add"][0]
    assert torch.equal(insert.norm_scale, torch.full((128,), 1e-6))
    assert torch.equal(insert.input_scale, torch.ones(128))
    assert insert.down.weight.shape == (64, 128)


def test_vpt_shallow_keeps_its_prompts_through_the_blocks() -> None:
    model = adapted("vpt_shallow", prompt_length=3)
    vit, x = model.backbone, stream()
    prompts = vit.blocks[0].slots["before"][0].prompts
    expected = torch.cat((x[:, :1], prompts.expand(2, -1, -1), x[:, 1:]), dim=1)
    for block in vit.blocks:
        expected = bare_block(block, expected)
    got = vit.blocks(x)
    close(got, expected)
    close(vit.norm(got), norm(vit.norm, torch.cat((expected[:, :1], expected[:, 4:]), dim=1)))
    fresh = adapt(anatomy(), "vpt_shallow", num_classes=3).backbone.blocks[0].slots["before"][0].prompts
    bound = math.sqrt(6 / (3 * 8 * 8 + 128))
    assert 0.9 * bound < fresh.abs().max() <= bound


def test_gated_vpt_mixes_prompts_and_tempers_attention() -> None:
    model = adapted("gated_vpt", prompt_length=3)
    vit, x = model.backbone, stream()
    with torch.no_grad():
        for index, block in enumerate(vit.blocks):
            block.attn.slots["query"][0].temperature.fill_(0.5 + index)
        vit.blocks[5].attn.slots["query"][0].temperature.fill_(20.0)  # counts as 10
    prompts = vit.blocks[0].slots["before"][0].prompts
    expected = torch.cat((x[:, :1], prompts.expand(2, -1, -1), x[:, 1:]), dim=1)
    for index, block in enumerate(vit.blocks):
        q, k, v = qkv(block, norm(block.norm1, expected))
        y = expected + linear(block.attn.proj, attend(q / min(0.5 + index if index < 5 else 20.0, 10.0), k, v))
        y = y + mlp(block, norm(block.norm2, y))
        if index < 5:
            gate = 1 / (1 + torch.exp(-block.slots["carry"][0].logit))
            y[:, 1:4] = gate * y[:, 1:4] + (1 - gate) * expected[:, 1:4]
        expected = y
    assert not hasattr(vit.blocks[5], "slots")  # prompts leave the last block as they are
    got = vit.blocks(x)
    close(got, expected)
    assert vit.norm(got).shape == x.shape


@pytest.mark.parametrize("pool", ["token", "avg"])
def test_gated_vpt_s_read_out_for_mae(pool: str) -> None:
    """GatedPromptTuning's vit_mae.py: the mean of all tokens but the class token, prompts included, then the norm."""
    bare = anatomy()
    bare.model.global_pool = pool
    torch.manual_seed(3)
    model = adapt(bare, "gated_vpt", num_classes=3, prompt_length=3, read_out="mean").eval()
    vit, seen = model.backbone, []
    vit.blocks.register_forward_hook(lambda module, inputs, output: seen.append(output))
    with torch.no_grad():
        pooled = model.encode(torch.randn(2, 3, 40, 40))
        assert seen[0].shape[1] == 1 + 3 + 25
        close(pooled, norm(vit.norm, seen[0][:, 1:].mean(dim=1)))


def test_gated_vpt_brings_a_temperature_back_within_its_bounds() -> None:
    model = adapt(anatomy(), "gated_vpt", num_classes=3, prompt_length=3)
    temperature = model.backbone.blocks[0].attn.slots["query"][0].temperature
    with torch.no_grad():
        temperature.fill_(-1.0)
    model.train()(torch.randn(2, 3, 40, 40)).square().sum().backward()
    assert temperature.item() == pytest.approx(0.01)
    assert temperature.grad is not None and temperature.grad.abs() > 0
    logits = [block.slots["carry"][0].logit.item() for block in model.backbone.blocks[:5]]
    assert logits == [-5.0] * 5


def test_ia3_rescales_keys_values_and_hidden_activations() -> None:
    block, x = adapted("ia3").backbone.blocks[0], stream()
    assert block.attn.qkv.row_ranges == [(128, 256), (256, 384)]  # scaled queries would give the same scores
    _, keys, values = block.attn.qkv.slots["rows"]
    keys, values = keys["after"][0].scale, values["after"][0].scale
    hidden = block.mlp.fc2.slots["before"][0].scale
    q, k, v = qkv(block, norm(block.norm1, x))
    expected = x + linear(block.attn.proj, attend(q, k * keys, v * values))
    activations = F.gelu(linear(block.mlp.fc1, norm(block.norm2, expected)))
    expected = expected + linear(block.mlp.fc2, activations * hidden)
    close(block(x), expected)
    assert keys.shape == values.shape == (128,) and hidden.shape == (512,)


@pytest.mark.parametrize("reparameterized", [False, True])
def test_prefix_tuning_attends_to_learned_keys_and_values(reparameterized: bool) -> None:
    model = adapted("prefix_tuning", prompt_length=3, reparameterized=reparameterized, hidden=16)
    blocks, x = model.backbone.blocks, stream()
    trunk = blocks[0].attn.slots["prefix"][0].trunk if reparameterized else None
    for block in (blocks[0], blocks[4]):
        insert = block.attn.slots["prefix"][0]
        if trunk is None:
            keys, values = insert.keys, insert.values
        else:
            put_out = linear(insert.up, torch.tanh(linear(trunk.down, trunk.tokens)))
            keys, values = put_out[:, :128], put_out[:, 128:]
        q, k, v = qkv(block, norm(block.norm1, x))
        k, v = torch.cat((keys.expand(2, -1, -1), k), dim=1), torch.cat((values.expand(2, -1, -1), v), dim=1)
        expected = x + linear(block.attn.proj, attend(q, k, v))
        close(block(x), expected + mlp(block, norm(block.norm2, expected)))


def test_the_shared_layer_is_named_and_saved_once() -> None:
    model = adapted("prefix_tuning", reparameterized=True, hidden=16)
    assert [name for name in model.state_dict() if "trunk.tokens" in name] == [
        "backbone.blocks.0.attn.slots.prefix.0.trunk.tokens"
    ]


@pytest.mark.parametrize(
    ("method", "config"),
    [
        ("houlsby_adapter", {"bottleneck": 0}),
        ("parallel_adapter", {"bottleneck": 0}),
        ("convpass", {"bottleneck": 0}),
        ("convpass", {"targets": []}),
        ("vpt_shallow", {"prompt_length": 0}),
        ("gated_vpt", {"prompt_length": 0}),
        ("prefix_tuning", {"prompt_length": 0}),
        ("prefix_tuning", {"hidden": 0}),
    ],
)
def test_sizes_are_checked(method: str, config: dict[str, object]) -> None:
    with pytest.raises(PeftmarkError, match=method):
        make_method(method, config)

"""The formulas, on numbers worked out independently of the classes."""

from __future__ import annotations

import math

import pytest
import torch
from by_hand import anatomy, randomize
from torch import Tensor
from torch.nn import functional as F

from peftmark.adapting import adapt
from peftmark.errors import PeftmarkError, Unsupported
from peftmark.methods import make_method


@pytest.fixture
def stream() -> Tensor:
    return torch.randn(2, 26, 128, generator=torch.Generator().manual_seed(6))


def attention_by_hand(block: torch.nn.Module, x: Tensor, deltas: dict[str, Tensor]) -> Tensor:
    """timm's attention with changed weights: plain matrix products and an explicit softmax."""
    normed = block.norm1(x)
    weights, biases = block.attn.qkv.weight.chunk(3), block.attn.qkv.bias.chunk(3)
    q, k, v = (
        (normed @ (w + deltas.get(n, 0)).T + b).view(2, 26, 4, 32).transpose(1, 2)
        for n, w, b in zip("qkv", weights, biases, strict=True)
    )
    scores = (q @ k.transpose(-2, -1) / math.sqrt(32)).softmax(-1)
    mixed = (scores @ v).transpose(1, 2).reshape(2, 26, 128)
    return mixed @ block.attn.proj.weight.T + block.attn.proj.bias


def mlp_by_hand(block: torch.nn.Module, x: Tensor) -> Tensor:
    hidden = F.gelu(block.norm2(x) @ block.mlp.fc1.weight.T + block.mlp.fc1.bias)
    return hidden @ block.mlp.fc2.weight.T + block.mlp.fc2.bias


def test_lora(stream: Tensor) -> None:
    model = adapt(anatomy(), "lora", num_classes=3, rank=4, alpha=2.0).eval()
    randomize(model)
    block = model.backbone.blocks[0]
    q, v = (block.attn.qkv.slots["rows"][part]["delta"][0] for part in (0, 2))
    deltas = {"q": 0.5 * q.up @ q.down, "v": 0.5 * v.up @ v.down}
    x = stream + attention_by_hand(block, stream, deltas)
    torch.testing.assert_close(block(stream), x + mlp_by_hand(block, x), rtol=1e-4, atol=1e-5)


def test_adaptformer_reads_the_stream_before_the_norm(stream: Tensor) -> None:
    model = adapt(anatomy(), "adaptformer", num_classes=3, bottleneck=4, scale=0.3).eval()
    randomize(model)
    block = model.backbone.blocks[0]
    adapter = block.slots["mlp"]["parallel"][0]
    x = stream + attention_by_hand(block, stream, {})
    down = F.relu(x @ adapter.down.weight.T + adapter.down.bias)
    expected = x + mlp_by_hand(block, x) + 0.3 * (down @ adapter.up.weight.T + adapter.up.bias)
    torch.testing.assert_close(block(stream), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("reads", ["output", "output+residual"])
def test_pfeiffer(stream: Tensor, reads: str) -> None:
    model = adapt(anatomy(), "pfeiffer_adapter", num_classes=3, reads=reads).eval()
    randomize(model)
    block = model.backbone.blocks[0]
    adapter = block.slots["mlp"]["serial" if reads == "output" else "after_add"][0]
    x = stream + attention_by_hand(block, stream, {})
    y = mlp_by_hand(block, x)

    def change(z: Tensor) -> Tensor:
        down = z @ adapter.down.weight.T + adapter.down.bias
        return (down * torch.sigmoid(1.702 * down)) @ adapter.up.weight.T + adapter.up.bias

    expected = x + y + change(y) if reads == "output" else x + y + change(x + y)
    torch.testing.assert_close(block(stream), expected, rtol=1e-4, atol=1e-5)


def test_ssf_after_every_operation(stream: Tensor) -> None:
    model = adapt(anatomy(), "ssf", num_classes=3).eval()
    block = model.backbone.blocks[0]
    randomize(model)

    def after(module: torch.nn.Module, y: Tensor) -> Tensor:
        (insert,) = module.slots["after"]
        return insert.gamma * y + insert.beta

    normed = after(block.norm1, F.layer_norm(stream, (128,), block.norm1.weight, block.norm1.bias, 1e-5))
    qkv = after(block.attn.qkv, normed @ block.attn.qkv.weight.T + block.attn.qkv.bias)
    q, k, v = (part.view(2, 26, 4, 32).transpose(1, 2) for part in qkv.chunk(3, dim=-1))
    mixed = ((q @ k.transpose(-2, -1) / math.sqrt(32)).softmax(-1) @ v).transpose(1, 2).reshape(2, 26, 128)
    x = stream + after(block.attn.proj, mixed @ block.attn.proj.weight.T + block.attn.proj.bias)
    normed = after(block.norm2, F.layer_norm(x, (128,), block.norm2.weight, block.norm2.bias, 1e-5))
    hidden = F.gelu(after(block.mlp.fc1, normed @ block.mlp.fc1.weight.T + block.mlp.fc1.bias))
    expected = x + after(block.mlp.fc2, hidden @ block.mlp.fc2.weight.T + block.mlp.fc2.bias)
    torch.testing.assert_close(block(stream), expected, rtol=1e-4, atol=1e-5)


def test_ssf_scales_the_patches_and_neither_class_token_nor_positions() -> None:
    model = adapt(anatomy(), "ssf", num_classes=3).eval()
    randomize(model)
    vit, images = model.backbone, torch.randn(2, 3, 40, 40)
    (insert,) = vit.patch_embed.proj.slots["after"]
    patches = F.conv2d(images, vit.patch_embed.proj.weight, None, stride=8).flatten(2).transpose(1, 2)
    tokens = torch.cat((vit.cls_token.expand(2, -1, -1), insert.gamma * patches + insert.beta), dim=1)
    expected = tokens + vit.pos_embed
    torch.testing.assert_close(vit._pos_embed(vit.patch_embed(images)), expected, rtol=1e-4, atol=1e-5)


def test_vpt_replaces_prompts_block_by_block() -> None:
    model = adapt(anatomy(), "vpt_deep", num_classes=3, prompt_length=3).eval()
    vit, x = model.backbone, torch.randn(2, 26, 128)
    prompts = [block.slots["before"][0].prompts for block in vit.blocks]
    expected = x
    bare = anatomy().model
    for index, block in enumerate(bare.blocks):
        rest = expected[:, 1:] if index == 0 else expected[:, 4:]
        expected = block(torch.cat((expected[:, :1], prompts[index].expand(2, -1, -1), rest), dim=1))
    got = vit.blocks(x)
    assert got.shape == (2, 29, 128)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    assert vit.norm(got).shape == (2, 26, 128)
    bound = math.sqrt(6 / (3 * 8 * 8 + 128))
    assert all(p.abs().max() <= bound for p in prompts)
    assert max(p.abs().max() for p in prompts) > 0.9 * bound


def test_initial_values() -> None:
    torch.manual_seed(0)
    lora = adapt("vit_tiny_patch16_224", "lora", num_classes=3, pretrained=False)
    (delta,) = lora.backbone.blocks[0].attn.qkv.slots["rows"][0]["delta"]
    bound = 1 / math.sqrt(192)  # Kaiming-uniform with a = sqrt(5)
    assert not delta.up.any()
    assert 0.9 * bound < delta.down.abs().max() <= bound
    ssf = adapt("vit_tiny_patch16_224", "ssf", num_classes=3, pretrained=False)
    gammas = torch.cat([p.flatten() for n, p in ssf.named_parameters() if n.endswith("gamma")])
    betas = torch.cat([p.flatten() for n, p in ssf.named_parameters() if n.endswith("beta")])
    assert gammas.mean().item() == pytest.approx(1, abs=1e-3)
    assert gammas.std().item() == pytest.approx(0.02, rel=0.05)
    assert betas.mean().item() == pytest.approx(0, abs=1e-3)
    assert betas.std().item() == pytest.approx(0.02, rel=0.05)


def test_bitfit_and_layernorm_choose_by_name_and_type() -> None:
    bitfit = adapt(anatomy(), "bitfit", num_classes=3)
    trained = {n for n, p in bitfit.backbone.named_parameters() if p.requires_grad}
    assert trained == {n for n, _ in bitfit.backbone.named_parameters() if n.endswith(".bias")}
    norms = adapt(anatomy(), "layernorm", num_classes=3)
    trained = {n for n, p in norms.backbone.named_parameters() if p.requires_grad}
    assert trained == {n for n, _ in norms.backbone.named_parameters() if "norm" in n}


def test_frame_mean_is_blind_to_order_and_equals_the_image_model_on_a_still() -> None:
    torch.manual_seed(0)
    video = adapt(anatomy(), "frame_mean", num_classes=3, num_frames=4).eval()
    torch.manual_seed(0)
    image = adapt(anatomy(), "linear", num_classes=3).eval()
    frames = torch.randn(2, 4, 3, 40, 40)
    still = frames[:, :1].expand(-1, 4, -1, -1, -1)
    torch.testing.assert_close(video(still), image(frames[:, 0]), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(video(frames), video(frames.flip(1)), rtol=1e-4, atol=1e-5)
    lora = adapt(anatomy(), "frame_mean", num_classes=3, num_frames=4, image_method="lora", image_config={"rank": 2})
    assert lora.trainable_parameters(include_head=False) == 6 * 2 * 2 * 128 * 2


@pytest.mark.parametrize(
    ("method", "config", "message"),
    [
        ("lora", {"rnak": 4}, "did you mean rank"),
        ("lora", {"rank": "four"}, "not valid"),
        ("lora", {"rank": 0}, "Expected `int` >= 1"),
        ("lora", {"targets": ["w"]}, "not valid"),
        ("vpt_deep", {"prompt_length": 0}, "Expected `int` >= 1"),
        ("frame_mean", {"image_method": "coop"}, "not an image method"),
        ("lorra", {}, "did you mean lora"),
    ],
)
def test_bad_hyper_parameters(method: str, config: dict[str, object], message: str) -> None:
    with pytest.raises(PeftmarkError, match=message):
        make_method(method, config)


def test_hyper_parameters_arrive_as_their_types() -> None:
    method = make_method("lora", {"rank": "16", "targets": ["q", "k"]})
    assert (method.rank, method.targets) == (16, ("q", "k"))


def test_a_convolutional_backbone_is_unsupported_with_the_reason() -> None:
    with pytest.raises(Unsupported, match="test_resnet has no transformer blocks"):
        adapt("test_resnet", "lora", num_classes=3, pretrained=False)
    with pytest.raises(Unsupported, match="has no text tower"):
        adapt("test_vit", "coop", class_names=["a", "b"], pretrained=False)


def test_exactly_one_kind_of_head() -> None:
    for arguments in ({}, {"num_classes": 2, "class_names": ["a", "b"]}):
        with pytest.raises(PeftmarkError, match="num_classes"):
            adapt("test_vit", "linear", pretrained=False, **arguments)

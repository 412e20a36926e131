"""The reparameterized methods' formulas, in plain tensor operations."""

from __future__ import annotations

import math

import pytest
import torch
from by_hand import adapted, anatomy, attend, attention, close, linear, mlp, norm, qkv, stream
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from torch.nn import functional as F

from peftmark.adapting import adapt
from peftmark.backbones import Anatomy
from peftmark.backbones.timm.builder import timm_anatomy
from peftmark.errors import NotMergeable, PeftmarkError, Unsupported
from peftmark.methods import Variant, make_method


def qkv_deltas(block: torch.nn.Module) -> list[torch.nn.Module]:
    """One delta a slotted range of the fused layer's rows."""
    return [rows["delta"][0] for rows in block.attn.qkv.slots["rows"] if len(rows["delta"])]


def test_lora_fused_shares_a() -> None:
    block, x = adapted("lora_fused", rank=3).backbone.blocks[0], stream()
    (delta,) = qkv_deltas(block)
    assert delta.down.weight.shape == (3, 128) and delta.up.shape == (384, 3)
    normed = norm(block.norm1, x)
    changes = (normed @ delta.down.weight.T @ delta.up.T).chunk(3, dim=-1)
    parts = [part + change for part, change in zip(qkv(block, normed), changes, strict=True)]
    expected = x + linear(block.attn.proj, attend(*parts))
    close(block(x), expected + mlp(block, norm(block.norm2, expected)))


def test_lora_fused_shares_a_where_projections_are_apart() -> None:
    model = adapt("open_clip/ViT-B-32", "lora_fused", class_names=["a", "b"], pretrained=False, rank=2)
    attention_module = model.anatomy.blocks[0].attention.module
    inserts = [getattr(attention_module, f"{part}_proj").slots["rows"][0]["delta"][0] for part in "qkv"]
    assert inserts[0].down is inserts[1].down is inserts[2].down
    assert len([name for name in model.state_dict() if name.endswith("delta.0.down.weight")]) == 12  # saved once
    assert model.trainable_parameters() == 12 * (2 * 768 + 3 * 768 * 2)


@pytest.mark.parametrize("method", ["fact_tt", "fact_tk"])
def test_fact(method: str) -> None:
    """Block 2 of six; ``U^T S V`` piece by piece, S read as an (in, out) matrix."""
    rank, index = 3, 2
    model = adapted(method, rank=rank, scale=0.5)
    block, x = model.backbone.blocks[index], stream()
    factors = qkv_deltas(model.backbone.blocks[0])[0].factors
    u, v = factors.down.weight.T, factors.up.weight.T  # (D, rank), (rank, D)

    def train_cores(linear_layer: torch.nn.Module, pieces_in: int, pieces_out: int) -> list[list[Tensor]]:
        middle = linear_layer.slots["rows"][0]["delta"][0].middle.weight.T
        return [
            [middle[i * rank : (i + 1) * rank, o * rank : (o + 1) * rank] for o in range(pieces_out)]
            for i in range(pieces_in)
        ]

    def tucker_slices(first: int, number: int) -> list[Tensor]:
        columns = [factors.mixing[:, 12 * index + first + j] for j in range(number)]
        return [torch.einsum("abc,c->ab", factors.tensor, column) for column in columns]

    def interleaved(slices: list[Tensor]) -> list[Tensor]:
        wide = torch.zeros(rank, 4 * rank)
        for piece in range(4):
            for j in range(rank):
                wide[:, j * 4 + piece] = slices[piece][:, j]
        return list(wide.split(rank, dim=1))

    if method == "fact_tt":
        q_k_v = train_cores(block.attn.qkv, 1, 3)[0]
        proj = train_cores(block.attn.proj, 1, 1)[0][0]
        fc1 = train_cores(block.mlp.fc1, 1, 4)[0]
        fc2 = [row[0] for row in train_cores(block.mlp.fc2, 4, 1)]
    else:
        *q_k_v, proj = tucker_slices(0, 4)
        fc1 = interleaved(tucker_slices(4, 4))
        fc2 = [core.T for core in interleaved(tucker_slices(8, 4))]

    def change(y: Tensor, cores: list[Tensor]) -> Tensor:
        return 0.5 * torch.cat([y @ u @ core @ v for core in cores], dim=-1)

    normed = norm(block.norm1, x)
    parts = [part + change(normed, [core]) for part, core in zip(qkv(block, normed), q_k_v, strict=True)]
    mixed = attend(*parts)
    expected = x + linear(block.attn.proj, mixed) + change(mixed, [proj])
    normed = norm(block.norm2, expected)
    hidden = F.gelu(linear(block.mlp.fc1, normed) + change(normed, fc1))
    pieces = [change(chunk, [core]) for chunk, core in zip(hidden.chunk(4, dim=-1), fc2, strict=True)]
    close(block(x), expected + linear(block.mlp.fc2, hidden) + sum(pieces))


def test_fact_starts() -> None:
    torch.manual_seed(0)
    for method in ("fact_tt", "fact_tk"):
        model = adapt(anatomy(), method, num_classes=3, rank=8)
        factors = qkv_deltas(model.backbone.blocks[0])[0].factors
        assert not factors.up.weight.any()
        assert 0.9 / math.sqrt(128) < factors.down.weight.abs().max() <= 1 / math.sqrt(128)
    assert 0.9 * math.sqrt(6 / (8 + 72)) < factors.mixing.abs().max() <= math.sqrt(6 / (8 + 72))
    assert 0.9 * math.sqrt(6 / 128) < factors.tensor.abs().max() <= math.sqrt(6 / 128)
    assert [name for name in model.state_dict() if name.endswith("factors.tensor")] == [
        "backbone.blocks.0.attn.qkv.slots.rows.0.delta.0.factors.tensor"
    ]


def test_repadapter_is_linear_and_grouped() -> None:
    block, x = adapted("repadapter", bottleneck=6, groups=2, scale=0.5).backbone.blocks[0], stream()

    def adapter(layer: torch.nn.Module, y: Tensor) -> Tensor:
        insert = layer.slots["after"][0]
        down = linear(insert.down, y)
        halves = [down[..., :3] @ insert.up[:64].T, down[..., 3:] @ insert.up[64:].T]
        return y + 0.5 * (torch.cat(halves, dim=-1) + insert.up_bias)

    expected = x + attention(block, adapter(block.norm1, norm(block.norm1, x)))
    expected = expected + mlp(block, adapter(block.norm2, norm(block.norm2, expected)))
    close(block(x), expected)


def test_dora_scales_the_rows_of_the_changed_weight() -> None:
    model = adapted("dora", rank=3, alpha=6.0, targets=("q", "proj"))
    block, x = model.backbone.blocks[0], stream()

    def weight(low_rank: torch.nn.Module, magnitude: Tensor, frozen: Tensor) -> Tensor:
        changed = frozen + 2.0 * low_rank.up @ low_rank.down
        return magnitude[:, None] * changed / changed.square().sum(dim=1, keepdim=True).sqrt()

    (query_rows, *_), proj_slots = block.attn.qkv.slots["rows"], block.attn.proj.slots
    normed = norm(block.norm1, x)
    _, k, v = qkv(block, normed)
    query = weight(query_rows["delta"][0], query_rows["after"][0].magnitude, block.attn.qkv.weight[:128])
    q = normed @ query.T + block.attn.qkv.bias[:128]
    proj = weight(proj_slots["rows"][0]["delta"][0], proj_slots["after"][0].magnitude, block.attn.proj.weight)
    expected = x + attend(q, k, v) @ proj.T + block.attn.proj.bias
    close(block(x), expected + mlp(block, norm(block.norm2, expected)))


def test_dora_holds_the_norm_constant_in_the_backward_pass() -> None:
    """dL/dB of sum(y) is s·scale·1 (A x)^T, s = m/|W'|: no term of the norm's own derivative."""
    model = adapted("dora", rank=2, alpha=2.0, targets=("proj",))
    projection = model.backbone.blocks[0].attn.proj
    low_rank, magnitude = projection.slots["rows"][0]["delta"][0], projection.slots["after"][0].magnitude
    x = stream()
    projection(x).sum().backward()
    changed = projection.weight + low_rank.up @ low_rank.down
    expected = (magnitude / changed.norm(dim=1))[:, None] * (x @ low_rank.down.T).sum(dim=(0, 1))
    torch.testing.assert_close(low_rank.up.grad, expected, rtol=1e-4, atol=1e-4)


def test_dora_starts_with_the_frozen_norms() -> None:
    model = adapt(anatomy(), "dora", num_classes=3, targets=("fc1",))
    fc1 = model.backbone.blocks[0].mlp.fc1
    magnitude = fc1.slots["after"][0].magnitude
    assert torch.allclose(magnitude, fc1.weight.square().sum(dim=1).sqrt())
    assert [name for name in model.state_dict() if name.endswith("blocks.0.mlp.fc1.slots.rows.0.delta.0.up")]
    assert not [name for name in model.state_dict() if "low_rank" in name]


def test_vera_scales_shared_random_matrices() -> None:
    model = adapted("vera", rank=5, targets=("q", "v", "fc1"))
    block, x = model.backbone.blocks[3], stream()
    shared = model.backbone.blocks[0].attn.qkv.slots["rows"][0]["delta"][0].projections
    assert shared.down.shape == (5, 128) and shared.up.shape == (512, 5)

    def change(delta: torch.nn.Module, y: Tensor) -> Tensor:
        out = len(delta.b)
        return y @ (torch.diag(delta.b) @ shared.up[:out] @ torch.diag(delta.d) @ shared.down).T

    q_delta, v_delta = qkv_deltas(block)
    normed = norm(block.norm1, x)
    q, k, v = qkv(block, normed)
    expected = x + linear(block.attn.proj, attend(q + change(q_delta, normed), k, v + change(v_delta, normed)))
    normed = norm(block.norm2, expected)
    hidden = linear(block.mlp.fc1, normed) + change(block.mlp.fc1.slots["rows"][0]["delta"][0], normed)
    close(block(x), expected + linear(block.mlp.fc2, F.gelu(hidden)))


def test_vera_s_matrices_follow_from_its_seed_alone() -> None:
    def projections(seed: int, **config: object) -> torch.nn.Module:
        torch.manual_seed(seed)
        model = adapt(anatomy(), "vera", num_classes=3, rank=16, **config)
        assert not [name for name in model.state_dict() if "projections" in name]
        delta = qkv_deltas(model.backbone.blocks[0])[0]
        assert (delta.d == 0.1).all() and not delta.b.any()
        return delta.projections

    first, second, other = projections(0), projections(1), projections(0, projection_seed=1)
    assert torch.equal(first.down, second.down) and torch.equal(first.up, second.up)
    assert not torch.equal(first.down, other.down)
    for matrix, fan_in in ((first.down, 128), (first.up, 16)):
        assert 0.95 * math.sqrt(6 / fan_in) < matrix.abs().max() <= math.sqrt(6 / fan_in)


def odd_vit(**options: object) -> Anatomy:
    vit = VisionTransformer(
        img_size=(16, 24), patch_size=8, embed_dim=12, depth=2, num_heads=2, num_classes=0, **options
    )
    return timm_anatomy("odd", vit, {"input_size": (3, 16, 24), "mean": (0.0,) * 3, "std": (1.0,) * 3})


def test_layers_that_do_not_divide_are_unsupported() -> None:
    for method in ("fact_tt", "fact_tk"):
        with pytest.raises(Unsupported, match="12 x 18 layer"):
            adapt(odd_vit(mlp_ratio=1.5), method, num_classes=3, rank=2)
    with pytest.raises(Unsupported, match="8 groups"):
        adapt(odd_vit(), "repadapter", num_classes=3, groups=8)


def test_repadapter_without_biases_is_not_merged() -> None:
    model = adapt(odd_vit(qkv_bias=False), "repadapter", num_classes=3).eval()
    images = torch.randn(2, 3, 16, 24)
    before = model(images)
    with pytest.raises(NotMergeable, match="no bias"):
        model.merge()
    assert torch.equal(model(images), before)


@pytest.mark.parametrize(
    ("method", "config"),
    [
        ("lora_fused", {"rank": 0}),
        ("fact_tt", {"rank": 0}),
        ("fact_tk", {"rank": 0}),
        ("repadapter", {"bottleneck": 3}),
        ("repadapter", {"groups": 0}),
        ("repadapter", {"targets": []}),
        ("dora", {"rank": 0}),
        ("dora", {"targets": []}),
        ("vera", {"rank": 0}),
        ("vera", {"targets": []}),
    ],
)
def test_sizes_are_checked(method: str, config: dict[str, object]) -> None:
    with pytest.raises(PeftmarkError, match=method):
        make_method(method, config)


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_dylora_is_lora_of_each_rank(rank: int) -> None:
    """``alpha / b · B[:, :b] A[:b]``, merged too."""
    model = adapted("dylora", rank=4, alpha=6.0, targets=("v",))
    model.method.select(model, Variant("rank", rank))
    block, x = model.backbone.blocks[0], stream()
    (delta,) = qkv_deltas(block)
    a, b = torch.cat(list(delta.down)), torch.cat(list(delta.up), dim=1)
    assert a.shape == (4, 128) and b.shape == (128, 4)
    normed = norm(block.norm1, x)
    q, k, v = qkv(block, normed)
    v = v + 6.0 / rank * normed @ a[:rank].T @ b[:, :rank].T
    expected = x + linear(block.attn.proj, attend(q, k, v))
    expected = expected + mlp(block, norm(block.norm2, expected))
    close(block(x), expected)
    model.merge()
    close(block(x), expected)


@pytest.mark.parametrize("frozen", [True, False])
def test_dylora_trains_the_drawn_rank_and_leaves_the_others_bit_identical(frozen: bool) -> None:
    """Under AdamW's momentum and decay; the official code's ranks are slices that go on moving."""
    torch.manual_seed(0)
    model = adapted("dylora", rank=4, frozen=frozen).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1, weight_decay=0.5)
    images, labels = torch.randn(4, 3, 40, 40), torch.tensor([0, 1, 2, 0])
    (delta,) = qkv_deltas(model.backbone.blocks[3])[:1]
    drawn = set()
    for _ in range(12):
        before = [(row.clone(), column.clone()) for row, column in zip(delta.down, delta.up, strict=True)]
        optimizer.zero_grad()
        model.method.loss(model, images, labels, None).backward()
        model.method.after_backward(model, None)
        optimizer.step()
        moved = [
            not torch.equal(row, delta.down[i]) and not torch.equal(column, delta.up[i])
            for i, (row, column) in enumerate(before)
        ]
        still = [
            torch.equal(row, delta.down[i]) and torch.equal(column, delta.up[i])
            for i, (row, column) in enumerate(before)
        ]
        last = max(i for i in range(4) if moved[i])
        assert moved == [i == last if frozen else i <= last for i in range(4)]
        assert still == [not each for each in moved]
        drawn.add(last)
        assert delta.rank == 4 and not delta.only_last  # evaluated whole
    assert drawn == {0, 1, 2, 3}


def test_dylora_s_variants_are_its_ranks() -> None:
    method = make_method("dylora", {"rank": 3})
    assert method.variants() == [Variant("rank", 1), Variant("rank", 2), Variant("rank", 3)]
    assert make_method("lora").variants() == ()

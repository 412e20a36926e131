"""Video methods recomputed step by step on the embedded ViT, and what they make of a clip that stands still."""

from __future__ import annotations

import pytest
import torch
from by_hand import GRID, TOKENS, WIDTH, anatomy, attention, bare_block, close, linear, mlp, norm, randomize
from torch import Tensor
from torch.nn import functional as F

from peftmark.adapting import adapt
from peftmark.benchmark.support import FAMILIES
from peftmark.errors import PeftmarkError, Unsupported
from peftmark.methods import AdaptedModel, make_method

T, N = 3, 2


def adapted(method: str, **config: object) -> AdaptedModel:
    """In evaluation mode, far from where it starts."""
    return randomize(adapt(anatomy(), method, num_classes=3, num_frames=T, **config).eval())


def untrained(method: str, **config: object) -> AdaptedModel:
    torch.manual_seed(1)
    return adapt(anatomy(), method, num_classes=3, num_frames=T, **config).eval()


def tokens() -> Tensor:
    return torch.randn(N * T, TOKENS, WIDTH, generator=torch.Generator().manual_seed(6))


def clips() -> Tensor:
    return torch.randn(N, T, 3, 40, 40, generator=torch.Generator().manual_seed(7))


def of_frame(x: Tensor, clip: int, frame: int) -> Tensor:
    return x[clip * T + frame]


def bottleneck(adapter: torch.nn.Module, x: Tensor) -> Tensor:
    return linear(adapter.up, F.gelu(linear(adapter.down, x)))


def st_adapter(adapter: torch.nn.Module, x: Tensor) -> Tensor:
    """Token by token: each patch looks at the same place in the frames before and after."""
    out, kernel = x.clone(), adapter.conv.weight[:, 0, :, 0, 0]
    hidden = linear(adapter.down, x)
    for clip in range(N):
        for frame in range(T):
            for patch in range(1, TOKENS):
                mixed = adapter.conv.bias.clone()
                for tap, other in enumerate((frame - 1, frame, frame + 1)):
                    if 0 <= other < T:
                        mixed += kernel[:, tap] * of_frame(hidden, clip, other)[patch]
                out[clip * T + frame, patch] += linear(adapter.up, mixed)
    return out


@torch.no_grad()
def test_st_adapter_step_by_step() -> None:
    model = adapted("st_adapter", bottleneck=6, targets=("attention", "mlp"))
    block = model.backbone.blocks[1]
    x = st_adapter(block.slots.before[0], tokens())
    x = x + attention(block, norm(block.norm1, x))
    x = st_adapter(block.slots.attention.after_add[0], x)
    close(block(tokens()), x + mlp(block, norm(block.norm2, x)))


@torch.no_grad()
def test_st_adapter_s_larger_kernel_sees_the_neighbours_of_its_grid() -> None:
    """One patch is lit in one frame: what a 3x3x3 kernel adds is around it, and nowhere else."""
    model = adapted("st_adapter", bottleneck=6, kernel=(3, 3, 3))
    adapter = model.backbone.blocks[0].slots.attention.after_add[0]
    dark, lit = torch.zeros(N * T, TOKENS, WIDTH), torch.zeros(N * T, TOKENS, WIDTH)
    lit[T - 1, 1 + 2 * GRID + 1] = 1.0  # the first clip's last frame, row 2, column 1
    changed = ((adapter(lit) - lit) - (adapter(dark) - dark)).abs().amax(-1) > 1e-6
    expected = torch.zeros(N * T, TOKENS, dtype=torch.bool)
    for row in (1, 2, 3):
        expected[T - 2 : T, 1 + row * GRID : 1 + row * GRID + 3] = True
    assert torch.equal(changed, expected)


@torch.no_grad()
@pytest.mark.parametrize("layers", [2, 6, 9])
def test_st_adapter_in_the_last_layers(layers: int) -> None:
    """Official adapter_layers: what adapters in all blocks compute where those before add nothing."""
    model, full = adapted("st_adapter", bottleneck=6, layers=layers), adapted("st_adapter", bottleneck=6)
    full.load_state_dict(model.state_dict(), strict=False)  # what both have
    for index, block in enumerate(full.backbone.blocks):
        if index < 6 - layers:
            assert "slots" not in model.backbone.blocks[index]._modules
            for parameter in block.slots.attention.after_add[0].up.parameters():
                torch.nn.init.zeros_(parameter)
    close(model(clips()), full(clips()))


@torch.no_grad()
def test_st_adapter_averages_before_the_final_norm() -> None:
    """An untrained one is the bare backbone but for that; an image method norms first."""
    model, bare = untrained("st_adapter"), anatomy().model.eval()
    x = bare.norm_pre(bare._pos_embed(bare.patch_embed(clips().flatten(0, 1))))
    for block in bare.blocks:
        x = bare_block(block, x)
    mean_first = norm(bare.norm, x[:, 0].view(N, T, WIDTH).mean(1))
    torch.testing.assert_close(model.features(clips()), mean_first, rtol=0, atol=1e-5)
    normed_first = norm(bare.norm, x[:, 0]).view(N, T, WIDTH).mean(1)
    assert (model.features(clips()) - normed_first).abs().max() > 1e-4
    torch.testing.assert_close(untrained("aim").features(clips()), normed_first, rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("temporal_adapters", [1, 2])
def test_aim_step_by_step(temporal_adapters: int) -> None:
    model = adapted("aim", temporal_adapters=temporal_adapters, scale=0.7)
    block, x = model.backbone.blocks[1], tokens()
    temporal, spatial = block.slots.before[0], block.slots.attention.serial[0]
    normed = norm(block.norm1, x)
    if temporal_adapters == 2:
        normed = normed + bottleneck(temporal.adapter_in, normed)
    moved = torch.empty_like(x)
    for clip in range(N):
        for place in range(TOKENS):
            sequence = torch.stack([of_frame(normed, clip, frame)[place] for frame in range(T)])
            for frame, token in enumerate(attention(block, sequence[None])[0]):
                moved[clip * T + frame, place] = token
    x = x + bottleneck(temporal.adapter, moved)
    attended = attention(block, norm(block.norm1, x))
    x = x + attended + bottleneck(spatial, attended)
    normed = norm(block.norm2, x)
    x = x + mlp(block, normed) + 0.7 * bottleneck(block.slots.mlp.parallel_norm[0], normed)
    close(block(tokens()), x)


@torch.no_grad()
def test_aim_adds_the_temporal_embedding_frame_by_frame() -> None:
    model = adapted("aim", steps=("spatial",))
    insert = model.backbone.norm_pre.slots.before[0]
    x = tokens()
    for clip in range(N):
        for frame in range(T):
            close(of_frame(insert(x), clip, frame), of_frame(x, clip, frame) + insert.embedding[frame, 0])


def test_aim_trains_the_final_norm_and_no_other_part_of_the_backbone() -> None:
    model = untrained("aim")
    own = [name for name, parameter in model.anatomy.named_parameters() if parameter.requires_grad]
    assert own == ["norm.weight", "norm.bias"]


def test_aim_drops_whole_clips_more_often_in_later_blocks() -> None:
    model = adapted("aim", drop_path=0.5).train()
    blocks = list(model.backbone.blocks)
    rates = [block.slots.mlp.parallel_norm[0].drop_path.drop_prob for block in blocks]
    assert rates == pytest.approx([0.5 * index / (len(blocks) - 1) for index in range(len(blocks))])
    adapter = blocks[-1].slots.before[0].adapter
    x, kept = torch.randn(50 * T, TOKENS, WIDTH), []
    torch.manual_seed(0)
    with torch.no_grad():
        y, full = adapter(x), adapter.eval()(x)
    for dropped, whole in zip(y.unflatten(0, (-1, T)), full.unflatten(0, (-1, T)), strict=True):
        kept.append(bool(dropped.abs().max() > 0))
        close(dropped, whole * 2 if kept[-1] else torch.zeros_like(whole))
    assert 10 < sum(kept) < 40


@torch.no_grad()
@pytest.mark.parametrize(
    ("method", "config"),
    [
        ("st_adapter", {}),
        ("st_adapter", {"targets": ("attention", "mlp")}),
        ("aim", {}),
        ("aim", {"temporal_adapters": 2, "scale": 1.0}),
        ("frame_mean", {}),
    ],
)
def test_an_untrained_method_sees_an_image_in_a_still_clip(method: str, config: dict[str, object]) -> None:
    model = untrained(method, **config)
    image = untrained("frame_mean")
    image.load_state_dict({**image.state_dict(), **{f"head.{k}": v for k, v in model.head.state_dict().items()}})
    still = clips()[:, :1].expand(N, T, 3, 40, 40)
    close(model(still), image.head(image.encode(still[:, 0])))


@torch.no_grad()
@pytest.mark.parametrize(
    ("method", "sees"), [("st_adapter", True), ("aim", True), ("dualpath", True), ("frame_mean", False)]
)
def test_who_sees_the_order_of_frames(method: str, sees: bool) -> None:
    model = untrained(method) if method == "frame_mean" else adapted(method)
    difference = (model(clips()) - model(clips().flip(1))).abs().max()
    assert difference > 1e-4 if sees else difference < 1e-6


@torch.no_grad()
@pytest.mark.parametrize("method", ["st_adapter", "aim", "dualpath"])
def test_clips_do_not_mix(method: str) -> None:
    model = adapted(method)
    close(model(clips())[1:], model(clips()[1:]))


def test_aim_after_a_deepcopy_runs_the_copy_s_own_attention() -> None:
    import copy

    model = adapted("aim")
    twin = copy.deepcopy(model)
    insert = twin.backbone.blocks[0].slots.before[0]
    assert insert.attention is twin.backbone.blocks[0].attn
    assert insert.norm is twin.backbone.blocks[0].norm1


@pytest.mark.parametrize("method", ["st_adapter", "aim", "dualpath"])
def test_where_they_cannot_work(method: str) -> None:
    with pytest.raises(Unsupported, match="num_frames"):
        adapt(anatomy(), method, num_classes=3)
    for family in FAMILIES:
        if family.name in ("Swin", "ConvNeXt"):
            with pytest.raises(Unsupported, match="token grid"):
                adapt(family.anatomy(), method, num_classes=3, num_frames=T)


@pytest.mark.parametrize(
    ("method", "config"),
    [
        ("st_adapter", {"bottleneck": 0}),
        ("st_adapter", {"targets": ()}),
        ("st_adapter", {"layers": 0}),
        ("st_adapter", {"kernel": (2, 1, 1)}),
        ("aim", {"ratio": 0}),
        ("aim", {"drop_path": 1.0}),
        ("aim", {"steps": ()}),
        ("aim", {"temporal_adapters": 3}),
        ("dualpath", {"ratio": 0}),
        ("dualpath", {"dropout": 1.0}),
        ("dualpath", {"grid": 0}),
        ("dualpath", {"spatial_frames": 0}),
    ],
)
def test_bad_hyperparameters_are_one_line(method: str, config: dict[str, object]) -> None:
    with pytest.raises(PeftmarkError, match=method) as error:
        make_method(method, config)
    assert "\n" not in str(error.value)

"""DualPath recomputed step by step on the embedded ViT: its grids of frames, their positions and both paths."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from by_hand import GRID, WIDTH, anatomy, attention, close, linear, mlp, norm, randomize
from torch import Tensor, nn
from torch.nn import functional as F

from peftmark.adapting import adapt
from peftmark.backbones.anatomy.prefix import untouched_prefix
from peftmark.benchmark.support import SMALL_VIT, Family
from peftmark.errors import Unsupported
from peftmark.methods import AdaptedModel
from peftmark.methods.video.dualpath import frame_numbers, grid_images, picked

N, T, SIDE = 2, 32, 4
ON_GRID = (0, 1, 1.5, 2, 3)
"""Which of four frames each of five tokens in a row shows: their middles, at 1.1, 4.3, 7.5, … of 16 pixels."""


def clips(frames: int = T) -> Tensor:
    return torch.randn(N, frames, 3, 40, 40, generator=torch.Generator().manual_seed(7))


def untrained(frames: int = T, **config: object) -> AdaptedModel:
    torch.manual_seed(1)
    return adapt(anatomy(), "dualpath", num_classes=3, num_frames=frames, **config).eval()


def adapted(frames: int = T, **config: object) -> AdaptedModel:
    """Far from where it starts."""
    return randomize(untrained(frames, **config))


def shrunk(frame: Tensor) -> Tensor:
    """A frame (3, 40, 40) at a quarter of its size: the mean of the four pixels in the middle of every sixteen."""
    return sum(frame[:, row::4, column::4] for row in (1, 2) for column in (1, 2)) / 4


def grid_by_hand(frames: Tensor) -> Tensor:
    """Sixteen frames (16, 3, 40, 40) -> their image (3, 40, 40)."""
    image = torch.empty(3, 40, 40)
    for index, frame in enumerate(frames):
        row, column = index // SIDE, index % SIDE
        image[:, 10 * row : 10 * row + 10, 10 * column : 10 * column + 10] = shrunk(frame)
    return image


def bottleneck(adapter: nn.Module, x: Tensor) -> Tensor:
    return linear(adapter.up, F.gelu(linear(adapter.down, x)))


def positions(model: AdaptedModel, grid: int) -> Tensor:
    """Of the tokens (L, D) of a clip's grid number `grid`: learned ones, and those of the frames."""
    table = model.backbone.norm_pre.slots.before[0].spatial.clone()
    shown = [0.0] + [
        16 * grid + SIDE * ON_GRID[row] + ON_GRID[column] + 1 for row in range(GRID) for column in range(GRID)
    ]
    for token, number in enumerate(shown):
        for pair in range(WIDTH // 2):
            angle = number / 10_000 ** (2 * pair / WIDTH)
            table[token, 2 * pair] += math.sin(angle)
            table[token, 2 * pair + 1] += math.cos(angle)
    return table


def path_of_time(model: AdaptedModel, image: Tensor, grid: int) -> Tensor:
    """The features (D) of a grid."""
    vit = model.backbone
    x = torch.cat((vit.cls_token, vit.patch_embed(image[None])), dim=1) + positions(model, grid)
    x = norm(vit.norm_pre, x)
    for block in vit.blocks:
        before, after = block.norm1.slots.after[0].temporal, block.slots.attention.serial[0].temporal
        x = x + bottleneck(after, attention(block, bottleneck(before, norm(block.norm1, x))))
        x = x + bottleneck(block.slots.mlp.serial[0].temporal, mlp(block, norm(block.norm2, x)))
    return norm(vit.norm, x[0, 0])


def path_of_space(model: AdaptedModel, image: Tensor) -> Tensor:
    """The features (D) of a frame."""
    vit = model.backbone
    x = torch.cat((vit.cls_token, vit.patch_embed(image[None])), dim=1) + vit.pos_embed
    x = norm(vit.norm_pre, x)
    for block in vit.blocks:
        normed = norm(block.norm1, x)
        x = x + attention(block, normed) + bottleneck(block.slots.attention.parallel_norm[0].spatial, normed)
        normed = norm(block.norm2, x)
        x = x + mlp(block, normed) + bottleneck(block.slots.mlp.parallel_norm[0].spatial, normed)
    return norm(vit.norm, x[0, 0])


@torch.no_grad()
def test_step_by_step() -> None:
    """Two grids of 16 frames, and every fourth frame."""
    model = adapted()
    for clip, features in zip(clips(), model.features(clips()), strict=True):
        grids = [path_of_time(model, grid_by_hand(clip[16 * grid : 16 * grid + 16]), grid) for grid in range(2)]
        frames = [path_of_space(model, clip[index]) for index in range(0, T, 4)]
        torch.testing.assert_close(features[:WIDTH], torch.stack(grids).mean(0), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(features[WIDTH:], torch.stack(frames).mean(0), rtol=1e-4, atol=1e-4)


def test_frames_that_are_picked() -> None:
    assert picked(16, 16) == list(range(16))
    assert picked(8, 16) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7]
    assert picked(3, 4) == [0, 0, 1, 2]
    assert picked(16, 8) == list(range(0, 16, 2))
    assert picked(20, 8) == [0, 2, 5, 7, 10, 12, 15, 17]


@pytest.mark.parametrize(("frames", "images"), [(3, 1 + 3), (8, 1 + 8), (16, 1 + 8), (17, 2 + 8), (32, 2 + 8)])
def test_images_of_a_clip(frames: int, images: int) -> None:
    """Grids that are full, and eight frames, or all."""
    model, seen = untrained(frames), []
    model.backbone.patch_embed.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        model(clips(frames))
    [read] = seen
    assert read.shape == (N * images, 3, 40, 40)
    last = clips(frames)[1, -1]
    close(read[images + images - min(frames, 8) - 1, :, 30:, 30:], shrunk(last))  # the second clip's last grid


def test_a_frame_keeps_to_its_cell() -> None:
    """Also where the image is no multiple of the grid: no more than the cells' borders are shared."""
    frames = torch.zeros(1, 9, 1, 40, 40)
    frames[0, 5] = 1.0
    [[[image]]] = grid_images(frames, 3)
    assert (image[14:26, 28:] == 1).all()
    assert image.sum() == image[13:27, 26:].sum()


def test_numbers_of_frames_on_clip_s_tokens() -> None:
    """A frame is 3.5 of CLIP's 14 tokens wide: the fourth token is half the first frame's, half the second's."""
    numbers = frame_numbers(1, 4, (14, 14)).view(14, 14)
    columns = torch.tensor([0, 0, 0, 0.5, 1, 1, 1, 2, 2, 2, 2.5, 3, 3, 3])
    close(numbers, 4 * columns[:, None] + columns + 1)
    close(frame_numbers(2, 4, (14, 14))[1], numbers.flatten() + 16)


@torch.no_grad()
def test_the_path_of_space_starts_as_the_image_model_and_that_of_time_sees_nothing() -> None:
    model, bare = untrained(), anatomy()
    time, space = model.features(clips()).split(WIDTH, dim=1)
    frames = bare.pooled(clips()[:, ::4].flatten(0, 1)).unflatten(0, (N, 8)).mean(dim=1)
    torch.testing.assert_close(space, frames, rtol=1e-5, atol=1e-5)
    first = norm(model.backbone.norm_pre, model.backbone.cls_token[0, 0] + positions(model, 0)[0])
    close(time, norm(model.backbone.norm, first).expand(N, WIDTH))


def test_what_trains_of_the_backbone() -> None:
    own = [name for name, parameter in untrained().anatomy.named_parameters() if parameter.requires_grad]
    assert own == ["cls_token", "pos_embed"]


def test_every_tensor_moves_on_a_backbone_with_biases() -> None:
    """On which `unreached` asks for no exception."""
    model = adapt("embedded/vit", "dualpath", num_classes=4, num_frames=8)
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    optimizer, moved = torch.optim.SGD(trained.values(), lr=0.1), set()
    for _ in range(3):
        optimizer.zero_grad()
        F.cross_entropy(model(clips(8)), torch.arange(N)).backward()
        moved |= {name for name, parameter in trained.items() if parameter.grad.abs().max() > 0}
        optimizer.step()
    assert moved == set(trained)


@pytest.mark.parametrize("training", [True, False])
def test_no_prefix_is_frozen(training: bool) -> None:
    """What is kept of untouched first segments is of frames; here the backbone reads others."""
    model = untrained()
    model.train(training)
    assert untouched_prefix(model.anatomy, anatomy(), model.output, training) == 0


def test_a_deepcopy_reads_its_own_positions() -> None:
    twin = copy.deepcopy(adapted())
    insert = twin.backbone.norm_pre.slots.before[0]
    assert insert.owner is twin.backbone
    assert getattr(insert.owner, insert.name) is twin.backbone.pos_embed


@torch.no_grad()
def test_positions_of_patches_alone_are_taken_from_patches_alone() -> None:
    """SigLIP's have no class token, DINOv2's registers have no position."""
    sizes = {**SMALL_VIT, "reg_tokens": 2, "no_embed_class": True}
    model = adapt(Family("", "", "vit_base_patch16_224", sizes).anatomy(), "dualpath", num_classes=3, num_frames=T)
    vit, insert = model.backbone.eval(), model.backbone.norm_pre.slots.before[0]
    images = torch.randn(2 + 8, 3, 32, 32)
    x = vit._pos_embed(vit.patch_embed(images))
    got = insert(x)
    prefix = torch.cat((vit.cls_token, vit.reg_token), dim=1)[0] + insert.spatial[:3]
    zero = torch.tensor([0.0, 1.0]).repeat(24)  # the sine and the cosine of no frame
    close(got[:2, :3], (prefix + zero).expand(2, 3, 48))
    close(got[:2, 3:], vit.patch_embed(images[:2]) + insert.spatial[3:] + insert.temporal[:, 3:])
    assert torch.equal(got[2:], x[2:])


def test_a_backbone_without_positions_is_unsupported() -> None:
    family = Family("", "", "vit_base_patch16_224", {**SMALL_VIT, "pos_embed": "none"})
    with pytest.raises(Unsupported, match="position embedding"):
        adapt(family.anatomy(), "dualpath", num_classes=3, num_frames=T)

"""Predictions, accuracy, and the preprocessing before them."""

from __future__ import annotations

import hashlib
import struct
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from peftmark import Method
from peftmark.benchmark.run.evaluation import accuracy, predict, predictions_sha256
from peftmark.benchmark.run.inputs import BATCH_SIZE, Inputs, TrainingBatches
from peftmark.benchmark.run.normalize import Preprocess
from peftmark.methods import Views
from peftmark.tasks import Split, TaskData

CPU = torch.device("cpu")
PLAIN = SimpleNamespace(predict=lambda model, images: model(images), test_views=lambda: None)


def split(labels: list[int], *shape: int) -> Split:
    images = torch.zeros(len(labels), *(shape or (3, 2, 2)), dtype=torch.uint8)
    return Split(images, torch.tensor(labels), ("a", "b", "c"))


class Fixed(nn.Module):
    """Says class 2 of bright images and 0 of dark ones; counts its batches."""

    method = Method()

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []
        self.dropout = nn.Dropout()
        self.method = PLAIN

    def forward(self, images: Tensor) -> Tensor:
        assert not self.training
        assert not torch.is_grad_enabled()
        self.batches.append(len(images))
        bright = images.flatten(1).mean(1) > 0
        return torch.stack([~bright, torch.zeros_like(bright), bright], dim=1).float()


def anatomy(size: tuple[int, int] = (2, 2), mean: Any = (0.5,) * 3, std: Any = (0.5,) * 3) -> Any:
    return SimpleNamespace(image_size=size, mean=mean, std=std)


def batches(model: Any, data: Split) -> Any:
    """What an evaluation without cache reads of a test split."""
    inputs = Inputs(model, cast(Any, None), TaskData(data, data, {"test": data}), Preprocess(anatomy(), CPU))
    start, found = inputs.evaluation("test test", "float32")
    assert start == 0
    return found


@pytest.mark.parametrize(
    ("predicted", "value"), [([0, 1, 2, 2], 100.0), ([0, 1, 2, 0], 75.0), ([1, 2, 0, 1], 0.0), ([0, 0, 0, 0], 25.0)]
)
def test_accuracy_is_percent(predicted: list[int], value: float) -> None:
    assert accuracy(torch.tensor(predicted), split([0, 1, 2, 2])) == value


def test_predictions_in_order_and_in_fixed_batches() -> None:
    n = BATCH_SIZE + 44
    data = split([0] * n)
    data.images[::3] = 255
    model = Fixed().train()
    predicted = predict(model, batches(model, data), data.class_names)
    assert predicted.tolist() == [2 if i % 3 == 0 else 0 for i in range(n)]
    assert model.batches == [BATCH_SIZE, 44]


def test_a_batch_of_clips_holds_as_many_images() -> None:
    model = Fixed()
    predict(model, batches(model, split([0] * 70, 8, 3, 2, 2)), ())
    assert model.batches == [32, 32, 6]
    model = Fixed()
    predict(model, batches(model, split([0] * 2, 300, 3, 2, 2)), ())
    assert model.batches == [1, 1]


class Sure(nn.Module):
    """Of a clip (N, T, 3, H, W): class 0 by 6 logits where it is black, class 1 by 1 where it is white."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[tuple[int, ...]] = []
        self.method = PLAIN

    def forward(self, clips: Tensor) -> Tensor:
        self.batches.append(tuple(clips.shape))
        black = clips.flatten(1).mean(1) < 0
        return torch.where(black[:, None], torch.tensor([6.0, 0.0]), torch.tensor([0.0, 1.0]))


@pytest.mark.parametrize(
    ("black", "views", "expected"),
    [
        # class 0 has a probability of .998 in a black view and .269 in a white one
        (1, 3, 0),  # .512 in the mean; most views say class 1
        (1, 5, 1),  # .415 in the mean; the mean of the logits, 1.2 and 0.8, says class 0
        (0, 3, 1),
        (3, 3, 0),
    ],
)
def test_views_of_a_video_are_averaged_as_probabilities(black: int, views: int, expected: int) -> None:
    images = torch.full((40, views, 4, 3, 2, 2), 255, dtype=torch.uint8)
    images[:, :black] = 0
    images[1] = 255  # one video of its own
    data, model = Split(images, torch.zeros(40, dtype=torch.int64), ("a", "b")), Sure()
    predicted = predict(model, batches(model, data), data.class_names, multi_view=data.multi_view)
    assert predicted.tolist() == [expected, 1, *[expected] * 38]
    videos = BATCH_SIZE // (4 * views)  # a batch
    full, rest = divmod(40, videos)
    assert model.batches == [(n * views, 4, 3, 2, 2) for n in [*[videos] * full, *[rest] * (rest > 0)]]


def test_the_hash_is_of_the_labels_by_split_name() -> None:
    by_hand = hashlib.sha256(struct.pack("<5q", 3, 1, 2, 0, 1)).hexdigest()
    base, new = torch.tensor([3, 1, 2]), torch.tensor([0, 1])
    assert predictions_sha256({"new": new, "base": base}) == by_hand
    assert predictions_sha256({"base": base.int(), "new": new}) == by_hand
    assert predictions_sha256({"new": base, "base": new}) != by_hand


def test_normalisation_by_hand() -> None:
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).view(3, 1, 1, 1).expand(3, 3, 2, 2)
    pixels = Preprocess(anatomy(mean=(0.0, 0.5, 0.2), std=(1.0, 0.5, 0.1)), CPU)(images)
    assert pixels.shape == (3, 3, 2, 2)
    assert pixels.dtype == torch.float32
    expected = torch.tensor([[0.0, -1.0, -2.0], [0.2, -0.6, 0.0], [1.0, 1.0, 8.0]])
    torch.testing.assert_close(pixels[:, :, 0, 0], expected)


def test_images_of_the_right_size_are_not_resampled() -> None:
    images = torch.randint(0, 256, (4, 3, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    pixels = Preprocess(anatomy((8, 8), (0.0,) * 3, (1.0,) * 3), CPU)(images)
    assert torch.equal(pixels, images.float() / 255)


@pytest.mark.parametrize("size", [(4, 4), (40, 40), (6, 10)])
def test_resizing_stays_in_range_and_keeps_constants(size: tuple[int, int]) -> None:
    board = (torch.arange(8)[:, None] + torch.arange(8)).remainder(2) * 255  # bicubic would overshoot
    images = torch.stack([board.expand(3, 8, 8), torch.full((3, 8, 8), 51)]).to(torch.uint8)
    pixels = Preprocess(anatomy(size, (0.0,) * 3, (1.0,) * 3), CPU)(images)
    assert pixels.shape == (2, 3, *size)
    assert pixels.min() >= 0
    assert pixels.max() <= 1
    torch.testing.assert_close(pixels[1], torch.full((3, *size), 0.2))


def test_shrinking_is_antialiased() -> None:
    """Stripes that are too fine become grey; sampled at the new pixels' centres they would all be white."""
    stripes = torch.tensor([0, 0, 255, 255, 255, 255, 0, 0], dtype=torch.uint8).repeat(4)
    pixels = Preprocess(anatomy((4, 4), (0.0,) * 3, (1.0,) * 3), CPU)(stripes.expand(1, 3, 32, 32))
    torch.testing.assert_close(pixels, torch.full((1, 3, 4, 4), 0.5), rtol=0, atol=0.2)


def test_clips_are_preprocessed_frame_by_frame() -> None:
    clips = torch.randint(0, 256, (2, 5, 3, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    preprocess = Preprocess(anatomy((4, 6)), CPU)
    pixels = preprocess(clips)
    assert pixels.shape == (2, 5, 3, 4, 6)
    torch.testing.assert_close(pixels[1], preprocess(clips[1]))
    torch.testing.assert_close(pixels[0, 3], preprocess(clips[0, 3:4])[0])


class Viewing(Method):
    """Wants views in tests and in scoring."""

    def test_views(self) -> Views:
        return Views(count=20, scale=(0.2, 0.5))

    def scoring_views(self) -> Views:
        return Views(count=3)


def viewed(seed: int, images: Tensor) -> list[Tensor]:
    model = Fixed()
    model.method = Viewing()
    data = Split(images, torch.zeros(len(images), dtype=torch.long), ("a", "b", "c"))
    spec = cast(Any, SimpleNamespace(seed=seed))
    inputs = Inputs(cast(Any, model), spec, TaskData(data, data, {"test": data}), Preprocess(anatomy(size=(8, 8)), CPU))
    before = torch.get_rng_state()
    start, views = inputs.evaluation("test test", "float32")
    found = list(views)
    assert start == 0
    assert torch.equal(torch.get_rng_state(), before)
    assert [batch.shape[1] for batch, _ in TrainingBatches(inputs, 5)] == [3] * 6
    return found


def test_views_are_the_image_itself_and_crops_of_it() -> None:
    """A ramp from left to right: a crop is a part of it, perhaps flipped, and so less steep."""
    ramp = torch.arange(64, dtype=torch.uint8).mul(4).expand(30, 3, 64, 64).clone()
    batches_of_views = viewed(0, ramp)
    assert [len(batch) for batch in batches_of_views] == [12, 12, 6]  # at most 256 views at once
    views = torch.cat(batches_of_views)
    assert views.shape == (30, 20, 3, 8, 8)
    torch.testing.assert_close(views[:, 0], Preprocess(anatomy(size=(8, 8)), CPU)(ramp))
    rise = views[..., -1].mean((2, 3)) - views[..., 0].mean((2, 3))
    assert (rise[:, 1:].abs() < rise[:, :1] * 0.9).all()
    assert 0.4 < (rise[:, 1:] < 0).float().mean() < 0.6
    assert len({round(value, 4) for value in rise[:, 1:].flatten().tolist()}) > 30


def test_views_come_from_the_run_s_seed() -> None:
    images = torch.randint(0, 256, (30, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    first, again, other = viewed(0, images), viewed(0, images), viewed(1, images)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])
    assert not torch.equal(first[0][:, 1], first[1][:, 1])


def test_augmix_changes_crops_and_not_the_image_itself() -> None:
    images = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    drawn = []
    for augmix in (False, True):
        torch.manual_seed(0)
        drawn.append(Preprocess(anatomy(size=(8, 8)), CPU).views(images, Views(6, augmix=augmix)))
    assert torch.equal(drawn[0][:, 0], drawn[1][:, 0])
    assert not torch.equal(drawn[0][:, 1:], drawn[1][:, 1:])


class Says(nn.Module):
    """Logits written in an image's first three pixels."""

    method = Method()

    def forward(self, clips: Tensor) -> Tensor:
        assert clips.dim() == 5
        return clips.flatten(1)[:, :3]


def test_clips_of_one_video_vote_with_their_probabilities() -> None:
    """One sure clip outweighs two that are not; a mean of logits or a majority would say otherwise."""
    sure, unsure = torch.tensor([0.0, 8.0, 0.0]), torch.tensor([0.5, 0.0, 0.0])
    clips = torch.zeros(2, 3, 2, 3, 2, 2)
    for video, rows in enumerate(([sure, unsure, unsure], [unsure, unsure, unsure])):
        for view, row in enumerate(rows):
            clips[video, view].view(-1)[:3] = row
    mean = clips.flatten(2)[..., :3].softmax(-1).mean(1).argmax(-1)
    assert predict(cast(Any, Says()), [clips], ("a", "b", "c"), multi_view=True).tolist() == mean.tolist() == [1, 0]

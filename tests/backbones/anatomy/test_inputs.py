"""Inputs: how pixels are prepared, and what kinds that are no pixels have to say."""

from __future__ import annotations

from collections.abc import Hashable

import pytest
import torch
from torch import Tensor

from peftmark.backbones import InputKind, Pixels
from peftmark.errors import Unsupported

CPU = torch.device("cpu")


def plain(size: tuple[int, int]) -> Pixels:
    """Nothing but resizing."""
    return Pixels(size, (0.0,) * 3, (1.0,) * 3)


def test_normalisation_by_hand() -> None:
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).view(3, 1, 1, 1).expand(3, 3, 2, 2)
    pixels = Pixels((2, 2), (0.0, 0.5, 0.2), (1.0, 0.5, 0.1)).prepare(images, CPU)
    assert pixels.shape == (3, 3, 2, 2)
    assert pixels.dtype == torch.float32
    expected = torch.tensor([[0.0, -1.0, -2.0], [0.2, -0.6, 0.0], [1.0, 1.0, 8.0]])
    torch.testing.assert_close(pixels[:, :, 0, 0], expected)


def test_images_of_the_right_size_are_not_resampled() -> None:
    images = torch.randint(0, 256, (4, 3, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    pixels = plain((8, 8)).prepare(images, CPU)
    assert torch.equal(pixels, images.float() / 255)


@pytest.mark.parametrize("size", [(4, 4), (40, 40), (6, 10)])
def test_resizing_stays_in_range_and_keeps_constants(size: tuple[int, int]) -> None:
    board = (torch.arange(8)[:, None] + torch.arange(8)).remainder(2) * 255  # bicubic would overshoot
    images = torch.stack([board.expand(3, 8, 8), torch.full((3, 8, 8), 51)]).to(torch.uint8)
    pixels = plain(size).prepare(images, CPU)
    assert pixels.shape == (2, 3, *size)
    assert pixels.min() >= 0
    assert pixels.max() <= 1
    torch.testing.assert_close(pixels[1], torch.full((3, *size), 0.2))


def test_shrinking_is_antialiased() -> None:
    """Stripes that are too fine become grey; sampled at the new pixels' centres they would all be white."""
    stripes = torch.tensor([0, 0, 255, 255, 255, 255, 0, 0], dtype=torch.uint8).repeat(4)
    pixels = plain((4, 4)).prepare(stripes.expand(1, 3, 32, 32), CPU)
    torch.testing.assert_close(pixels, torch.full((1, 3, 4, 4), 0.5), rtol=0, atol=0.2)


def test_clips_are_prepared_frame_by_frame() -> None:
    clips = torch.randint(0, 256, (2, 5, 3, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    kind = plain((4, 6))
    pixels = kind.prepare(clips, CPU)
    assert pixels.shape == (2, 5, 3, 4, 6)
    torch.testing.assert_close(pixels[1], kind.prepare(clips[1], CPU))
    torch.testing.assert_close(pixels[0, 3], kind.prepare(clips[0, 3:4], CPU)[0])


def test_augmix_changes_crops_and_not_the_image_itself() -> None:
    images = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    drawn = []
    for augmix in (False, True):
        torch.manual_seed(0)
        drawn.append(plain((8, 8)).crops(images, CPU, 6, (0.08, 1.0), augmix))
    assert torch.equal(drawn[0][:, 0], drawn[1][:, 0])
    assert not torch.equal(drawn[0][:, 1:], drawn[1][:, 1:])


def test_pixels_of_imagenet_or_of_the_weights() -> None:
    kind = Pixels((2, 2), (0.5,) * 3, (0.5,) * 3)
    images = torch.full((1, 3, 2, 2), 255, dtype=torch.uint8)
    assert kind.prepare(images, CPU)[0, :, 0, 0].tolist() == [1.0, 1.0, 1.0]
    found = kind.normalized("imagenet")
    assert found.prepare(images, CPU)[0, :, 0, 0].tolist() == pytest.approx([2.2489, 2.4286, 2.64], abs=1e-4)
    assert found.key != kind.key == kind.normalized("backbone").key


class Points(InputKind):
    """Clouds of 16 points."""

    shape = (16, 3)
    key: Hashable = "points"

    def prepare(self, raw: Tensor, device: torch.device) -> Tensor:
        return raw.to(device).float()


def test_what_reads_no_pixels_has_no_crops_and_no_other_normalisation() -> None:
    kind = Points()
    assert kind.normalized("imagenet") is kind
    with pytest.raises(Unsupported, match="views are crops of images; this backbone reads points"):
        kind.crops(torch.zeros(2, 16, 3), CPU, 4, (0.1, 1.0), augmix=False)

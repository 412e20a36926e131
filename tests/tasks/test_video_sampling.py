"""Which frames make a clip: indices by hand, from the formulas of ST-Adapter's loader."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from peftmark.tasks.video.sampling import dense_stride, uniform_segments


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("total", "num_frames", "middle"),
    [
        # segments end at round(i · 16 / 8) = 0, 2, 4, …, 16
        (17, 8, [1, 3, 5, 7, 9, 11, 13, 15]),
        # round(i · 9 / 4) = 0, 2, 4, 7, 9
        (10, 4, [1, 3, 5, 8]),
        (1, 4, [0, 0, 0, 0]),
        # shorter than the clip: round(i · 2 / 8) = 0, 0, 0, 1, 1, 1, 2, 2, 2
        (3, 8, [0, 0, 0, 1, 1, 1, 2, 2]),
        (100, 1, [49]),
    ],
)
def test_uniform_segments_by_hand(total: int, num_frames: int, middle: list[int]) -> None:
    assert uniform_segments(total, num_frames) == middle


def test_uniform_training_draws_every_frame_of_its_segment() -> None:
    drawn = [uniform_segments(10, 4, generator(seed)) for seed in range(300)]
    assert [sorted({clip[i] for clip in drawn}) for i in range(4)] == [[0, 1, 2], [2, 3, 4], [4, 5, 6, 7], [7, 8, 9]]
    assert uniform_segments(10, 4, generator(3)) == drawn[3]


@pytest.mark.parametrize(
    ("total", "stride", "clips", "expected"),
    [
        # a clip of 4 takes 3 · 2 + 1 = 7 frames; 5 places are left
        (12, 2, 1, [[2, 4, 6, 8]]),
        (12, 2, 2, [[0, 2, 4, 6], [5, 7, 9, 11]]),
        (12, 2, 3, [[0, 2, 4, 6], [2, 4, 6, 8], [5, 7, 9, 11]]),
        (7, 2, 3, [[0, 2, 4, 6]] * 3),
        # too short: the last frame goes on
        (4, 2, 1, [[0, 2, 3, 3]]),
        (1, 16, 2, [[0, 0, 0, 0]] * 2),
    ],
)
def test_dense_stride_by_hand(total: int, stride: int, clips: int, expected: list[list[int]]) -> None:
    assert dense_stride(total, 4, stride, clips) == expected


def test_dense_training_starts_anywhere_the_clip_fits() -> None:
    drawn = [dense_stride(12, 4, 2, generator=generator(seed)) for seed in range(200)]
    assert sorted({clip[0] for [clip] in drawn}) == [0, 1, 2, 3, 4, 5]
    assert all(clip == list(range(clip[0], clip[0] + 8, 2)) for [clip] in drawn)
    assert dense_stride(4, 4, 2, generator=generator()) == [[0, 2, 3, 3]]


@given(st.integers(1, 400), st.integers(1, 40), st.integers(1, 30), st.integers(1, 4), st.none() | st.integers(0, 9))
def test_clips_are_in_order_and_inside(total: int, num_frames: int, stride: int, clips: int, seed: int | None) -> None:
    rng = None if seed is None else generator(seed)
    for clip in (uniform_segments(total, num_frames, rng), *dense_stride(total, num_frames, stride, clips, rng)):
        assert len(clip) == num_frames
        assert clip == sorted(clip)
        assert set(clip) <= set(range(total))


@pytest.mark.parametrize(("total", "num_frames"), [(0, 8), (8, 0)])
def test_there_is_at_least_one_frame(total: int, num_frames: int) -> None:
    with pytest.raises(ValueError, match="at least one frame"):
        uniform_segments(total, num_frames)
    with pytest.raises(ValueError, match="at least one frame"):
        dense_stride(total, num_frames, 1)
    with pytest.raises(ValueError, match="at least 1"):
        dense_stride(8, 8, 0)

"""Which frames of a video make a clip: pure functions of the number of its frames.

Frames are counted from 0, as they are stored: where the frame rate varies, equal steps are not equal times.
"""

from __future__ import annotations

import itertools

import torch


def uniform_segments(total: int, num_frames: int, generator: torch.Generator | None = None) -> list[int]:
    """One frame of each of `num_frames` equal segments (TSN; Something-Something V2).

    As ST-Adapter (video_dataset/dataset.py) and SlowFast (ssv2.py) cut them: segment i runs from
    ``round(i * (total - 1) / num_frames)`` to ``round((i + 1) * (total - 1) / num_frames)``, both ends included, so
    that neighbours share a frame. A video shorter than the clip shows frames several times, in order.

    Args:
        total: frames of the video, at least 1.
        generator: draws the frame of each segment, as in training; None takes the middle one, as in a test.
    """
    _check(total, num_frames)
    bounds = [round(index * (total - 1) / num_frames) for index in range(num_frames + 1)]
    segments = itertools.pairwise(bounds)
    if generator is None:
        return [(start + end) // 2 for start, end in segments]
    return [_draw(start, end, generator) for start, end in segments]


def dense_stride(
    total: int, num_frames: int, stride: int, clips: int = 1, generator: torch.Generator | None = None
) -> list[list[int]]:
    """Clips of every `stride`-th frame (Kinetics-400): of one a random start, of a test several evenly spaced.

    As ST-Adapter's test has it, one clip is the middle one, several run from the first frame to the last, and a video
    shorter than a clip is continued by its last frame. (Its training repeats the last frame that was sampled instead,
    mmaction2 begins again; here training and test see a short video alike.)

    Args:
        total: frames of the video, at least 1.
        generator: draws the start of each clip, as in training; None places them, as in a test.
    """
    _check(total, num_frames)
    if stride < 1 or clips < 1:
        raise ValueError("stride and clips must be at least 1")
    room = max(total - (num_frames - 1) * stride - 1, 0)
    if generator is not None:
        starts = [_draw(0, room, generator) for _ in range(clips)]
    elif clips == 1:
        starts = [room // 2]
    else:
        starts = [round(index * room / (clips - 1)) for index in range(clips)]
    return [[min(start + step * stride, total - 1) for step in range(num_frames)] for start in starts]


def _check(total: int, num_frames: int) -> None:
    if total < 1 or num_frames < 1:
        raise ValueError("a video and a clip have at least one frame")


def _draw(low: int, high: int, generator: torch.Generator) -> int:
    """Uniform, both ends included."""
    return int(torch.randint(low, high + 1, (), generator=generator))

"""Small video files whose frames carry their number."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from PIL import Image
from torch import Tensor

BITS, CELL = 6, 16
HEIGHT, WIDTH = 48, 2 * BITS * CELL // 2


def numbered(number: int, level: int = 235) -> np.ndarray:
    """A frame (48, 96, 3): six bars, bright where the number has a bit; the lowest is on the left."""
    bits = [(number >> bit) & 1 for bit in range(BITS)]
    row = np.repeat(np.array([level if bit else 20 for bit in bits], dtype=np.uint8), CELL)
    return np.broadcast_to(row[None, :, None], (HEIGHT, WIDTH, 3)).copy()


def number_of(frame: Tensor) -> int:
    """The number that a frame (3, H, W) carries."""
    bars = frame.float().mean(0).unflatten(1, (BITS, -1)).mean((0, 2))
    return sum(int(bar > 100) << bit for bit, bar in enumerate(bars.tolist()))


def write_video(
    path: Path, frames: int, codec: str = "libx264", times: list[int] | None = None, **options: str
) -> Path:
    """`frames` numbered frames; `times` are their presentation times in 1/100 s (25 a second without)."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 100)
        for index in range(frames):
            frame = av.VideoFrame.from_ndarray(numbered(index), format="rgb24")
            frame.pts, frame.time_base = (times or [4 * i for i in range(frames)])[index], Fraction(1, 100)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_frames(folder: Path, frames: int) -> Path:
    """A folder of numbered JPEGs, from img_00001.jpg."""
    folder.mkdir(parents=True)
    for index in range(frames):
        Image.fromarray(numbered(index)).save(folder / f"img_{index + 1:05}.jpg", quality=95)
    return folder


def write_colour(path: Path, colour: tuple[int, int, int], frames: int = 12, codec: str = "libx264") -> Path:
    """A video of one colour."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        pixels = np.broadcast_to(np.array(colour, dtype=np.uint8), (HEIGHT, WIDTH, 3)).copy()
        for _ in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return path


def stacked(frames: dict[int, Tensor]) -> list[int]:
    """The numbers of the frames that were read, by the index they were asked for."""
    return [number_of(torch.as_tensor(frames[index])) for index in sorted(frames)]

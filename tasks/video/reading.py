"""Frames out of files: video files through PyAV, folders of images through Pillow."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...errors import PeftmarkError
from ...results.files import check_regular

IMAGE_BYTES = 2**30
"""More than any frame has."""
RAW_FRAME = "img_{:05}.jpg"
"""mmaction2's name of a frame in a folder; the first is number 1."""


class Video(ABC):
    """A video on disk. Frames are numbered from 0, in the order in which they are shown."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @abstractmethod
    def count(self) -> int:
        """How many frames there are, at least 1. Raises PeftmarkError where that cannot be found out."""

    @abstractmethod
    def read(self, indices: Collection[int], keep: Callable[[Tensor], Tensor]) -> dict[int, Tensor]:
        """What `keep` makes of the frames `indices`, each uint8 (3, H, W).

        Raises:
            PeftmarkError: where they cannot be read; it names the file.
        """


class VideoFile(Video):
    """A file that FFmpeg decodes: mp4, webm, avi, …

    What a container says of its number of frames may be wrong or absent, and seeking lands on key frames only. So the
    frames are counted by decoding, and found by counting: slow and right. (ST-Adapter's loader keys frames by their
    time stamps, and so loses all but one of those that share one or have none.) A rotation that the container notes is
    not applied, as in the official loaders.
    """

    def count(self) -> int:
        total = sum(1 for _ in self._decoded())
        if total == 0:
            raise PeftmarkError(f"{self.path} holds no frame that can be decoded: take it off its list")
        return total

    def read(self, indices: Collection[int], keep: Callable[[Tensor], Tensor]) -> dict[int, Tensor]:
        found: dict[int, Tensor] = {}
        for index, frame in enumerate(self._decoded()):
            if index in indices:
                found[index] = keep(torch.from_numpy(frame.to_ndarray(format="rgb24")).movedim(-1, 0))
                if len(found) == len(set(indices)):
                    return found
        raise PeftmarkError(f"{self.path} has no frame {max(indices)}: it changed while it was read")

    def _decoded(self) -> Iterator[Any]:
        """PyAV's frames, in the order in which they are shown."""
        with _av_errors(self.path) as av, av.open(str(self.path)) as container:
            stream = container.streams.best("video")
            if stream is None:
                raise PeftmarkError(f"{self.path} has no video stream: take it off its list")
            stream.thread_count = 1  # as all of a worker
            yield from container.decode(stream)


@contextmanager
def _av_errors(path: Path) -> Iterator[Any]:
    try:
        import av
    except ImportError as error:
        raise PeftmarkError(
            f"{path}: video files are read by PyAV, which is not installed: pip install 'peftmark[video]' "
            "(in a checkout, make setup EXTRAS=video)"
        ) from error
    if not path.is_file():
        raise PeftmarkError(f"{path}: no such file")
    try:
        yield av
    except (av.FFmpegError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        raise PeftmarkError(f"{path} cannot be decoded ({reason}): replace it or take it off its list") from error


class RawFrames(Video):
    """A folder of `total` images ``img_00001.jpg``, ``img_00002.jpg``, …"""

    def __init__(self, path: Path, total: int) -> None:
        super().__init__(path)
        self.total = total

    def count(self) -> int:
        return self.total

    def read(self, indices: Collection[int], keep: Callable[[Tensor], Tensor]) -> dict[int, Tensor]:
        return {index: keep(_image(self.path / RAW_FRAME.format(index + 1))) for index in sorted(set(indices))}


def _image(file: Path) -> Tensor:
    """uint8 (3, H, W). Raises PeftmarkError."""
    try:
        check_regular(file, IMAGE_BYTES)
        with Image.open(file) as image:
            return torch.from_numpy(np.array(image.convert("RGB"))).movedim(-1, 0)
    except FileNotFoundError as error:
        raise PeftmarkError(f"{file}: no such frame; put it there or lower the number of frames in the list") from error
    except (OSError, SyntaxError, ValueError) as error:  # Pillow's for files that are damaged or no images
        raise PeftmarkError(
            f"{file} cannot be decoded ({getattr(error, 'strerror', None) or error}): replace it"
        ) from error

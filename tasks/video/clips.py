"""Tasks whose clips are sampled from listed videos, once, into a file of pixels."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from ...errors import PeftmarkError
from ...results import canonical_json
from ..images import ImageList, decoded
from ..task import Progress, Split, Task, TaskData, silent
from .cropping import square_crops
from .lists import Example
from .sampling import dense_stride, uniform_segments


@dataclass(frozen=True)
class VideoLists:
    """The videos of a task below a folder, and the names of its classes."""

    root: Path
    train: Sequence[Example]
    validation: Sequence[Example]
    test: Sequence[Example]
    class_names: tuple[str, ...]

    def splits(self) -> dict[str, Sequence[Example]]:
        return {"train": self.train, "validation": self.validation, "test": self.test}

    def check(self) -> VideoLists:
        """Itself.

        Raises:
            PeftmarkError: on a label out of range, or a video in two lists.
        """
        first: dict[str, str] = {}
        last = len(self.class_names) - 1
        for example in (example for examples in self.splits().values() for example in examples):
            if example.label > last:
                raise PeftmarkError(f"{example.where}: there is no class {example.label}; the last is {last}")
            if first.setdefault(example.path, example.where) != example.where:
                raise PeftmarkError(f"{example.where}: {example.path!r} stands in {first[example.path]} already")
        return self


class VideoTask(Task):
    """Clips of listed videos.

    A clip is `num_frames` frames from the middle of the picture: drawn in training (once, from the seed and the video's
    path), the middle ones in validation and tests. A test averages the probabilities of several views of a video.
    Clips are decoded once, into `images.cache_folder`: with eight frames of 224 pixels a training clip takes 1.2 MB
    there, a test video with three views 3.6 MB.

    Class attributes:
        size: pixels, of a frame's side. seed: of the training draws.
        sampling: ``uniform`` segments (Something-Something V2), or every `stride`-th frame, ``dense`` (Kinetics-400).
        test_clips, test_crops: views of a test video; uniform sampling has one clip.
    """

    num_frames: ClassVar[int] = 8
    size: ClassVar[int] = 224
    sampling: ClassVar[Literal["uniform", "dense"]] = "uniform"
    stride: ClassVar[int] = 16
    test_clips: ClassVar[int] = 1
    test_crops: ClassVar[int] = 3
    seed: ClassVar[int] = 0

    def __init__(self, name: str) -> None:
        super().__init__(name)
        if self.sampling == "uniform" and self.test_clips != 1:
            raise PeftmarkError(f"{name}: uniform sampling covers a video by one clip: test_clips must be 1")

    @abstractmethod
    def lists(self) -> VideoLists:
        """Raises PeftmarkError where they are not there or not right."""

    def split_sha256(self) -> str:
        """Of the lists, the class names, the sampling and the sizes of the video files."""
        lists = self.lists()
        content = {
            split: [(e.path, e.total or (lists.root / e.path).stat().st_size, e.label) for e in examples]
            for split, examples in lists.splits().items()
        }
        sampling = (self.num_frames, self.size, self.sampling, self.stride, self.test_clips, self.test_crops, self.seed)
        return hashlib.sha256(canonical_json([content, lists.class_names, sampling])).hexdigest()

    def prepare(self, progress: Progress) -> TaskData:
        return self._load(progress)

    def load(self) -> TaskData:
        return self._load(silent)

    def _load(self, progress: Progress) -> TaskData:
        lists = self.lists()
        # one after the other in one file, so that both together are no copy
        both = self._clips(lists, "training", (*lists.train, *lists.validation), progress, drawn=len(lists.train))
        test = self._clips(lists, "test", lists.test, progress, clips=self.test_clips, crops=self.test_crops)
        return TaskData(_rows(both, 0, len(lists.train)), _rows(both, len(lists.train), len(both)), {"test": test})

    def frames_of(self, total: int, path: str, clips: int, training: bool) -> list[list[int]]:
        """The frames of each clip of a video of `total` frames."""
        generator = None
        if training:
            digest = hashlib.sha256(f"{self.seed}/{path}".encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
        if self.sampling == "uniform":
            return [uniform_segments(total, self.num_frames, generator)]
        return dense_stride(total, self.num_frames, self.stride, clips, generator)

    def _clips(
        self,
        lists: VideoLists,
        name: str,
        examples: Sequence[Example],
        progress: Progress,
        clips: int = 1,
        crops: int = 1,
        drawn: int = 0,
    ) -> Split:
        """The views of videos; of the first ones frames are `drawn`, as in training."""
        videos = ImageList(
            f"{self.name}, {name}",
            lists.root,
            tuple(example.path for example in examples),
            tuple(example.label for example in examples),
            lists.class_names,
        )
        by_path = {lists.root / example.path: (example, index < drawn) for index, example in enumerate(examples)}
        pixels = decoded(videos, _Views(self, lists.root, by_path, clips, crops), progress)
        multi_view = clips * crops > 1
        images = pixels.images if multi_view else pixels.images[:, 0]
        return Split(images, videos.label_tensor(), lists.class_names, pixels.digests, multi_view)


def _rows(split: Split, start: int, end: int) -> Split:
    assert split.digests is not None
    rows = torch.arange(start, end)
    return Split(split.inputs[start:end], split.targets[rows], split.class_names, split.digests[start:end])


@dataclass(frozen=True)
class _Views:
    """Makes the views of a video (an `images.cache.Decoder`).

    Attributes:
        examples: by file, and whether their frames are drawn.
    """

    task: VideoTask
    root: Path
    examples: Mapping[Path, tuple[Example, bool]]
    clips: int
    crops: int

    @property
    def name(self) -> str:
        task = self.task
        frames = task.sampling if task.sampling == "uniform" else f"dense {task.stride}"
        each = [(example.total, drawn) for example, drawn in self.examples.values()]
        digest = hashlib.sha256(canonical_json([task.seed, each])).hexdigest()[:16]
        return f"{self.clips}x{self.crops} views of {task.num_frames} frames {frames}, {task.size} pixels, {digest}"

    @property
    def shape(self) -> tuple[int, ...]:
        return self.clips * self.crops, self.task.num_frames, 3, self.task.size, self.task.size

    def read(self, path: Path) -> NDArray[np.uint8]:
        example, drawn = self.examples[path]
        video = example.video(self.root)
        wanted = self.task.frames_of(video.count(), example.path, self.clips, drawn)
        frames = video.read(
            {index for clip in wanted for index in clip}, lambda frame: square_crops(frame, self.task.size, self.crops)
        )
        return torch.cat([torch.stack([frames[index] for index in clip], dim=1) for clip in wanted]).numpy()

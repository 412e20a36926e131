"""A user's own videos: a folder with lists."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ...errors import PeftmarkError
from ...registry import TASKS
from ...results import canonical_json
from ..task import Split, Task, TaskData
from .cropping import square_crops
from .lists import Example, read_classes, read_list
from .sampling import dense_stride, uniform_segments

SPLITS = ("train", "val", "test")


@TASKS.register("video_folder/*", track="video", group="video")
class VideoFolder(Task):
    """Videos of a folder, by lists: ``video_folder/<path>`` with train.txt, val.txt and test.txt in it.

    A line is ``path label`` of a video file, or ``folder total_frames label`` of images img_00001.jpg, …; an optional
    classes.txt names the classes, a line each (otherwise they are those of train.txt, by number). Video files need
    PyAV: ``pip install 'peftmark[video]'``.

    A clip is 8 frames, one of each of eight equal segments, 224 x 224 pixels from the middle of the frame: drawn in
    training (once, from the seed and the video's path), the middle ones in validation and tests. A test averages the
    probabilities of three crops along the longer side. These are class attributes: a subclass that is registered under
    its own name has its own. The sampled frames of all videos are held in memory: a training clip takes 1.2 MB, a test
    video 3.6 MB.

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
        self.root = Path(name.partition("/")[2])
        if self.sampling == "uniform" and self.test_clips != 1:
            raise PeftmarkError(f"{name}: uniform sampling covers a video by one clip: test_clips must be 1")

    def split_sha256(self) -> str:
        """Of the lists, the class names, the sampling and the sizes of the video files."""
        lists, classes = self._lists()
        content = {
            split: [(e.path, e.total or (self.root / e.path).stat().st_size, e.label) for e in examples]
            for split, examples in lists.items()
        }
        sampling = (self.num_frames, self.size, self.sampling, self.stride, self.test_clips, self.test_crops, self.seed)
        return hashlib.sha256(canonical_json([content, classes, sampling])).hexdigest()

    def load(self) -> TaskData:
        lists, classes = self._lists()
        train = self._split(lists["train"], classes, training=True)
        validation = self._split(lists["val"], classes)
        return TaskData(
            train, validation, {"test": self._split(lists["test"], classes, self.test_clips, self.test_crops)}
        )

    def frames_of(self, total: int, path: str, clips: int, training: bool) -> list[list[int]]:
        """The frames of each clip of a video of `total` frames."""
        generator = None
        if training:
            digest = hashlib.sha256(f"{self.seed}/{path}".encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
        if self.sampling == "uniform":
            return [uniform_segments(total, self.num_frames, generator)]
        return dense_stride(total, self.num_frames, self.stride, clips, generator)

    def _lists(self) -> tuple[dict[str, list[Example]], tuple[str, ...]]:
        if not self.root.is_dir():
            raise PeftmarkError(f"task {self.name}: there is no folder {self.root}")
        lists = {split: read_list(self.root, f"{split}.txt") for split in SPLITS}
        classes = read_classes(self.root, "classes.txt")
        if classes is None:
            classes = tuple(str(label) for label in range(max(example.label for example in lists["train"]) + 1))
        self._check(lists, len(classes))
        return lists, classes

    def _check(self, lists: dict[str, list[Example]], classes: int) -> None:
        first: dict[str, str] = {}
        for example in (example for examples in lists.values() for example in examples):
            if example.label >= classes:
                raise PeftmarkError(f"{example.where}: there is no class {example.label}; the last is {classes - 1}")
            if first.setdefault(example.path, example.where) != example.where:
                raise PeftmarkError(f"{example.where}: {example.path!r} stands in {first[example.path]} already")

    def _split(
        self,
        examples: Iterable[Example],
        classes: tuple[str, ...],
        clips: int = 1,
        crops: int = 1,
        training: bool = False,
    ) -> Split:
        examples = list(examples)
        images = torch.stack([self._views(example, clips, crops, training) for example in examples])
        if clips * crops == 1:
            images = images[:, 0]
        return Split(images, torch.tensor([example.label for example in examples]), classes)

    def _views(self, example: Example, clips: int, crops: int, training: bool) -> Tensor:
        """uint8 (clips · crops, T, 3, size, size)."""
        video = example.video(self.root)
        wanted = self.frames_of(video.count(), example.path, clips, training)
        frames = video.read(
            {index for clip in wanted for index in clip}, lambda frame: square_crops(frame, self.size, crops)
        )
        return torch.cat([torch.stack([frames[index] for index in clip], dim=1) for clip in wanted])

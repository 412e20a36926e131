"""A user's own videos: a folder with lists."""

from __future__ import annotations

from pathlib import Path

from ...errors import PeftmarkError
from ...registry import TASKS
from ..images import check_text
from .clips import VideoLists, VideoTask
from .lists import read_classes, read_list


@TASKS.register("video_folder/*", track="video", group="video")
class VideoFolder(VideoTask):
    """Videos of a folder, by lists: ``video_folder/<path>`` with train.txt, val.txt and test.txt in it.

    A line is ``path label`` of a video file, or ``folder total_frames label`` of images img_00001.jpg, …; an optional
    classes.txt names the classes, a line each (otherwise they are those of train.txt, by number). Video files need
    PyAV: ``pip install 'peftmark[video]'``.

    A clip is 8 frames, one of each of eight equal segments, 224 x 224 pixels from the middle of the frame: drawn in
    training (once, from the seed and the video's path), the middle ones in validation and tests. A test averages the
    probabilities of three crops along the longer side. These are class attributes: a subclass that is registered under
    its own name has its own.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.root = Path(name.partition("/")[2])

    def lists(self) -> VideoLists:
        check_text(str(self.root), f"task {self.name}: the folder's name")
        if not self.root.is_dir():
            raise PeftmarkError(f"task {self.name}: there is no folder {self.root}")
        train, validation, test = (read_list(self.root, f"{split}.txt") for split in ("train", "val", "test"))
        classes = read_classes(self.root, "classes.txt")
        if classes is None:
            classes = tuple(str(label) for label in range(max(example.label for example in train) + 1))
        return VideoLists(self.root, train, validation, test, classes).check()

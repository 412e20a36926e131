"""Lists of videos with labels, as mmaction2 and ST-Adapter write them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ...errors import PeftmarkError
from ..images import check_inside, class_number, numbered_lines
from .reading import RAW_FRAME, RawFrames, Video, VideoFile


@dataclass(frozen=True)
class Example:
    """One line of a list.

    Attributes:
        path: relative to the folder.
        total: frames of a folder of images; None of a video file.
        where: the list and the line, for messages.
    """

    path: str
    total: int | None
    label: int
    where: str

    def video(self, root: Path) -> Video:
        return VideoFile(root / self.path) if self.total is None else RawFrames(root / self.path, self.total)


def read_list(root: Path, name: str) -> list[Example]:
    """The examples of ``root/name``.

    A line is ``path label`` of a video file (mmaction2's VideoDataset, ST-Adapter) or ``folder total_frames label`` of
    images (RawframeDataset); paths are relative to `root` and may hold spaces. Empty lines are skipped.

    Raises:
        PeftmarkError: on a list that is not there or empty, on a line that is neither, leaves `root`, names what is not
            there or what another line names; it says which line.
    """
    examples: list[Example] = []
    first: dict[str, str] = {}
    for where, line in numbered_lines(root / name, "write a line `path label` for each video"):
        example = _example(root, line, where)
        known = first.setdefault(example.path, where)
        if known != where:
            raise PeftmarkError(f"{where}: {example.path!r} stands in {known} already")
        examples.append(example)
    if not examples:
        raise PeftmarkError(f"{root / name} is empty: write a line `path label` for each video")
    return examples


def read_classes(root: Path, name: str) -> tuple[str, ...] | None:
    """The class names in ``root/name``, a line each; None where there is no such file.

    Raises:
        PeftmarkError: on a name that stands there twice, or on no name.
    """
    if not (root / name).exists():
        return None
    first: dict[str, str] = {}
    for where, line in numbered_lines(root / name, "write a class name a line"):
        if first.setdefault(line, where) != where:
            raise PeftmarkError(f"{where}: {line!r} stands in {first[line]} already: classes need different names")
    if not first:
        raise PeftmarkError(f"{root / name} is empty: write a class name a line, or remove it")
    return tuple(first)


def _example(root: Path, line: str, where: str) -> Example:
    path, *label = line.rsplit(maxsplit=1)
    folder, *numbers = line.rsplit(maxsplit=2)
    if len(numbers) == 2 and not os.path.isfile(root / path) and numbers[0].isdecimal():
        if len(numbers[0]) > 9:
            raise PeftmarkError(f"{where}: no video has {numbers[0][:20]}… frames")
        folder = check_inside(folder, where)
        total = _frames_of(root / folder, int(numbers[0]), where)
        return Example(folder, total, class_number(numbers[1], where), where)
    if not label:
        raise PeftmarkError(f"{where}: {line!r} is not `path label` nor `folder total_frames label`")
    path = check_inside(path, where)
    if os.path.isdir(root / path):
        raise PeftmarkError(f"{where}: {path!r} is a folder; of frames, its line is `folder total_frames label`")
    if not os.path.isfile(root / path):
        raise PeftmarkError(f"{where}: there is no video {path!r} in {root}")
    return Example(path, None, class_number(label[0], where), where)


def _frames_of(folder: Path, total: int, where: str) -> int:
    if total == 0:
        raise PeftmarkError(f"{where}: a video has at least one frame")
    for number in (1, total):
        if not os.path.isfile(folder / RAW_FRAME.format(number)):
            raise PeftmarkError(f"{where}: there is no frame {folder / RAW_FRAME.format(number)}")
    return total

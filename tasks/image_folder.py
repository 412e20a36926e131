"""A user's own images: a folder with one sub-folder a class."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from pathlib import Path, PurePosixPath
from typing import ClassVar

from ..errors import PeftmarkError
from ..registry import TASKS
from .images import ImageList, ImageTask, Lists, check_text, image_list, shown

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"})
VALIDATION = ("val", "valid", "validation")

ByClass = dict[str, list[str]]
"""Paths, relative to the task's folder, by class."""


@TASKS.register("folder/*", track="image", group="folder")
class ImageFolder(ImageTask):
    """Any folder of images, one sub-folder a class: ``folder/<path>``, e.g. ``folder/photos``, ``folder//data/photos``.

    With ``train`` and ``test`` in it, these are the splits, with the same classes in each; ``val`` (or ``valid``,
    ``validation``) is the validation split. Where there is no ``val``, a fifth of each class's training images is;
    where there is ``val`` and no ``test``, ``val`` is the test split (as in ImageNet).

    In a folder of classes alone, a fifth of each class's images is the test split, another the validation split, at
    least one image each. Their names decide which: images of a class are taken in the order of the sha256 of
    ``<seed>/<class>/<path in the class's folder>``, so that the split is the same on every machine, and adding an image
    moves few others.

    What is left out is counted, with examples, in the record's warnings: links that lead nowhere and links to folders,
    files with other endings than images have, classes without an image, images outside the classes' folders, folders
    beside the splits. So is what a split was drawn from. Hidden files and folders (``.name``) are passed over without a
    word. Classes are numbered in the order of their names.

    Class attributes:
        seed: of the draw. share: of a class's images, in a split that is drawn.
    """

    seed: ClassVar[int] = 0
    share: ClassVar[float] = 0.2

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.root = Path(name.partition("/")[2]).expanduser()

    def lists(self) -> Lists:
        check_text(str(self.root), "the folder's name")
        if not self.root.is_dir():
            raise PeftmarkError(f"there is no folder {self.root}")
        there = [name for name in (*VALIDATION, "test") if (self.root / name).is_dir()]
        left_out, said = _LeftOut(), list[str]()
        if (self.root / "train").is_dir() and there:
            train = _by_class(self.root, "train", left_out)
            test = _by_class(self.root, there[-1], left_out)
            if there[-1] != "test":
                said.append(f"the test split is the folder {there[-1]}, since there is none called test")
            if len(there) > 1:
                validation = _by_class(self.root, there[0], left_out)
            else:
                validation, train = self._draw(train, train)
                said.append(self._drawn("validation", "training images"))
            for entry in _entries(self.root):
                if os.path.isdir(entry) and entry.name not in ("train", there[0], there[-1]):
                    left_out.add("beside the splits", "folder", entry.name)
        else:
            every = _by_class(self.root, "", left_out)
            test, rest = self._draw(every, every)
            validation, train = self._draw(rest, every)
            said += [self._drawn("test", "images"), self._drawn("validation", "images")]
        names = sorted(train)
        made = [
            self._list(name, split, names)
            for name, split in (("train", train), ("validation", validation), ("test", test))
        ]
        return Lists(made[0], made[1], {"test": made[2]}, (*said, *left_out.sentences()))

    def _drawn(self, split: str, of: str) -> str:
        return f"the {split} split was drawn: {self.share:.0%} of each class's {of}, by their names"

    def expected_sizes(self) -> tuple[int, int, int] | None:
        try:
            train, validation, test = self.lists()
        except PeftmarkError:
            return None
        return len(train), len(validation), len(test)

    def _draw(self, images: ByClass, every: ByClass) -> tuple[ByClass, ByClass]:
        """A share of `every` from `images`, and what is left of `images`."""
        drawn, rest = {}, {}
        for name, paths in images.items():
            count = max(round(self.share * len(every[name])), 1)
            ordered = sorted(paths, key=lambda path: self._rank(name, path))
            drawn[name], rest[name] = ordered[:count], ordered[count:]
            if not rest[name]:
                raise PeftmarkError(
                    f"class {name!r} of {self.root} has {len(every[name])} images: too few to draw the splits from; "
                    f"give it three, or make folders train, val and test"
                )
        return drawn, rest

    def _rank(self, name: str, path: str) -> bytes:
        inside = path.partition(f"{name}/")[2]
        return hashlib.sha256(f"{self.seed}/{name}/{inside}".encode()).digest()

    def _list(self, split: str, images: ByClass, names: list[str]) -> ImageList:
        if sorted(images) != names:
            odd = sorted(set(images) ^ set(names))
            raise PeftmarkError(f"{self.root}: train and {split} have not the same classes: {odd[0]!r} is in one alone")
        examples = [(path, names.index(name), split) for name in names for path in sorted(images[name])]
        return image_list(split, self.root, examples, names)


class _LeftOut:
    """What of a folder is no part of the task: paths relative to it, by why and what they are."""

    def __init__(self) -> None:
        self.paths: dict[tuple[str, str], list[str]] = defaultdict(list)

    def add(self, why: str, what: str, path: str) -> None:
        self.paths[why, what].append(path)

    def add_broken(self, entry: os.DirEntry[str], path: str) -> None:
        """A link that leads nowhere, a pipe."""
        self.add("leading to no file", "link" if entry.is_symlink() else "path", path)

    def sentences(self) -> list[str]:
        return [f"left out, {why}: {shown(sorted(paths), what)}" for (why, what), paths in sorted(self.paths.items())]


def _by_class(root: Path, split: str, left_out: _LeftOut) -> ByClass:
    """
    Raises:
        PeftmarkError: where there are no two classes, or a folder cannot be read.
    """
    images = {}
    for entry in _entries(root / split):
        inside = f"{split}/{entry.name}" if split else entry.name
        if os.path.isdir(entry):
            paths = _images_in(root, inside, left_out)
            if paths:
                images[entry.name] = paths
            else:
                left_out.add("without an image", "class folder", inside)
        elif not os.path.isfile(entry):
            left_out.add_broken(entry, inside)
        elif _is_image(entry.name):
            left_out.add("in no class's folder", "image", inside)
    if len(images) < 2:
        raise PeftmarkError(f"{root / split} has {len(images)} sub-folders with images; a task needs two classes")
    return images


def _images_in(root: Path, of_class: str, left_out: _LeftOut) -> list[str]:
    """Paths of a class's images, relative to `root`; those in sub-folders, too."""
    paths, folders = [], [of_class]
    while folders:
        folder = folders.pop()
        for entry in _entries(root / folder):
            inside = f"{folder}/{entry.name}"
            if os.path.isdir(entry):
                if entry.is_symlink():  # perhaps to a folder above it
                    left_out.add("since links to folders are not followed", "link", inside)
                else:
                    folders.append(inside)
            elif not _is_image(entry.name):
                left_out.add("for their endings", "file", inside)
            elif not os.path.isfile(entry):
                left_out.add_broken(entry, inside)
            else:
                paths.append(inside)
    return paths


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What is in a folder and not hidden, by name.

    Raises:
        PeftmarkError: where it cannot be read, or a name in it cannot be recorded.
    """
    try:
        with os.scandir(folder) as entries:
            found = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    except OSError as error:
        raise PeftmarkError(f"{folder} cannot be read: {error.strerror}") from error
    for entry in found:
        check_text(entry.name, f"the name of what lies in {folder}")
    return found


def _is_image(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in SUFFIXES

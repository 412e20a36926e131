"""A user's own images: a folder with one sub-folder a class."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import ClassVar

from ..errors import PeftmarkError
from ..registry import TASKS
from .images import ImageList, ImageTask, Lists, image_list

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

    Files with other endings than images have are passed over, hidden ones too. Classes are numbered in the order of
    their names.

    Class attributes:
        seed: of the draw. share: of a class's images, in a split that is drawn.
    """

    seed: ClassVar[int] = 0
    share: ClassVar[float] = 0.2

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.root = Path(name.partition("/")[2]).expanduser()

    def lists(self) -> Lists:
        if not self.root.is_dir():
            raise PeftmarkError(f"there is no folder {self.root}")
        there = [name for name in (*VALIDATION, "test") if (self.root / name).is_dir()]
        if (self.root / "train").is_dir() and there:
            train = _by_class(self.root, "train")
            test = _by_class(self.root, there[-1])
            if len(there) > 1:
                validation = _by_class(self.root, there[0])
            else:
                validation, train = self._draw(train, train)
        else:
            every = _by_class(self.root, "")
            test, rest = self._draw(every, every)
            validation, train = self._draw(rest, every)
        names = sorted(train)
        made = [
            self._list(name, split, names)
            for name, split in (("train", train), ("validation", validation), ("test", test))
        ]
        return Lists(made[0], made[1], {"test": made[2]})

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


def _by_class(root: Path, split: str) -> ByClass:
    """
    Raises:
        PeftmarkError: where there are no two classes.
    """
    folder = root / split
    images = {}
    for of_class in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        files = [path for path in of_class.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file()]
        inside = [path.relative_to(root) for path in files]
        paths = [path.as_posix() for path in inside if not any(part.startswith(".") for part in path.parts)]
        if paths:
            images[of_class.name] = paths
    if len(images) < 2:
        raise PeftmarkError(f"{folder} has {len(images)} sub-folders with images; a task needs two classes")
    return images

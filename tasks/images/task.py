"""Base of the tasks whose images are files: lists in, mapped splits out."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ...errors import PeftmarkError
from ...results import canonical_json
from ..task import Progress, Split, Task, TaskData, silent
from .cache import decoded
from .lists import ImageList, check_disjoint, sizes_and_times

_LOOKED_AT = 1000
"""Files of a test list whose format is looked at: a copy that a script wrote is of one format throughout."""


@dataclass(frozen=True)
class Lists:
    """What a task's folder says; `warnings` as of `TaskData`."""

    train: ImageList
    validation: ImageList
    tests: Mapping[str, ImageList]
    warnings: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[ImageList]:
        return iter((self.train, self.validation, *self.tests.values()))


class ImageTask(Task):
    """Images in files, decoded once (see `images.cache`).

    Class attributes:
        lossless: whether the originals are: JPEG copies of them are then a warning.
    """

    preprocessing: ClassVar[str] = "squash-bicubic-224"
    lossless: ClassVar[bool] = False

    @abstractmethod
    def lists(self) -> Lists:
        """Read the lists. Raises PeftmarkError on whatever is wrong with them."""

    def split_sha256(self) -> str:
        """Of all paths, labels and class names. Looks whether all files are there.

        Raises:
            PeftmarkError: where a list is wrong or a file is missing; it names the task.
        """
        lists = self._checked()
        named = {"train": lists.train, "validation": lists.validation}
        named |= {f"test {name}": images for name, images in lists.tests.items()}
        content = {name: [images.content(), images.class_names] for name, images in named.items()}
        return hashlib.sha256(canonical_json(content)).hexdigest()

    def prepare(self, progress: Progress) -> TaskData:
        return self._load(progress)

    def load(self) -> TaskData:
        return self._load(silent)

    def _load(self, progress: Progress) -> TaskData:
        lists = self._checked()
        try:
            fitted = decoded(lists.train + lists.validation, self.preprocessing, progress)
            tested = {name: decoded(images, self.preprocessing, progress) for name, images in lists.tests.items()}
        except PeftmarkError as error:
            raise PeftmarkError(f"task {self.name}: {error}") from error
        n = len(lists.train)
        warnings = [*lists.warnings, *self._jpeg_copies(lists)]
        warnings += [
            warning for found in tested.values() for warning in _also_trained_on(found.digests, fitted.digests)
        ]
        return TaskData(
            _split(lists.train, fitted.images[:n], fitted.digests[:n]),
            _split(lists.validation, fitted.images[n:], fitted.digests[n:]),
            {name: _split(lists.tests[name], found.images, found.digests) for name, found in tested.items()},
            tuple(warnings),
        )

    def _checked(self) -> Lists:
        try:
            lists = self.lists()
            check_disjoint(*lists)
            for images in lists:
                sizes_and_times(images)
        except PeftmarkError as error:
            raise PeftmarkError(f"task {self.name}: {error}") from error
        return lists

    def _jpeg_copies(self, lists: Lists) -> list[str]:
        """A sentence on each list that has JPEG files where the originals have no loss."""
        if not self.lossless:
            return []
        sentences = []
        for images in lists:
            paths = images.paths[:: max(len(images) // _LOOKED_AT, 1)]
            count = sum(_is_jpeg(images, path) for path in paths)
            if count:
                sentences.append(
                    f"{count} of {len(paths)} files of {images.name} are JPEG copies of a set without loss: accuracy "
                    f"is up to 10 points lower than on the originals"
                )
        return sentences


def _split(images: ImageList, pixels: Tensor, digests: Tensor) -> Split:
    return Split(pixels, images.label_tensor(), images.class_names, digests)


def _is_jpeg(images: ImageList, path: str) -> bool:
    """By its first bytes: names lie."""
    with (images.root / path).open("rb") as file:
        return file.read(3) == b"\xff\xd8\xff"


def _also_trained_on(tested: Tensor, fitted: Tensor) -> list[str]:
    """Some sets are known for it, so this is said and not refused."""
    known = {row.tobytes() for row in fitted.numpy()}
    count = sum(row.tobytes() in known for row in tested.numpy())
    return [f"{count} of {len(tested)} test images have the pixels of a training or validation image"] if count else []


def check_classes(lists: Lists, num_classes: int, of: str) -> None:
    """
    Raises:
        PeftmarkError: where the lists together have not all classes.
    """
    missing = sorted(set(range(num_classes)) - {label for images in lists for label in images.labels})
    if missing:
        raise PeftmarkError(
            f"{of} has {num_classes} classes; the lists have no image of {len(missing)} of them (the first is "
            f"{missing[0]})"
        )

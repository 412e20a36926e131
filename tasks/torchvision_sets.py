"""Data sets as torchvision keeps them, with as many images as VTAB-1k has of them.

VTAB-1k takes the first images in the order of TensorFlow Datasets' records, which torchvision's files do not have. So
these are *not* VTAB-1k's images, whose names they do not take either: figures are not comparable with VTAB-1k's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from torchvision import datasets

from ..errors import PeftmarkError
from ..registry import TASKS
from .images import ImageList, ImageTask, Lists, check_classes, data_root, image_list

FOLDER = "torchvision"
Files = Sequence[tuple[Path, int]]


class TorchvisionSet(ImageTask):
    """800 training and 200 validation images of a set in ``$PEFTMARK_DATA/torchvision``, tested on its test split.

    They are drawn from the set's own training and validation splits; where it has one split for both, from that. The
    draw takes images in the order of the sha256 of their file names, so it is the same on every machine.

    Class attributes:
        dataset: torchvision's class.
        splits: its names of the splits for training, validation (the same, if there is one for both) and testing.
        sizes: images drawn for training and validation. test_size: of the set's test split.
    """

    num_classes: ClassVar[int]
    dataset: ClassVar[type[datasets.VisionDataset]]
    splits: ClassVar[tuple[str, str, str]] = ("train", "val", "test")
    sizes: ClassVar[tuple[int, int]] = (800, 200)
    test_size: ClassVar[int]

    def lists(self) -> Lists:
        root = data_root() / FOLDER
        train, validation, test = self.splits
        first = sorted(self._files(root, train), key=_rank)
        others = first[self.sizes[0] :] if train == validation else sorted(self._files(root, validation), key=_rank)
        made = {
            "train": first[: self.sizes[0]],
            "validation": others[: self.sizes[1]],
            "test": self._files(root, test),
        }
        drawn = tuple(map(len, made.values()))[:2]
        if drawn != self.sizes:
            raise PeftmarkError(f"{root} has {drawn[0]} and {drawn[1]} images to draw; {self.sizes} are needed")
        listed = [self._list(root, name, files) for name, files in made.items()]
        odd = (f"its test split has {len(listed[2])} images; the original has {self.test_size}",)
        lists = Lists(listed[0], listed[1], {"test": listed[2]}, odd if len(listed[2]) != self.test_size else ())
        check_classes(lists, self.num_classes, self.name)
        return lists

    def expected_sizes(self) -> tuple[int, int, int]:
        return (*self.sizes, self.test_size)

    def _files(self, root: Path, split: str) -> Files:
        """torchvision has no public way to its files; decoding every image to learn its label would take minutes."""
        name = self.dataset.__name__
        try:
            made = self.dataset(str(root), split=split)
        except (RuntimeError, OSError, ValueError) as error:
            raise PeftmarkError(
                f"torchvision finds no {name} in {root} ({str(error).splitlines()[0]}): "
                f"torchvision.datasets.{name}({str(root)!r}, download=True) fetches it"
            ) from error
        files = getattr(made, "_image_files", None) or made._images
        return list(zip(map(Path, files), made._labels, strict=True))

    def _list(self, root: Path, name: str, files: Files) -> ImageList:
        names = tuple(str(label) for label in range(self.num_classes))
        examples = [(path.relative_to(root).as_posix(), label, name) for path, label in files]
        return image_list(name, root, examples, names)


def _rank(file: tuple[Path, int]) -> bytes:
    return hashlib.sha256(file[0].name.encode()).digest()


@TASKS.register("torchvision/dtd", track="image", group="natural")
class TorchvisionDtd(TorchvisionSet):
    """Describable Textures (first partition) from torchvision's files; not VTAB-1k's draw."""

    num_classes = 47
    dataset = datasets.DTD
    test_size = 1_880


@TASKS.register("torchvision/oxford_flowers102", track="image", group="natural")
class TorchvisionFlowers(TorchvisionSet):
    """Oxford Flowers from torchvision's files; not VTAB-1k's draw."""

    num_classes = 102
    dataset = datasets.Flowers102
    test_size = 6_149


@TASKS.register("torchvision/oxford_iiit_pet", track="image", group="natural")
class TorchvisionPets(TorchvisionSet):
    """Oxford-IIIT Pets from torchvision's files; not VTAB-1k's draw."""

    num_classes = 37
    dataset = datasets.OxfordIIITPet
    splits = ("trainval", "trainval", "test")
    test_size = 3_669

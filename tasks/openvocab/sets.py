"""The data sets by name: where they lie below ``$PEFTMARK_DATA``, how they are read, their prompts."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

from ...errors import PeftmarkError
from ..images import data_root, dataset_folder
from .imagenet import read_imagenet, read_variant
from .listing import Listing
from .split_file import read_aircraft, read_split_file

TEMPLATES = Path(__file__).parent / "templates.toml"


@dataclass(frozen=True)
class DataSet:
    """One data set.

    Attributes:
        folder: below ``$PEFTMARK_DATA``, as CoOp's DATASETS.md names it.
        classes: how many it has.
        test_size: how many images its test split has, for estimates.
        read: reads the folder, as a set of so many classes.
    """

    folder: str
    classes: int
    test_size: int
    read: Callable[[Path, int], Listing]


def _split_file(folder: str, images: str, file: str, classes: int, test_size: int) -> DataSet:
    def read(root: Path, n: int) -> Listing:
        return read_split_file(root, images, f"split_zhou_{file}.json", n)

    return DataSet(folder, classes, test_size, read)


def _variant(folder: str, images: str, classes: int, test_size: int) -> DataSet:
    def read(root: Path, n: int) -> Listing:
        imagenet = SETS["imagenet"]
        return read_variant(root, images, n, imagenet.classes, data_root() / imagenet.folder)

    return DataSet(folder, classes, test_size, read)


SETS: dict[str, DataSet] = {
    "caltech101": _split_file("caltech-101", "101_ObjectCategories", "Caltech101", 100, 2465),
    "dtd": _split_file("dtd", "images", "DescribableTextures", 47, 1692),
    "eurosat": _split_file("eurosat", "2750", "EuroSAT", 10, 8100),
    "fgvc_aircraft": DataSet("fgvc_aircraft", 100, 3333, read_aircraft),
    "food101": _split_file("food-101", "images", "Food101", 101, 30300),
    "imagenet": DataSet("imagenet", 1000, 50_000, read_imagenet),
    "oxford_flowers": _split_file("oxford_flowers", "jpg", "OxfordFlowers", 102, 2463),
    "oxford_pets": _split_file("oxford_pets", "images", "OxfordPets", 37, 3669),
    "stanford_cars": _split_file("stanford_cars", "", "StanfordCars", 196, 8041),
    "sun397": _split_file("sun397", "SUN397", "SUN397", 397, 19850),
    "ucf101": _split_file("ucf101", "UCF-101-midframes", "UCF101", 101, 3783),
}
"""CoOp's eleven."""

VARIANTS: dict[str, DataSet] = {
    "imagenet_v2": _variant("imagenetv2", "imagenetv2-matched-frequency-format-val", 1000, 10_000),
    "imagenet_sketch": _variant("imagenet-sketch", "images", 1000, 50_889),
    "imagenet_a": _variant("imagenet-adversarial", "imagenet-a", 200, 7_500),
    "imagenet_r": _variant("imagenet-rendition", "imagenet-r", 200, 30_000),
}
"""Tests of what was learned on ImageNet."""


def find_set(name: str) -> DataSet:
    """One of the eleven, or a variant of ImageNet."""
    return SETS.get(name) or VARIANTS[name]


def read_set(name: str) -> Listing:
    """The images of a data set; read once in a process.

    Raises:
        PeftmarkError: where ``$PEFTMARK_DATA`` has no such folder, or what is there is not the data set.
    """
    data = find_set(name)
    return _read(name, dataset_folder(data.folder), data.classes)


@lru_cache(maxsize=len(SETS) + len(VARIANTS))
def _read(name: str, root: Path, classes: int) -> Listing:
    return find_set(name).read(root, classes)


@cache
def _all_templates() -> dict[str, tuple[str, ...]]:
    return {name: tuple(prompts) for name, prompts in tomllib.loads(TEMPLATES.read_text(encoding="utf-8")).items()}


def templates_of(name: str) -> tuple[str, ...]:
    """The prompts of one of the eleven sets."""
    return _all_templates()[name]


def one_of(task: str, name: str, names: list[str]) -> str:
    """`name`, if it is one of `names`. Raises PeftmarkError with the nearest ones."""
    if name in names:
        return name
    near = difflib.get_close_matches(name, names, n=3)
    hint = f"did you mean {', '.join(near)}?" if near else f"there are {', '.join(names)}"
    raise PeftmarkError(f"unknown task {task!r}: {hint}")

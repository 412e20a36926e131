"""FGVC: five fine-grained data sets in the splits of VPT (Jia et al. 2022, arXiv:2203.12119).

``$PEFTMARK_DATA/fgvc/<name>/`` (or under the data set's own folder name) with VPT's ``train.json``, ``val.json`` and
``test.json``, ``{"001.Black_footed_Albatross/a.jpg": 1, …}``, whose paths are below the data set's folder of images and
whose class ids are numbered in their order; or with ``train.txt``, ``val.txt`` and ``test.txt``, a line ``path label``
for each image, paths below the folder itself.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

from ..errors import PeftmarkError
from ..registry import TASKS
from ..results.files import read_regular
from .images import LIST_BYTES, ImageList, ImageTask, Lists, check_classes, dataset_folder, image_list, read_list

SPLITS = ("train", "val", "test")


class Fgvc(ImageTask):
    """One of the fine-grained data sets.

    Class attributes:
        num_classes: of the data set; the lists must have an image of each.
        folders: its names below ``fgvc``.
        images: the folder in it that the paths of the JSON files start from.
        sizes: of training, validation and test split in VPT; other numbers are a warning.
    """

    num_classes: ClassVar[int]
    folders: ClassVar[tuple[str, ...]]
    images: ClassVar[str] = ""
    sizes: ClassVar[tuple[int, int, int]]

    def lists(self) -> Lists:
        root = dataset_folder(*(f"fgvc/{folder}" for folder in self.folders))
        files = [f"{split}.json" for split in SPLITS]
        found = [file for file in files if (root / file).exists()]
        if found:
            train, validation, test = self._from_json(root, files)
        else:
            names = tuple(str(label) for label in range(self.num_classes))
            train, validation, test = (read_list(self.name, root, f"{split}.txt", names) for split in SPLITS)
        odd = tuple(
            f"{images.name} has {len(images)} images; VPT's split has {size} there"
            for images, size in zip((train, validation, test), self.sizes, strict=True)
            if len(images) != size
        )
        lists = Lists(train, validation, {"test": test}, odd)
        check_classes(lists, self.num_classes, self.name)
        return lists

    def expected_sizes(self) -> tuple[int, int, int]:
        return self.sizes

    def _from_json(self, root: Path, files: list[str]) -> list[ImageList]:
        tables = [_read_json(root / file) for file in files]
        ids = sorted(
            {label for table in tables for label in table.values()}, key=lambda label: (str(type(label)), label)
        )
        if len(ids) != self.num_classes:
            raise PeftmarkError(f"{root}: the JSON lists have {len(ids)} classes; {self.name} has {self.num_classes}")
        numbers = {label: number for number, label in enumerate(ids)}
        names = tuple(str(label) for label in ids)
        prefix = f"{self.images}/" if self.images else ""
        return [
            image_list(
                file,
                root,
                [
                    (_below(prefix, path, root / file), numbers[label], f"{root / file}")
                    for path, label in table.items()
                ],
                names,
            )
            for file, table in zip(files, tables, strict=True)
        ]


def _below(prefix: str, path: str, file: Path) -> str:
    """An absolute path would swallow the prefix."""
    if path.startswith("/"):
        raise PeftmarkError(f"{file}: {path!r} leaves the folder; name images by their path inside it")
    return prefix + path


def _read_json(file: Path) -> dict[str, int | str]:
    """Class ids by path.

    Raises:
        PeftmarkError: on a file that is not there or no JSON, names an image twice or holds something else.
    """
    try:
        pairs = json.loads(read_regular(file, LIST_BYTES), object_pairs_hook=_Pairs)
    except FileNotFoundError as error:
        raise PeftmarkError(f"{file}: no such file; VPT's lists are train.json, val.json and test.json") from error
    except (OSError, ValueError, RecursionError) as error:
        raise PeftmarkError(f"{file} cannot be read as JSON: {error}") from error
    if not isinstance(pairs, _Pairs) or not all(type(label) in (int, str) for _, label in pairs):
        raise PeftmarkError(f'{file} is not a list of VPT: write {{"path": class, …}}')
    table: dict[str, int | str] = {}
    for path, label in pairs:
        if path in table:
            raise PeftmarkError(f"{file}: {path!r} stands there twice")
        table[path] = label
    return table


class _Pairs(list[tuple[str, Any]]):
    """A JSON object with all its keys: a dict would hide one that comes twice."""


@TASKS.register("fgvc/cub200", track="image", group="fine-grained")
class Cub200(Fgvc):
    """Caltech-UCSD Birds 200-2011 (Wah et al. 2011)."""

    num_classes = 200
    folders = ("cub200", "CUB_200_2011")
    images = "images"
    sizes = (5_394, 600, 5_794)


@TASKS.register("fgvc/nabirds", track="image", group="fine-grained")
class Nabirds(Fgvc):
    """NABirds: birds of North America (Van Horn et al. 2015)."""

    num_classes = 555
    folders = ("nabirds",)
    images = "images"
    sizes = (21_536, 2_393, 24_633)


@TASKS.register("fgvc/oxford_flowers", track="image", group="fine-grained")
class OxfordFlowers(Fgvc):
    """Oxford Flowers (Nilsback and Zisserman 2008)."""

    num_classes = 102
    folders = ("oxford_flowers", "OxfordFlower", "OxfordFlowers")
    sizes = (1_020, 1_020, 6_149)


@TASKS.register("fgvc/stanford_dogs", track="image", group="fine-grained")
class StanfordDogs(Fgvc):
    """Stanford Dogs (Khosla et al. 2011)."""

    num_classes = 120
    folders = ("stanford_dogs", "Stanford-dogs", "StanfordDogs")
    images = "Images"
    sizes = (10_800, 1_200, 8_580)


@TASKS.register("fgvc/stanford_cars", track="image", group="fine-grained")
class StanfordCars(Fgvc):
    """Stanford Cars (Krause et al. 2013)."""

    num_classes = 196
    folders = ("stanford_cars", "Stanford-cars", "StanfordCars")
    sizes = (7_329, 815, 8_041)

"""CoOp's split files, ``split_zhou_*.json``, and FGVC-Aircraft's own lists."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...errors import PeftmarkError
from .listing import Example, Listing, checked, inside, lines, read_text

SPLITS = ("train", "val", "test")
WHENCE = "CoOp's DATASETS.md (github.com/KaiyangZhou/CoOp) says where it comes from"


def read_split_file(folder: Path, images: str, file: str, classes: int) -> Listing:
    """``{"train": [[path, label, class name], …], "val": …, "test": …}``, paths relative to ``folder/images``.

    Raises:
        PeftmarkError: on a file that is not such a table, on another number of classes than `classes`, on a class with
            two names, and on what `checked` finds.
    """
    path = folder / file
    try:
        table = json.loads(read_text(path, WHENCE))
    except json.JSONDecodeError as error:
        raise PeftmarkError(f"{path}, line {error.lineno}: not JSON ({error.msg}): get it again; {WHENCE}") from error
    if not isinstance(table, dict) or not all(isinstance(table.get(name), list) for name in SPLITS):
        raise PeftmarkError(f"{path} has no lists train, val and test: it is not one of CoOp's split files; {WHENCE}")
    names: dict[int, str] = {}
    splits = {name: list(_examples(path, name, table[name], images, names)) for name in SPLITS}
    if sorted(names) != list(range(classes)):
        raise PeftmarkError(f"{path} has {_described(names)}; it should have {classes}, numbered from 0: get it again")
    return checked(folder, splits, [names[label] for label in range(classes)], path)


def _examples(path: Path, split: str, rows: list[Any], images: str, names: dict[int, str]) -> Iterator[Example]:
    """Enters the classes in `names`."""
    for number, row in enumerate(rows):
        where = f"{path}, {split}[{number}]"
        match row:
            case [str(image), int(label), str(name)] if not isinstance(label, bool):
                if names.setdefault(label, name) != name:
                    raise PeftmarkError(f"{where}: class {label} is {name!r} here and {names[label]!r} before")
                relative = inside(image, where)
                yield Example(f"{images}/{relative}" if images else relative, label, where)
            case _:
                raise PeftmarkError(f"{where}: {json.dumps(row)[:80]} is not [path, label, class name]")


def _described(names: dict[int, str]) -> str:
    if not names:
        return "no classes"
    return f"{len(names)} classes, with labels from {min(names)} to {max(names)}"


def read_aircraft(folder: Path, classes: int) -> Listing:
    """FGVC-Aircraft as it is published: ``variants.txt`` and ``images_variant_{train,val,test}.txt``.

    A line of the lists is ``1025794 707-320``: the stem of a file in ``images/`` and the name of the variant, which may
    hold spaces. A variant's label is its line in ``variants.txt``.

    Raises:
        PeftmarkError: on another number of variants than `classes`, on an unknown one, and on what `checked` finds.
    """
    advice = "extract data/ of fgvc-aircraft-2013b.tar.gz there"
    names = [name for _, name in lines(folder / "variants.txt", advice)]
    labels = {name: label for label, name in enumerate(names)}
    if not len(labels) == len(names) == classes:
        raise PeftmarkError(
            f"{folder / 'variants.txt'} has {len(labels)} different names in {len(names)} lines; "
            f"it should have {classes}: {advice}"
        )
    splits = {}
    for split in SPLITS:
        splits[split] = []
        for where, line in lines(folder / f"images_variant_{split}.txt", advice):
            image, _, name = line.partition(" ")
            if name not in labels:
                raise PeftmarkError(f"{where}: there is no variant {name!r} in variants.txt")
            splits[split].append(Example(f"images/{inside(image, where)}.jpg", labels[name], where))
    return checked(folder, splits, names, folder)

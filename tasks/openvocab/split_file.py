"""CoOp's split files, ``split_zhou_*.json``, and FGVC-Aircraft's own lists."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...errors import PeftmarkError
from ...results.files import read_regular
from ..images import LIST_BYTES, check_inside, numbered_lines
from .listing import Example, Listing, listing, not_the_classes

SPLITS = ("train", "val", "test")
WHENCE = "CoOp's DATASETS.md (github.com/KaiyangZhou/CoOp) says where it comes from"


def read_split_file(folder: Path, images: str, file: str, classes: int) -> Listing:
    """``{"train": [[path, label, class name], …], "val": …, "test": …}``, paths relative to ``folder/images``.

    Raises:
        PeftmarkError: on a file that is not such a table, on another number of classes than `classes`, on a class with
            two names, and on what `listing` finds.
    """
    path = folder / file
    try:
        table = json.loads(read_regular(path, LIST_BYTES))
    except FileNotFoundError as error:
        raise PeftmarkError(f"{path}: no such file; {WHENCE}") from error
    except (OSError, ValueError, RecursionError) as error:  # no JSON, or no text
        raise PeftmarkError(f"{path} cannot be read as JSON ({error}): get it again; {WHENCE}") from error
    if not isinstance(table, dict) or not all(isinstance(table.get(name), list) for name in SPLITS):
        raise PeftmarkError(f"{path} has no lists train, val and test: it is not one of CoOp's split files; {WHENCE}")
    names: dict[int, str] = {}
    splits = {name: list(_examples(path, name, table[name], images, names)) for name in SPLITS}
    strange = next((label for label in sorted(names) if not 0 <= label < classes), None)
    if strange is not None:
        raise PeftmarkError(f"{path}: there is a label {strange}; the {classes} classes are numbered from 0: {WHENCE}")
    if len(names) != classes:
        raise not_the_classes(path, len(names), classes, WHENCE)
    return listing(folder, splits, [names[label] for label in range(classes)], str(path))


def _examples(path: Path, split: str, rows: list[Any], images: str, names: dict[int, str]) -> Iterator[Example]:
    """Enters the classes in `names`."""
    for number, row in enumerate(rows):
        where = f"{path}, {split}[{number}]"
        match row:
            case [str(image), int(label), str(name)] if not isinstance(label, bool):
                if names.setdefault(label, name) != name:
                    raise PeftmarkError(f"{where}: class {label} is {name!r} here and {names[label]!r} before")
                relative = check_inside(image, where)
                yield f"{images}/{relative}" if images else relative, label, where
            case _:
                raise PeftmarkError(f"{where}: {json.dumps(row)[:80]} is not [path, label, class name]")


def read_aircraft(folder: Path, classes: int) -> Listing:
    """FGVC-Aircraft as it is published: ``variants.txt`` and ``images_variant_{train,val,test}.txt``.

    A line of the lists is ``1025794 707-320``: the stem of a file in ``images/`` and the name of the variant, which may
    hold spaces. A variant's label is its line in ``variants.txt``.

    Raises:
        PeftmarkError: on another number of variants than `classes`, on an unknown one, and on what `listing` finds.
    """
    advice = "extract data/ of fgvc-aircraft-2013b.tar.gz there"
    labels: dict[str, int] = {}
    for where, name in numbered_lines(folder / "variants.txt", advice):
        if name in labels:
            raise PeftmarkError(f"{where}: {name!r} stands there twice: {advice}")
        labels[name] = len(labels)
    if len(labels) != classes:
        raise not_the_classes(folder / "variants.txt", len(labels), classes, advice)
    splits: dict[str, list[Example]] = {}
    for split in SPLITS:
        splits[split] = []
        for where, line in numbered_lines(folder / f"images_variant_{split}.txt", advice):
            image, _, name = line.partition(" ")
            if name not in labels:
                raise PeftmarkError(f"{where}: there is no variant {name!r} in variants.txt")
            splits[split].append((f"images/{check_inside(image, where)}.jpg", labels[name], where))
    return listing(folder, splits, list(labels), str(folder))

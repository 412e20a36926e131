"""ImageNet and its variants: a folder of images for each class."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from ...errors import PeftmarkError
from ..images import check_inside, numbered_lines
from .listing import Example, Listing, listing, not_the_classes
from .split_file import WHENCE

IMAGES = (".jpeg", ".jpg", ".png", ".bmp", ".webp")
NAMES = "classnames.txt"


def read_imagenet(folder: Path, classes: int) -> Listing:
    """``classnames.txt`` and ``images/{train,val}``; the validation images are the test, as in the literature.

    ``images/train`` has a folder for each class. ``images/val`` has folders too, as CoOp asks for, or all images side
    by side, as they are published, with a list ``val.txt`` beside ``classnames.txt``: a line is
    ``ILSVRC2012_val_00000001.JPEG 65`` (Caffe's list: the place among the sorted folder names) or ``… n01751748``. (The
    numbers in the development kit's ``ILSVRC2012_validation_ground_truth.txt`` are in another order: it is not read.)

    Raises:
        PeftmarkError: on a class without a name or without a folder, on another number of classes than `classes`, and
            on what `listing` finds.
    """
    names = _class_names(folder / NAMES, classes)
    labels = {name: label for label, name in enumerate(names)}
    train = _from_folders(folder, "images/train", labels)
    if any(entry.is_dir() for entry in _entries(folder / "images" / "val")):
        test, listed = _from_folders(folder, "images/val", labels), False
    else:
        test, listed = list(_from_list(folder, labels)), True
    return listing(folder, {"train": train, "test": test}, list(names.values()), str(folder), must_exist=listed)


def read_variant(folder: Path, images: str, classes: int, all_classes: int, names_beside: Path) -> Listing:
    """A test set of ImageNet's classes, or of a part of them: a folder of images for each.

    The folders of ImageNet-V2 are numbers, ``0`` to ``999``: places among ImageNet's sorted folder names. Sorted as
    text, as torchvision's ImageFolder does, they would stand for other classes (10 before 2); here they are numbers.
    The others have ImageNet's folder names, 200 of them in ImageNet-A and -R, whose labels count these classes alone.

    Args:
        classes: how many there are in the set.
        all_classes: how many ``classnames.txt`` names.
        names_beside: ImageNet's own folder, whose ``classnames.txt`` serves where there is no copy in `folder`.

    Raises:
        PeftmarkError: as `read_imagenet`.
    """
    file = folder / NAMES
    names = _class_names(file if file.is_file() else names_beside / NAMES, all_classes)
    found = sorted(entry.name for entry in _entries(folder / images) if entry.is_dir())
    if found and all(name.isdecimal() for name in found):
        folders = {str(number): number for number in range(all_classes)}
        class_names = list(names.values())
    else:
        unknown = [name for name in found if name not in names]
        if unknown:
            raise PeftmarkError(f"{folder / images / unknown[0]} is no class of {file.name}: take the folder away")
        folders = {name: label for label, name in enumerate(found)}
        class_names = [names[name] for name in found]
    if len(found) != classes:
        raise not_the_classes(folder / images, len(found), classes, "a folder each; get the missing ones")
    return listing(folder, {"test": _from_folders(folder, images, folders)}, class_names, str(folder), must_exist=False)


def _class_names(file: Path, classes: int) -> dict[str, str]:
    """Class names by folder name, sorted by it: a line is ``n01440764 tench``."""
    names: dict[str, str] = {}
    for where, line in numbered_lines(file, f"a line is `n01440764 tench`; {WHENCE}"):
        folder, _, name = line.partition(" ")
        if not name:
            raise PeftmarkError(f"{where}: {line!r} is not a folder's name and a class name")
        if names.setdefault(folder, name) != name:
            raise PeftmarkError(f"{where}: {folder} stands there twice, as {name!r} and as {names[folder]!r}")
    if len(names) != classes:
        raise not_the_classes(file, len(names), classes, WHENCE)
    return dict(sorted(names.items()))


def _from_folders(folder: Path, images: str, labels: dict[str, int]) -> list[Example]:
    """The images in the sub-folder of every class."""
    examples: list[Example] = []
    for name, label in labels.items():
        where = f"{folder / images / name}"
        found = [e.name for e in _entries(folder / images / name) if Path(e.name).suffix.lower() in IMAGES]
        if not found:
            raise PeftmarkError(f"{where} has no images ({', '.join(IMAGES)}): put those of the class there")
        examples += [(f"{images}/{name}/{image}", label, where) for image in sorted(found)]
    return examples


def _from_list(folder: Path, labels: dict[str, int]) -> Iterator[Example]:
    advice = (
        "the validation images are not in folders of their classes: sort them into folders, "
        "or write a line `ILSVRC2012_val_00000001.JPEG 65` for each"
    )
    by_text = {**labels, **{str(label): label for label in labels.values()}}
    for where, line in numbered_lines(folder / "val.txt", advice):
        image, _, label = line.partition(" ")
        if label.strip() not in by_text:
            raise PeftmarkError(
                f"{where}: the class is {label.strip()!r}; it must be a folder's name or 0 to {len(labels) - 1}"
            )
        yield f"images/val/{check_inside(image, where)}", by_text[label.strip()], where


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What is in a folder, less what is hidden. Raises PeftmarkError where there is none."""
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except (FileNotFoundError, NotADirectoryError) as error:
        raise PeftmarkError(f"there is no folder {folder}: put the images of the data set there") from error
    except OSError as error:
        raise PeftmarkError(f"{folder} cannot be read ({error.strerror})") from error

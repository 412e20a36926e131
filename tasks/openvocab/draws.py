"""Which images of a data set are seen in few-shot training, and which classes are base classes."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping

from ..images import ImageList

SHOTS = (1, 2, 4, 8, 16)
VALIDATION_SHOTS = 4


def draw(splits: Mapping[str, ImageList], shots: int, seed: int) -> tuple[ImageList, ImageList]:
    """`shots` training images a class, and min(`shots`, 4) to validate with (CoOp's numbers).

    A class with fewer images gives all of them, as in CoOp. The images of a class are taken in the order of
    sha256("seed/path"): the draw is the same on every machine and with every version of every library, does not depend
    on the order of the list, and has the images of fewer shots among those of more. (CoOp draws with Python's global
    random numbers, after whatever else has drawn some, and keeps the result in a pickle.)

    A set without a validation split (ImageNet, where CoOp looks at the test images instead) gives the first four images
    of each class for validation and the next ones for training; a class with fewer than five keeps one to train on.
    """
    few = min(shots, VALIDATION_SHOTS)
    ordered = _shuffled(splits["train"], seed)
    if "val" in splits:
        validation = part(splits["val"], (i for images in _shuffled(splits["val"], seed) for i in images[:few]))
        return part(splits["train"], (i for images in ordered for i in images[:shots])), validation
    train: list[int] = []
    held_out: list[int] = []
    for images in ordered:
        kept = min(VALIDATION_SHOTS, len(images) - 1)
        train += images[kept : kept + shots]
        held_out += images[: min(few, kept)]
    return part(splits["train"], train), part(splits["train"], held_out)


def base_and_new(images: ImageList) -> tuple[ImageList, ImageList]:
    """The images of the first half of the classes (of an odd number, the larger one), and the rest, numbered from 0."""
    middle = -(-len(images.class_names) // 2)
    base = part(images, (i for i, label in enumerate(images.labels) if label < middle))
    new = part(images, (i for i, label in enumerate(images.labels) if label >= middle))
    return (
        ImageList(images.name, images.root, base.paths, base.labels, images.class_names[:middle]),
        ImageList(
            images.name,
            images.root,
            new.paths,
            tuple(label - middle for label in new.labels),
            images.class_names[middle:],
        ),
    )


def part(images: ImageList, indices: Iterable[int]) -> ImageList:
    """Some of the images, in the order of the list."""
    kept = sorted(indices)
    return ImageList(
        images.name,
        images.root,
        tuple(images.paths[i] for i in kept),
        tuple(images.labels[i] for i in kept),
        images.class_names,
    )


def _shuffled(images: ImageList, seed: int) -> list[list[int]]:
    """The images of each class, in an order that the seed decides."""
    by_label: defaultdict[int, list[int]] = defaultdict(list)
    for index, label in enumerate(images.labels):
        by_label[label].append(index)
    return [
        sorted(indices, key=lambda index: hashlib.sha256(f"{seed}/{images.paths[index]}".encode()).digest())
        for indices in by_label.values()
    ]

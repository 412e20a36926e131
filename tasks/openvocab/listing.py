"""A data set on disk: the images of its splits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import PeftmarkError
from ..images import ImageList, image_list
from ..images.lists import check_disjoint, sizes_and_times

Example = tuple[str, int, str]
"""Path inside the data set's folder, label, and where it stands, for messages."""


@dataclass(frozen=True)
class Listing:
    """The splits of a data set by name (``train``, ``val``, ``test``, or fewer), sorted by label and path."""

    splits: Mapping[str, ImageList]
    class_names: tuple[str, ...]


def listing(
    root: Path,
    splits: Mapping[str, Iterable[Example]],
    class_names: Sequence[str],
    source: str,
    must_exist: bool = True,
) -> Listing:
    """A checked listing.

    Args:
        source: what was read, for messages.
        must_exist: False where the paths come from the folder itself.

    Raises:
        PeftmarkError: on an empty split, a label out of range, a path that leaves `root`, an image that is not there,
            stands in two splits or twice in one.
    """
    lists = {
        name: image_list(f"{source}, {name}", root, sorted(examples, key=lambda e: (e[1], e[0])), class_names)
        for name, examples in splits.items()
    }
    check_disjoint(*lists.values())
    if must_exist:
        for images in lists.values():
            sizes_and_times(images)
    return Listing(lists, tuple(class_names))


def not_the_classes(source: object, found: int, expected: int, advice: str) -> PeftmarkError:
    return PeftmarkError(f"{source} has {found} classes; it should have {expected}: {advice}")

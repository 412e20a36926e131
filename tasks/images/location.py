"""Where data sets lie, and where their decoded pixels are kept."""

from __future__ import annotations

import os
from pathlib import Path

from ...errors import PeftmarkError

DATA, CACHE = "PEFTMARK_DATA", "PEFTMARK_CACHE"


def data_root() -> Path:
    """``$PEFTMARK_DATA``, the folder that holds the data sets.

    Raises:
        PeftmarkError: where it is not set, or is no folder.
    """
    value = os.environ.get(DATA, "")
    if not value:
        raise PeftmarkError(f"{DATA} is not set: `export {DATA}=/path` to the folder that holds the data sets")
    root = Path(value).expanduser()
    if not root.is_dir():
        raise PeftmarkError(f"{DATA}={value}: there is no such folder; set it to the one that holds the data sets")
    return root.resolve()


def dataset_folder(*names: str) -> Path:
    """The first of some folders below the data's that is there, e.g. of ``dataset_folder("cub200", "CUB_200_2011")``.

    Raises:
        PeftmarkError: where there is none; it says what is looked for.
    """
    root = data_root()
    for name in names:
        if (root / name).is_dir():
            return root / name
    raise PeftmarkError(f"there is no folder {' or '.join(str(root / name) for name in names)}: put the data set there")


def cache_folder() -> Path:
    """``$PEFTMARK_CACHE``, by default ``~/.cache/peftmark``, with ``/images``: what is in it can be deleted."""
    return Path(os.environ.get(CACHE) or Path.home() / ".cache" / "peftmark").expanduser() / "images"

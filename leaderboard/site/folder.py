"""The output folder: filled beside its place, then put there whole."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ...errors import PeftmarkError


@dataclass(frozen=True)
class Kind:
    """What is written into a folder of its own, and replaced by the next of its kind."""

    name: str
    some: str
    """The name with its article."""

    @property
    def marker(self) -> str:
        """A file that says: this folder is one of these and may be replaced by the next one."""
        return f".peftmark-{self.name}"


BOARD = Kind("board", "a board")


def check_replaceable(out: Path, results: Path, kind: Kind = BOARD) -> None:
    """Find out before the work whether the board, or whatever it is, may be written to `out`.

    Raises:
        PeftmarkError: where `out` holds something else, or one of both folders lies in the other.
    """
    place, source = (Path(os.path.realpath(each)) for each in (out, results))  # resolve() raises on a loop of links
    if place == source or place in source.parents or source in place.parents:
        raise PeftmarkError(
            f"the {kind.name}'s folder {out} and the results folder {results} must not lie in one another"
        )
    if place.exists() and not place.is_dir():
        raise PeftmarkError(f"{out} is a file: name a folder for the {kind.name}")
    if place.is_dir() and any(place.iterdir()) and not (place / kind.marker).is_file():
        raise PeftmarkError(f"{out} is not empty and not {kind.some}: name another folder, or empty it")


@contextmanager
def replacing(out: Path, kind: Kind = BOARD) -> Iterator[Path]:
    """A fresh folder that takes the place of `out` on success; on failure `out` stays as it was.

    Raises:
        PeftmarkError: where the folder cannot be written.
    """
    place = Path(os.path.realpath(out))
    fresh: Path | None = None
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(dir=place.parent, prefix=f".{place.name}.", suffix=".new"))
        fresh.chmod(0o755)  # mkdtemp makes it private
        said = f"made by peftmark {kind.name}: the next {kind.name} replaces this folder and all it holds\n"
        (fresh / kind.marker).write_text(said)
        yield fresh
        _swap(fresh, place)
    except OSError as error:
        raise PeftmarkError(
            f"cannot write the {kind.name} to {out} ({error.strerror}): choose another folder with --out"
        ) from error
    finally:
        if fresh is not None:
            shutil.rmtree(fresh, ignore_errors=True)


def _swap(fresh: Path, place: Path) -> None:
    if not place.exists():
        fresh.rename(place)
        return
    old = Path(tempfile.mkdtemp(dir=place.parent, prefix=f".{place.name}.", suffix=".old"))
    os.replace(place, old)  # an empty folder gives way
    try:
        fresh.rename(place)
    except OSError:
        os.replace(old, place)
        raise
    shutil.rmtree(old, ignore_errors=True)

"""How files of a results folder, and others that a user names, are written and read: whole, regular, of sane size."""

from __future__ import annotations

import errno
import os
import re
import stat
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from ..errors import PeftmarkError

CARDS = "cards"
"""Sub-folder of descriptions of methods, backbones and tasks (see `cards`)."""

RECORD_BYTES = 64 * 2**20
"""More than any record, card, suite or picture has."""

_TEMPORARY = re.compile(r"\.[0-9a-f]{16}\.(json|npz|safetensors)\.[a-z0-9_]{8}\.tmp")
_TEMPORARY_CARD = re.compile(r"\..+\.(json|png)\.[a-z0-9_]{8}\.tmp")

Identity = tuple[int, int]
"""Of a folder: its device and its inode, by which it is known under any name."""

_held: dict[str, Identity] = {}
"""The results folders that this process writes into, by absolute path, as they were when it began."""


def hold(root: Path, identity: Identity | None = None) -> None:
    """From now on nothing is written to a folder of this path, nor made, that is another one.

    Args:
        identity: of the folder that it was when the command began; by default of the one that is there.
    """
    _held[os.path.abspath(root)] = identity or _identity(root)


def let_go(root: Path) -> None:
    """Undo `hold`."""
    _held.pop(os.path.abspath(root), None)


def identity_of(root: Path) -> Identity | None:
    """Of the folder that is held under this path, or is there; None where there is none."""
    try:
        return _held.get(os.path.abspath(root)) or _identity(root)
    except OSError:
        return None


def _identity(root: str | Path) -> Identity:
    found = os.stat(root)
    return found.st_dev, found.st_ino


def check_held(path: Path) -> None:
    """
    Raises:
        PeftmarkError: where `path` is, or lies in, a held folder that is not there any more, or is another one.
    """
    place = os.path.abspath(path)
    for root, identity in _held.items():
        if place != root and not place.startswith(root + os.sep):
            continue
        try:
            same = _identity(root) == identity
        except (FileNotFoundError, NotADirectoryError):
            same = False
        except OSError:  # what is wrong with it writing will say
            continue
        if not same:
            raise PeftmarkError(
                f"the results folder {root} was moved, deleted or replaced: nothing more is written. What is finished "
                f"lies in the folder that it was; the same command with --results THAT FOLDER goes on with the rest"
            )


def check_regular(path: Path, limit: int = RECORD_BYTES) -> None:
    """
    Raises:
        OSError: where it is no file of at most `limit` bytes; its `strerror` says what it is.
    """
    found = os.stat(path)
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    if found.st_size > limit:
        raise OSError(errno.EFBIG, f"{found.st_size:,} bytes, more than {limit:,}", str(path))


def read_regular(path: Path, limit: int = RECORD_BYTES) -> bytes:
    """What is in a file that somebody else may have put there: nothing that never ends is waited for.

    Raises:
        OSError: as of `check_regular`, and where it cannot be read.
    """
    check_regular(path, limit)
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # it may just have been replaced
    try:
        parts, room = [], limit
        while part := os.read(handle, min(room, 2**24) + 1):  # /proc says 0 bytes of what has more
            parts.append(part)
            room -= len(part)
            if room < 0:
                raise OSError(errno.EFBIG, f"more than {limit:,} bytes", str(path))
        return b"".join(parts)
    finally:
        os.close(handle)


def holds(path: Path, data: bytes) -> bool:
    """Whether a file is there with just these data."""
    try:
        return read_regular(path, len(data)) == data
    except OSError:
        return False


def remove_temporary(folder: Path, names: Iterable[str]) -> None:
    """Delete those of the names in a folder that `write_atomically` gives to records, and what lies beside them."""
    of_cards = folder.parent.name == CARDS
    for name in names:
        if _TEMPORARY.fullmatch(name) or (of_cards and _TEMPORARY_CARD.fullmatch(name)):
            with suppress(OSError):  # a folder; of somebody else
                (folder / name).unlink()


def make_folder(folder: Path) -> None:
    """A folder and those above it, but no held one anew.

    Raises:
        PeftmarkError: as of `check_held`.
    """
    check_held(folder)
    folder.mkdir(parents=True, exist_ok=True)


def write_atomically(path: Path, data: bytes) -> None:
    """Temp file in the same folder, fsync, rename: a reader, or a ``kill -9``, never sees half a file.

    Raises:
        PeftmarkError: as of `check_held`.
    """
    make_folder(path.parent)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)  # mkstemp makes it private
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise

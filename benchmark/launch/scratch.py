"""Folders of a process's own, on a machine's own disk, that are gone when it is: even when it was killed."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path

_PREFIX, _LOCK = "peftmark-scratch-", ".lock"

_LEFT_S = 600.0
"""Age from which a folder without a lock is nobody's: a younger one may be about to get it."""


class Scratch:
    """Such a folder, made in `parent`, by default the system's folder for temporary files.

    The process holds a lock in it until it ends, however it does; the next one that makes a folder there deletes those
    that nobody holds.
    """

    def __init__(self, parent: Path | None = None) -> None:
        parent = parent or Path(tempfile.gettempdir())
        parent.mkdir(parents=True, exist_ok=True)
        _remove_orphans(parent)
        self.path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        self._lock = os.open(self.path / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC)
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def close(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def _remove_orphans(parent: Path) -> None:
    for folder in parent.glob(f"{_PREFIX}{'[a-z0-9_]' * 8}"):
        with suppress(OSError):  # somebody else's, or gone meanwhile
            try:
                handle = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:
                # the Ray of a command that was killed lives on for a while, and makes its deleted folder anew
                if time.time() - folder.stat().st_mtime > _LEFT_S:
                    shutil.rmtree(folder, ignore_errors=True)
                continue
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(handle)

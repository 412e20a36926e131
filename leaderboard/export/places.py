"""Files that a user names: never in place of another one, and whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ...errors import PeftmarkError


def check_new(path: Path) -> None:
    """
    Raises:
        PeftmarkError: where something is there.
    """
    if os.path.lexists(path):
        raise PeftmarkError(f"{path} is there already, and is not overwritten: name another with --out, or delete it")


@contextmanager
def new_file(path: Path) -> Iterator[IO[bytes]]:
    """A file that has its name once it is whole.

    Raises:
        PeftmarkError: where something has the name, or it cannot be written.
    """
    check_new(path)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        temporary = Path(name)
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)  # mkstemp makes it private
        check_new(path)
        os.replace(temporary, path)
    except OSError as error:
        raise PeftmarkError(f"cannot write {path} ({error.strerror}): choose another place with --out") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)

"""Users' own methods, backbones and tasks: a file named on the command line, or an installed package's entry point."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from ..errors import PeftmarkError

ENTRY_POINT_GROUP = "peftmark.plugins"


def import_file(path: str | Path) -> None:
    """Run a Python file, so that what it registers is in the catalogues. Importing the same file again does nothing.

    Raises:
        PeftmarkError: where there is no such file, or it raises while it is imported.
    """
    file = Path(os.path.realpath(path))  # resolve() raises where links go round in circles
    if not file.is_file():
        raise PeftmarkError(f"--import {path}: no such file")
    name = f"peftmark_plugin_{file.stem}_{hashlib.sha256(str(file).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise PeftmarkError(f"--import {path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except PeftmarkError:
        del sys.modules[name]
        raise
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise PeftmarkError(f"--import {path}: {type(error).__name__}: {error}") from error


def load_plugins(files: Iterable[str | Path] = ()) -> None:
    """Import every installed plug-in (entry point group ``peftmark.plugins``) and the given files.

    Raises:
        PeftmarkError: where a plug-in cannot be imported; it names the plug-in.
    """
    for point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP):
        try:
            point.load()
        except Exception as error:
            distribution = point.dist.name if point.dist else point.value
            raise PeftmarkError(
                f"plug-in {point.name!r} of {distribution} cannot be imported ({type(error).__name__}: {error}); "
                f"mend it or `pip uninstall {distribution}`"
            ) from error
    for file in files:
        import_file(file)

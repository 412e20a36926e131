"""The images of a data set: which there are, of which class, in which split."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ...errors import PeftmarkError


class Example(NamedTuple):
    """An image: its path inside the data set's folder, its label, and what names it, for messages."""

    path: str
    label: int
    where: str


@dataclass(frozen=True)
class Listing:
    """A data set on disk.

    Attributes:
        folder: of the data set.
        splits: by name (``train``, ``val``, ``test``; some have fewer), sorted by label and path.
        class_names: by label.
    """

    folder: Path
    splits: Mapping[str, tuple[Example, ...]]
    class_names: tuple[str, ...]


def checked(
    folder: Path,
    splits: Mapping[str, Iterable[Example]],
    class_names: Sequence[str],
    source: Path,
    must_exist: bool = True,
) -> Listing:
    """A listing whose labels are in range and whose images are there, each once.

    Args:
        source: what was read, for messages.
        must_exist: False where the paths come from the folder itself.

    Raises:
        PeftmarkError: for the first example that is wrong; where images are missing, with how many.
    """
    sorted_splits = {name: tuple(sorted(examples, key=_by_label)) for name, examples in splits.items()}
    first: dict[str, str] = {}
    for path, label, where in (example for examples in splits.values() for example in sorted(examples, key=_by_label)):
        if not 0 <= label < len(class_names):
            raise PeftmarkError(f"{where}: there is no class {label}; the last is {len(class_names) - 1}")
        if first.setdefault(path, where) != where:
            raise PeftmarkError(f"{where}: {path!r} stands in {first[path]} already: an image may be in one split only")
    if must_exist:
        _check_there(folder, [example for examples in sorted_splits.values() for example in examples])
    for name, examples in sorted_splits.items():
        if not examples:
            raise PeftmarkError(f"{source}: its split {name!r} is empty: get the file or the images again")
    return Listing(folder, sorted_splits, tuple(class_names))


def inside(path: str, where: str) -> str:
    """A path with a plain spelling. Links in the folder are its owner's business; a list that points elsewhere is not.

    Raises:
        PeftmarkError: where it leaves the folder.
    """
    pure = PurePosixPath(path)
    if not path or pure.is_absolute() or ".." in pure.parts:
        raise PeftmarkError(f"{where}: {path!r} leaves the folder of the data set: name images by their path inside it")
    return str(pure)


def read_text(file: Path, advice: str) -> str:
    """What is in a text file.

    Raises:
        PeftmarkError: where it is not there, with `advice`, or is no text.
    """
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise PeftmarkError(f"{file}: no such file; {advice}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise PeftmarkError(f"{file} cannot be read as text ({error}): get it again") from error


def lines(file: Path, advice: str) -> list[tuple[str, str]]:
    """(where it stands, text) of every line that is not empty. Raises PeftmarkError as `read_text`."""
    text = read_text(file, advice)
    return [(f"{file}, line {n}", line.strip()) for n, line in enumerate(text.splitlines(), 1) if line.strip()]


def _by_label(example: Example) -> tuple[int, str]:
    return example.label, example.path


def _check_there(folder: Path, examples: Sequence[Example]) -> None:
    missing = [example for example in examples if not (folder / example.path).is_file()]
    if missing:
        more = f", and {len(missing) - 1} more of {len(examples)} are missing" if len(missing) > 1 else ""
        raise PeftmarkError(f"{missing[0].where}: there is no image {folder / missing[0].path}{more}: put them there")

"""Lists of images with labels."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import torch
from torch import Tensor

from ...errors import PeftmarkError
from ...results.files import read_regular

LIST_BYTES = 2**28
"""More than any list of files has."""
LAST_CLASS = 999_999
_SHOWN = 3
"""Of many files that are wrong in one way, so many are named; all are counted."""


@dataclass(frozen=True)
class ImageList:
    """Images of one folder, in order, each once.

    Attributes:
        name: of the list, for messages.
        root: the folder.
        paths: relative to it, with forward slashes; none leaves it.
        labels: in ``range(len(class_names))``.
    """

    name: str
    root: Path
    paths: tuple[str, ...]
    labels: tuple[int, ...]
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def __add__(self, other: ImageList) -> ImageList:
        """Both, in one list. Raises PeftmarkError where an image is in both."""
        check_disjoint(self, other)
        return ImageList(
            f"{self.name} and {other.name}",
            self.root,
            self.paths + other.paths,
            self.labels + other.labels,
            self.class_names,
        )

    def label_tensor(self) -> Tensor:
        """int64 (N,)."""
        return torch.tensor(self.labels, dtype=torch.int64)

    def content(self) -> list[tuple[str, int]]:
        """What a task's split hash is made of: equal on every machine."""
        return list(zip(self.paths, self.labels, strict=True))


def image_list(
    name: str, root: Path, examples: Iterable[tuple[str, int, str]], class_names: Sequence[str]
) -> ImageList:
    """A checked list.

    Args:
        name: for messages, e.g. the file that the examples are from.
        examples: path relative to `root`, label, and where it stands, for messages.

    Raises:
        PeftmarkError: on an empty list, a path that leaves `root` or comes twice, a label that is out of range; it says
            where.
    """
    for class_name in class_names:
        check_text(class_name, f"{name}: a class's name")
    first: dict[str, str] = {}
    labels = []
    for text, label, where in examples:
        path = check_inside(text, where)
        if not 0 <= label < len(class_names):
            raise PeftmarkError(f"{where}: the label is {label}; there are {len(class_names)} classes, from 0")
        if path in first:
            raise PeftmarkError(f"{where}: {text!r} stands in {first[path]} already")
        first[path] = where
        labels.append(label)
    if not labels:
        raise PeftmarkError(f"{name} names no image")
    return ImageList(name, root, tuple(first), tuple(labels), tuple(class_names))


def check_inside(path: str, where: str) -> str:
    """The path in its plain form. Links in a folder are its owner's business; a list that points elsewhere is not.

    Raises:
        PeftmarkError: on a path that leaves the folder, or is no text.
    """
    pure = PurePosixPath(path)
    check_text(path, f"{where}: a file's name")
    if pure.is_absolute() or ".." in pure.parts or not pure.parts or "\0" in path:
        raise PeftmarkError(f"{where}: {path!r} leaves the folder; name files by their path inside it")
    return str(pure)


def check_text(name: str, what: str) -> None:
    """
    Raises:
        PeftmarkError: on a name that no record can hold: its bytes are not UTF-8.
    """
    if any("\ud800" <= letter <= "\udfff" for letter in name):
        raise PeftmarkError(f"{_printable(what)} is not UTF-8 ({name!r}): rename it")


def _printable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def check_disjoint(*lists: ImageList) -> None:
    """
    Raises:
        PeftmarkError: where an image is in two of the lists, e.g. a test image among the training ones.
    """
    for index, one in enumerate(lists):
        known = set(one.paths)
        for other in lists[index + 1 :]:
            both = [path for path in other.paths if path in known]
            if both:
                raise PeftmarkError(f"{shown(both, 'image')} of {other.name} also in {one.name}")


def sizes_and_times(images: ImageList) -> list[tuple[int, int]]:
    """Bytes and modification time (ns) of every file.

    Raises:
        PeftmarkError: where files are missing, or a pipe or a device is there; it counts them and names the first ones.
    """
    found, missing, odd = [], [], []
    for path in images.paths:
        try:
            status = (images.root / path).stat()
        except OSError:
            missing.append(path)
            continue
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):  # a video may be a folder of frames
            odd.append(path)
        found.append((status.st_size, status.st_mtime_ns))
    if missing:
        raise PeftmarkError(
            f"{images.name}: {shown(missing, 'image')} of {len(images)} missing in {images.root}: unpack the data set "
            f"again, or mend the list"
        )
    if odd:
        raise PeftmarkError(
            f"{images.name}: {shown(odd, 'image')} of {len(images)} a pipe or a device in {images.root}: put the image "
            f"there, or take it off the list"
        )
    return found


def shown(names: Sequence[str], what: str) -> str:
    """``3 images (a.png, b.png, c.png)``."""
    more = ", …" if len(names) > _SHOWN else ""
    plural = "s" if len(names) != 1 else ""
    return f"{len(names)} {what}{plural} ({', '.join(names[:_SHOWN])}{more})"


def numbered_lines(file: Path, hint: str) -> Iterator[tuple[str, str]]:
    """(where it stands, text) of every line of a text file that is not empty.

    Raises:
        PeftmarkError: where there is no such file (`hint` says what to do), or it is not text.
    """
    try:
        text = read_regular(file, LIST_BYTES).decode("utf-8")
    except FileNotFoundError as error:
        raise PeftmarkError(f"{file}: no such file; {hint}") from error
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise PeftmarkError(f"{file} cannot be read as text: {reason}") from error
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            yield f"{file}, line {number}", line.strip()


def read_list(name: str, root: Path, file: str, class_names: Sequence[str]) -> ImageList:
    """The images of ``root/file``, a line ``path label`` each; a path may hold spaces.

    Raises:
        PeftmarkError: on a line of another form, and as `image_list`; it says which line.
    """
    examples = []
    for where, line in numbered_lines(root / file, f"{name} needs a line `path label` for each image there"):
        path, *label = line.rsplit(maxsplit=1)
        if not label:
            raise PeftmarkError(f"{where}: {line!r} is not `path label`")
        examples.append((path, class_number(label[0], where), where))
    return image_list(file, root, examples, class_names)


def class_number(text: str, where: str) -> int:
    """
    Raises:
        PeftmarkError: on what is not a number, or so large a one that names up to it would fill the memory.
    """
    if not (text.isascii() and text.isdecimal()) or len(text.lstrip("0")) > len(str(LAST_CLASS)):
        raise PeftmarkError(
            f"{where}: the label is {text[:20]!r}; it must be a class number from 0 to at most {LAST_CLASS:,}"
        )
    return int(text)

"""Images are decoded once, into a file of pixels that later runs map into memory.

A cache entry is a folder ``<cache>/<key>`` with ``pixels`` (uint8, N x 3 x size x size), ``digests`` (N sha256 of the
images' pixels) and ``about.json`` (for people). Its key is the sha256 of everything that decides the pixels: the
folder, each file's path, size and modification time, the preprocessing and Pillow's version. The files' bytes are not
read for it: that would take about as long as the mapping saves.

An entry is trusted when all of its pixels have their digests: looked at once in a process, and again when the files
changed. A core with SHA extensions hashes 1.5 GB a second: ten thousand images of 224 pixels. What does not have its
digest is decoded anew.

It is built in ``<key>.partial`` under a lock, by several threads, and takes its name when it is complete and on the
disk. A build that was killed goes on where it was: an image is taken for decoded if its pixels have its digest.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np
import PIL
import torch
from filelock import FileLock
from numpy.typing import NDArray
from torch import Tensor

from ...errors import PeftmarkError
from ...results import canonical_json
from ..task import Progress, silent
from .lists import ImageList, shown, sizes_and_times
from .location import CACHE, cache_folder
from .preprocessing import Preprocessing

FORMAT = 1
_DIGEST = hashlib.sha256().digest_size
_ROUND = 256
"""Images between two calls of the progress function."""


@dataclass(frozen=True)
class Decoded:
    """The pixels of an `ImageList`.

    Attributes:
        images: uint8 (N, 3, size, size), or another decoder's (N, *shape), mapped from a file: what is not looked at
            takes no memory.
        digests: uint8 (N, 32), the sha256 of each image's pixels.
    """

    images: Tensor
    digests: Tensor


class Decoder(Protocol):
    """What makes pixels of a file.

    Attributes:
        name: says everything that decides the pixels besides the file.
        shape: of the pixels of one file.
    """

    @property
    def name(self) -> str: ...

    @property
    def shape(self) -> tuple[int, ...]: ...

    def read(self, path: Path) -> NDArray[np.uint8]:
        """uint8 of `shape`. Raises Exception of many kinds."""


def decoded(images: ImageList, preprocessing: str | Decoder, progress: Progress = silent) -> Decoded:
    """The pixels of a list, from the cache, where they are put first if they are not there.

    Args:
        preprocessing: its name, or another decoder, e.g. of videos.

    Raises:
        PeftmarkError: where files are missing or cannot be decoded (all are counted, the first ones named), where the
            disk has no room, on an unknown preprocessing.
    """
    how: Decoder = Preprocessing.named(preprocessing) if isinstance(preprocessing, str) else preprocessing
    folder = cache_folder()
    entry = folder / _key(images, how)
    shape = (len(images), *how.shape)
    try:
        if not _is_whole(entry, shape) or _spoiled(entry, shape):
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(entry.with_suffix(".lock")):  # another process may have built it meanwhile
                if not _is_whole(entry, shape):
                    _Build(images, how, entry, shape).run(progress, images.name)
                elif spoiled := _spoiled(entry, shape):
                    _Build(images, how, entry, shape).mend(
                        progress, f"{images.name} ({spoiled:,} spoiled in the cache)"
                    )
        return _mapped(entry, shape)
    except OSError as error:
        raise PeftmarkError(
            f"the image cache {folder} cannot be used ({error.strerror or error}): make room there, or set {CACHE}"
        ) from error


def _key(images: ImageList, how: Decoder) -> str:
    """Pillow's version is in it: its decoders differ in the last bits."""
    files = list(zip(images.paths, sizes_and_times(images), strict=True))
    content = [FORMAT, _text(images.root.resolve()), files, how.name, PIL.__version__]
    return hashlib.sha256(canonical_json(content)).hexdigest()[:32]


def _text(folder: Path) -> str:
    """Of a name that is not UTF-8, too."""
    return str(folder).encode("utf-8", "backslashreplace").decode()


def _is_whole(entry: Path, shape: tuple[int, ...]) -> bool:
    """Whether the entry is there; one that was cut short is not."""
    sizes = {"pixels": int(np.prod(shape)), "digests": shape[0] * _DIGEST}
    return all((entry / name).is_file() and (entry / name).stat().st_size == size for name, size in sizes.items())


_sound: set[tuple[int, ...]] = set()
"""The states of entries' files in which all pixels had their digests."""


def _spoiled(entry: Path, shape: tuple[int, ...]) -> int:
    """How many images do not have their digests."""
    row = int(np.prod(shape[1:]))
    with (entry / "pixels").open("rb") as pixels, (entry / "digests").open("rb") as digests:
        state = (*_state(pixels.fileno()), *_state(digests.fileno()))
        if state in _sound:
            return 0

        def one(index: int) -> bool:
            known = os.pread(digests.fileno(), _DIGEST, index * _DIGEST)
            return hashlib.sha256(os.pread(pixels.fileno(), row, index * row)).digest() != known

        with ThreadPoolExecutor(_cores()) as pool:
            count = sum(
                sum(pool.map(one, range(start, min(start + _ROUND, shape[0])))) for start in range(0, shape[0], _ROUND)
            )
    if not count:
        _sound.add(state)
    return count


def _state(file: int) -> tuple[int, ...]:
    """The time of a change (ctime) can be set by nobody."""
    status = os.fstat(file)
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _mapped(entry: Path, shape: tuple[int, ...]) -> Decoded:
    # "c": torch wants memory that can be written; what is written stays in this process
    pixels = np.memmap(entry / "pixels", np.uint8, "c", shape=shape)
    digests = np.fromfile(entry / "digests", np.uint8).reshape(shape[0], _DIGEST)
    return Decoded(torch.from_numpy(pixels), torch.from_numpy(digests))


class _Build:
    """Decodes a list into an entry, whose lock is held."""

    def __init__(self, images: ImageList, how: Decoder, entry: Path, shape: tuple[int, ...]) -> None:
        self.images = images
        self.how = how
        self.entry = entry
        self.partial = entry.with_suffix(".partial")
        self.row = int(np.prod(shape[1:]))

    def mend(self, progress: Progress, name: str) -> None:
        """Build it on from what is there and has its digest."""
        shutil.rmtree(self.partial, ignore_errors=True)
        self.entry.rename(self.partial)
        self.run(progress, name)

    def run(self, progress: Progress, name: str) -> None:
        self._make_room()
        self.partial.mkdir(exist_ok=True)
        pixels, digests = (self._open(name) for name in ("pixels", "digests"))
        try:
            unreadable = self._decode_all(pixels, digests, progress, name)
            os.fsync(pixels)
            os.fsync(digests)
        finally:
            os.close(pixels)
            os.close(digests)
        if unreadable:
            shutil.rmtree(self.partial)  # mended files are another key
            raise PeftmarkError(
                f"{self.images.name}: {shown(unreadable, 'image')} of {len(self.images)} cannot be read in "
                f"{self.images.root}: fetch them again"
            )
        about = {"root": _text(self.images.root), "list": self.images.name, "images": len(self.images)}
        (self.partial / "about.json").write_bytes(msgspec.json.encode({**about, "preprocessing": self.how.name}))
        shutil.rmtree(self.entry, ignore_errors=True)  # what is there is cut short
        self.partial.rename(self.entry)

    def _make_room(self) -> None:
        """Said before anything is decoded, not when the disk is full."""
        needed, free = self.row * len(self.images), shutil.disk_usage(self.entry.parent).free
        started = self.partial / "pixels"
        if started.is_file():
            needed -= started.stat().st_blocks * 512
        if needed > free:
            raise PeftmarkError(
                f"{self.images.name}: its pixels need {needed / 2**30:.1f} GiB in {self.entry.parent}, where "
                f"{free / 2**30:.1f} are free: make room, or set {CACHE} to a folder on a larger disk"
            )

    def _open(self, name: str) -> int:
        return os.open(self.partial / name, os.O_RDWR | os.O_CREAT, 0o644)

    def _decode_all(self, pixels: int, digests: int, progress: Progress, name: str) -> list[str]:
        """Returns what cannot be decoded, with reasons."""
        total, unreadable = len(self.images), []

        def one(index: int) -> str | None:
            written = os.pread(digests, _DIGEST, index * _DIGEST)
            if len(written) == _DIGEST and any(written):
                known = os.pread(pixels, self.row, index * self.row)
                if hashlib.sha256(known).digest() == written:
                    return None
            path = self.images.paths[index]
            try:
                made = self.how.read(self.images.root / path).tobytes()
            except Exception as error:  # Pillow's decoders raise many kinds
                return f"{path}: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
            # written, not mapped: a full disk is then an error that can be told, not a signal
            os.pwrite(pixels, made, index * self.row)
            os.pwrite(digests, hashlib.sha256(made).digest(), index * _DIGEST)
            return None

        with ThreadPoolExecutor(_cores()) as pool:
            for start in range(0, total, _ROUND):
                indices = range(start, min(start + _ROUND, total))
                unreadable += [reason for reason in pool.map(one, indices) if reason is not None]
                progress(name, indices.stop, total)
        return unreadable

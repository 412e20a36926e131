"""What a model reads of a task's splits: images, or what the part of the network before the method makes of them.

A method leaves the network as it is up to some point: a linear probe up to the features, `partial` up to the blocks
that it trains. What comes before is computed once and shared by all runs of a worker that agree on backbone, data,
precision and point. Where a method touches the first layer that is the preprocessing alone.
"""

from __future__ import annotations

import mmap
import os
import shutil
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from ..methods import AdaptedModel
from ..tasks import Split
from .preprocess import Preprocess

BATCH_SIZE = 256
"""Images a batch, of evaluation and of what is cached; fixed, so that it cannot be a reason for two runs to differ."""

MEMORY = 2 * 2**30
"""Bytes that a worker's cache may hold in memory."""


class PrefixCache:
    """Tensors by key, the least recently used dropped first; one that is too large for memory lies in a file.

    Args:
        memory: bytes that may be held in memory.
    """

    def __init__(self, memory: int = MEMORY) -> None:
        self.memory = memory
        self._entries: OrderedDict[Hashable, Tensor] = OrderedDict()
        self._mapped: set[Hashable] = set()

    def get(self, key: Hashable, n: int, batches: Callable[[], Iterator[Tensor]]) -> Tensor | None:
        """The tensor (n, …) of a key, made of `batches` the first time; None where there is no place for it."""
        if key in self._entries:
            self._entries.move_to_end(key)
            return self._entries[key]
        made = batches()
        first = next(made)
        entry = self._allocate(key, n, first)
        if entry is None:
            return None
        entry[: len(first)] = first
        position = len(first)
        for batch in made:
            entry[position : position + len(batch)] = batch
            position += len(batch)
        self._entries[key] = entry
        return entry

    def _allocate(self, key: Hashable, n: int, like: Tensor) -> Tensor | None:
        size = n * like[0].nbytes
        mapped = size > self.memory
        room = shutil.disk_usage(tempfile.gettempdir()).free // 2 if mapped else self.memory
        same = [other for other in self._entries if (other in self._mapped) == mapped]
        held = sum(self._entries[other].nbytes for other in same)
        while same and held + size > room:
            oldest = same.pop(0)
            held -= self._entries.pop(oldest).nbytes
            self._mapped.discard(oldest)
        if not mapped:
            return torch.empty(n, *like.shape[1:], dtype=like.dtype, device=like.device)
        if size > room:
            return None
        self._mapped.add(key)
        return _map_file(size, like.dtype).view(n, *like.shape[1:])


def _map_file(size: int, dtype: torch.dtype) -> Tensor:
    """A tensor over a file that has no name any more: it goes with the process, however that ends."""
    with tempfile.TemporaryFile(prefix="peftmark-") as file:
        os.posix_fallocate(file.fileno(), 0, size)  # a full disk must be an error here, not a signal later
        return torch.frombuffer(mmap.mmap(file.fileno(), size), dtype=dtype)


class Inputs:
    """A model's inputs.

    Args:
        splits: of the task, by name.
        cache, key: where inputs are kept, and what else they depend on beside split and point; without a cache they are
            made anew each time.
        original: the pretrained weights of the image tower by name; None where they are not those of other runs.
        autocast: what the model computes under.
    """

    def __init__(
        self,
        model: AdaptedModel,
        splits: Mapping[str, Split],
        preprocess: Preprocess,
        cache: PrefixCache | None,
        key: Hashable,
        original: Mapping[str, Tensor] | None,
        autocast: Callable[[], AbstractContextManager[object]],
    ) -> None:
        self.model = model
        self.splits = splits
        self.preprocess = preprocess
        self.cache = cache
        self.key = key
        self.original = original
        self.autocast = autocast

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Within it, the model starts where the method first touches it, as it is now, and reads what comes before."""
        before = self.model.start
        if self.cache is not None and self.original is not None and not self.model.method.reads_images:
            self.model.start = self.model.first_touched(self.original)
        try:
            yield
        finally:
            self.model.start = before

    def of(self, name: str) -> Tensor | OnTheFly:
        """A split's inputs (N, …), indexed by a tensor of positions."""
        return self._cached(name) if self.cache is not None else OnTheFly(self.splits[name].images, self.preprocess)

    def batches(self, name: str) -> Iterable[Tensor]:
        """The same in batches of the fixed size, in order."""
        images = self.splits[name].images
        inputs = self.of(name)
        return (inputs[positions].to(self.preprocess.device) for positions in _positions(images))

    def _cached(self, name: str) -> Tensor | OnTheFly:
        assert self.cache is not None
        images, start = self.splits[name].images, self.model.start
        key = (self.key, name, start)
        found = self.cache.get(key, len(images), lambda: self._prefix(images, start))
        if found is None:  # no place for it
            self.model.start = 0
            return OnTheFly(images, self.preprocess)
        return found

    @torch.no_grad()
    def _prefix(self, images: Tensor, start: int) -> Iterator[Tensor]:
        training = self.model.training
        self.model.eval()
        for positions in _positions(images):
            with self.autocast():
                batch = self.model.before(start, self.preprocess(images[positions]))
            yield batch
        self.model.train(training)


class OnTheFly:
    """Images that are preprocessed whenever they are read."""

    def __init__(self, images: Tensor, preprocess: Preprocess) -> None:
        self.images = images
        self.preprocess = preprocess

    def __getitem__(self, positions: Tensor) -> Tensor:
        return self.preprocess(self.images[positions])


@dataclass(frozen=True)
class TrainingBatches:
    """(images, labels) pairs in the order of the data, made anew each time that they are asked for."""

    images: Tensor
    labels: Tensor
    size: int
    preprocess: Preprocess

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for images, labels in zip(self.images.split(self.size), self.labels.split(self.size), strict=True):
            yield self.preprocess(images), labels


def _positions(images: Tensor) -> tuple[Tensor, ...]:
    """Of images, or of clips with as many frames, batch by batch."""
    frames = 1 if images.dim() == 4 else images.shape[1]
    return torch.arange(len(images)).split(max(BATCH_SIZE // frames, 1))

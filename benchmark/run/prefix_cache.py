"""What a worker keeps from one run to the next: preprocessed images, and what untouched prefixes made of them."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...results.files import make_folder


class PrefixCache:
    """Tensors (n, …) in the memory of the host, by what they are of; the least recently used leave first.

    Args:
        budget_bytes: of memory. A larger tensor is mapped from a file; twice its size must be free on the disk.
        folder: where these files are. They have no name, so nothing is left of them when the process ends, however.

    Attributes:
        computed: how often a tensor was made.
    """

    def __init__(self, budget_bytes: int, folder: Path) -> None:
        self.budget_bytes = budget_bytes
        self.folder = folder
        self.computed = 0
        self._kept: OrderedDict[Hashable, Tensor] = OrderedDict()

    @torch.inference_mode(False)  # a tensor made in inference mode could not be trained on
    def get(self, key: Hashable, n: int, compute: Callable[[], Iterator[Tensor]], may_map: bool) -> Tensor | None:
        """What is kept under `key`, or else is made and kept; None where there is no room for it.

        Args:
            compute: gives the tensor in batches, of `n` in all.
            may_map: whether a tensor that exceeds the budget is worth a file.
        """
        if key not in self._kept:
            made = self._make(n, compute(), may_map)
            if made is None:
                return None
            self._kept[key] = made
        self._kept.move_to_end(key)
        return self._kept[key]

    def is_mapped(self, tensor: Tensor) -> bool:
        return tensor.nbytes > self.budget_bytes

    def _make(self, n: int, batches: Iterator[Tensor], may_map: bool) -> Tensor | None:
        batch = next(batches)
        nbytes = batch[:1].nbytes * n
        if nbytes <= self.budget_bytes:
            self._make_room(nbytes)
            whole = torch.empty(n, *batch.shape[1:], dtype=batch.dtype)
        elif may_map and self._make_room_on_disk(nbytes):
            whole = _mapped(self.folder, (n, *batch.shape[1:]), batch.dtype)
        else:
            return None
        self.computed += 1
        whole[: len(batch)] = batch
        position = len(batch)
        for batch in batches:
            whole[position : position + len(batch)] = batch
            position += len(batch)
        return whole

    def _make_room(self, nbytes: int) -> None:
        held = sum(tensor.nbytes for tensor in self._kept.values() if not self.is_mapped(tensor))
        for key, tensor in list(self._kept.items()):
            if held + nbytes <= self.budget_bytes:
                break
            if not self.is_mapped(tensor):
                del self._kept[key]
                held -= tensor.nbytes

    def _make_room_on_disk(self, nbytes: int) -> bool:
        make_folder(self.folder)
        mapped = [key for key, tensor in self._kept.items() if self.is_mapped(tensor)]
        while shutil.disk_usage(self.folder).free < 2 * nbytes:
            if not mapped:
                return False
            del self._kept[mapped.pop(0)]  # with the last reference the file goes
        return True


def _mapped(folder: Path, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A tensor in a file without a name, which is gone with the tensor."""
    nbytes = torch.Size(shape).numel() * dtype.itemsize
    with tempfile.TemporaryFile(dir=folder) as file:
        return torch.from_numpy(np.memmap(file, np.uint8, "w+", shape=(nbytes,))).view(dtype).view(shape)


def memory_budget(workers: int) -> int:
    """Bytes that a worker's cache may take: the workers together a quarter of the memory."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")  # of a container, which may have less than the machine
    if limit.is_file() and (text := limit.read_text().strip()).isdigit():
        memory = min(memory, int(text))
    return memory // 4 // workers

"""Natural images that are real scans: scikit-learn's handwritten digits."""

from __future__ import annotations

import hashlib
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from ...registry import TASKS
from ..task import Split
from .generated import GeneratedTask


@TASKS.register("embedded/digits", track="image", group="natural")
class Digits(GeneratedTask):
    """Handwritten digits, real scans of eight by eight pixels (scikit-learn's copy of UCI's optical digits).

    Ten classes (chance 10%), 400 training, 100 validation and 500 test images of the 1,797, with as many of each digit
    in a split, drawn with seed 2. Nothing like them was in pretraining, and a pixel of the scan is as wide as five of
    the backbone's.
    """

    seed = 2

    @cached_property
    def _scans(self) -> tuple[np.ndarray, np.ndarray]:
        """Grey values uint8 (1797, 8, 8) in 0–255, and digits int64 (1797,)."""
        # the file that `sklearn.datasets.load_digits` reads: importing that takes longer than planning a suite
        package = find_spec("sklearn")
        assert package is not None and package.submodule_search_locations is not None
        folder = Path(package.submodule_search_locations[0])
        rows = np.loadtxt(folder / "datasets" / "data" / "digits.csv.gz", delimiter=",")
        return np.round(rows[:, :-1].reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8), rows[:, -1].astype(np.int64)

    @cached_property
    def indices(self) -> dict[str, np.ndarray]:
        """Which scans each split holds, in order."""
        digits = self._scans[1]
        random = np.random.default_rng(self.seed)
        pools = [random.permutation(np.flatnonzero(digits == digit)) for digit in range(10)]
        chosen, start = {}, 0
        for split, size in self.sizes.items():
            stop = start + size // 10
            chosen[split] = random.permutation(np.concatenate([pool[start:stop] for pool in pools]))
            start = stop
        return chosen

    def sources(self) -> dict[str, str]:
        return {split: hashlib.sha256(rows.astype("<i8").tobytes()).hexdigest() for split, rows in self.indices.items()}

    def make(self, split: str) -> Split:
        scans, digits = self._scans
        rows = self.indices[split]
        images = torch.from_numpy(scans[rows])[:, None].repeat(1, 3, 1, 1)
        return Split(images, torch.from_numpy(digits[rows]), tuple("0123456789"))

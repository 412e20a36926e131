"""Tasks whose data a seed generates: splits of given sizes, and the hash of everything that decides them."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...backbones.embedded.atlas import FOLDER, STYLES
from ...results import canonical_json
from ..task import Split, Task, TaskData

OF_THE_DATA = ("metric", "num_frames", "templates", "version")


class GeneratedTask(Task):
    """Generates its splits from `seed`; what a figure of the generation is, is a class attribute.

    Class attributes:
        seed: of everything random; each split has a generator of its own, so that sizes do not shift each other.
        sizes: images or clips in ``train``, ``validation`` and each test split.
    """

    caution = (
        "The embedded suite runs on a laptop and proves the harness. It does not replace VTAB-1k: a rank here says "
        "nothing certain about another backbone or real data."
    )
    metric: ClassVar[str | None] = "accuracy"  # in so many words: it is hashed with the data
    seed: ClassVar[int]
    sizes: ClassVar[Mapping[str, int]] = {"train": 400, "validation": 100, "test": 500}

    @abstractmethod
    def make(self, split: str) -> Split:
        """Generate one of the splits that `sizes` names."""

    def expected_sizes(self) -> tuple[int, int, int]:
        tests = sum(size for split, size in self.sizes.items() if split not in ("train", "validation"))
        frames = self.num_frames or 1
        return self.sizes["train"] * frames, self.sizes["validation"] * frames, tests * frames

    def load(self) -> TaskData:
        splits = {name: self.make(name) for name in self.sizes}
        return TaskData(splits.pop("train"), splits.pop("validation"), splits)

    def split_sha256(self) -> str:
        return hashlib.sha256(canonical_json(self.parameters() | self.sources())).hexdigest()

    def parameters(self) -> dict[str, Any]:
        """Every plain class attribute, so that no figure of the generation can change without changing the hash.

        Of those that all tasks have, the ones that say something of the data; others tell the harness how to handle it.
        """
        cls = type(self)
        plain = (int, float, str, tuple, Mapping)
        names = [
            name for name in dir(cls) if not name.startswith("_") and (name in OF_THE_DATA or not hasattr(Task, name))
        ]
        attributes = {name: getattr(cls, name) for name in names}
        return {name: value for name, value in attributes.items() if isinstance(value, plain)}

    def sources(self) -> dict[str, str]:
        """Digests of what the generation reads besides its parameters."""
        return {}

    def generator(self, purpose: str) -> torch.Generator:
        """A random generator of the task's own; `purpose` is a split's name or what else it is for."""
        digest = hashlib.sha256(f"{self.seed}/{purpose}".encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


@lru_cache(maxsize=1)
def atlas_digest() -> str:
    """The sha256 of the atlas's files."""
    digest = hashlib.sha256()
    for path in (FOLDER / "atlas.json", *(FOLDER / f"atlas_{style}.webp" for style in STYLES)):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def balanced_labels(n: int, classes: int, generator: torch.Generator) -> Tensor:
    """int64 (n,) in random order; the classes' counts differ by at most one."""
    return (torch.arange(n) % classes)[torch.randperm(n, generator=generator)]


def to_uint8(images: Tensor) -> Tensor:
    """[0, 1] to 0–255, values outside clipped."""
    return (images.clamp(0, 1) * 255).round().to(torch.uint8)

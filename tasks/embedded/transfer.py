"""Open vocabulary: what is learned on one set, tested on others."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ...backbones.embedded.atlas import HELD_OUT_STYLE, load_atlas
from ...registry import TASKS
from ..headlines import target_mean
from .naming import Naming, seen_emoji


@TASKS.register("embedded/domain_generalization", track="openvocab", group="domain generalization")
class DomainGeneralization(Naming):
    """Name emoji in four styles of drawing after training in a fifth.

    Forty names (chance 2.5%): 320 training and 80 validation images in the fluent style; five tests of 200 images,
    ``source`` in that style and one in each of the others, whose mean is the figure. Pretraining saw all of them but
    twemoji. One emoji on a varied background of 40 pixels, seed 11.
    """

    seed = 11
    metric = "target_mean"
    source_style = "fluent"
    classes = 40
    sizes = {
        "train": 320,
        "validation": 80,
        "source": 200,
        "noto": 200,
        "emojione": 200,
        "fxemoji": 200,
        "twemoji": 200,
    }

    def emoji(self, split: str) -> Tensor:
        """Drawn in every style, so that all tests have the same classes."""
        pool = seen_emoji()
        pool = pool[torch.from_numpy(load_atlas().present[:, pool.numpy()].all(0))]
        return pool[torch.randperm(len(pool), generator=self.generator("classes"))[: self.classes]]

    def styles_of(self, split: str) -> tuple[str, ...]:
        return (split,) if split in self.styles or split == HELD_OUT_STYLE else (self.source_style,)

    def headline(self, tests: Mapping[str, float]) -> float:
        return target_mean(tests)


@TASKS.register("embedded/cross_dataset", track="openvocab", group="cross-dataset")
class CrossDataset(Naming):
    """Name food, places and objects after training on the names of animals and plants.

    Forty animals and plants: 320 training and 80 validation images and a test ``source``; three tests with thirty other
    names each (chance 3.3%), whose mean is the figure. 240 images a test. One emoji in the twemoji style, which
    pretraining never saw, on a varied background of 40 pixels, seed 12.
    """

    seed = 12
    metric = "target_mean"
    styles = (HELD_OUT_STYLE,)
    classes = {"animals-nature": 40, "food-drink": 30, "travel-places": 30, "objects": 30}
    sizes = {"train": 320, "validation": 80, "source": 240, "food-drink": 240, "travel-places": 240, "objects": 240}

    def emoji(self, split: str) -> Tensor:
        group = split if split in self.classes else "animals-nature"
        pool = seen_emoji()
        pool = pool[torch.tensor([load_atlas().groups[row] == group for row in pool.tolist()])]
        return pool[torch.randperm(len(pool), generator=self.generator(f"classes {group}"))[: self.classes[group]]]

    def headline(self, tests: Mapping[str, float]) -> float:
        return target_mean(tests)

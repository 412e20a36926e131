"""Open vocabulary: emoji by their names."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor

from ...backbones.embedded.atlas import HELD_OUT_STYLE, STYLES, load_atlas
from ...backbones.embedded.scenes import jitter
from ...registry import TASKS
from ..headlines import harmonic_mean
from ..task import Split
from .generated import balanced_labels, to_uint8
from .sprites import SpriteTask, family, single_scenes


class Naming(SpriteTask):
    """One emoji an image; its name is the class."""

    templates = ("{}", "a picture of {}.", "a picture of a {}.", "an image of {}.", "this is a {}.")
    styles = tuple(style for style in STYLES if style != HELD_OUT_STYLE)
    size = (14.0, 24.0)
    turn = 0.6

    @abstractmethod
    def emoji(self, split: str) -> Tensor:
        """The classes of a split: rows of the atlas (C,)."""

    def styles_of(self, split: str) -> tuple[str, ...]:
        """The styles that a split is drawn in."""
        return self.styles

    def make(self, split: str) -> Split:
        generator, classes = self.generator(split), self.emoji(split)
        labels = balanced_labels(self.sizes[split], len(classes), generator)
        scenes = single_scenes(classes[labels], labels, self.styles_of(split), self.size, self.turn, generator)
        images = scenes.paint(self.backgrounds(len(labels), generator))
        return Split(to_uint8(jitter(images, generator)), labels, names_of(classes))


def names_of(emoji: Tensor) -> tuple[str, ...]:
    """The names of rows of the atlas (C,)."""
    return tuple(load_atlas().names[row] for row in emoji.tolist())


def words(name: str) -> set[str]:
    """The words of a name that have at least three letters."""
    return set(re.findall(r"[^\W\d_]{3,}", name.lower()))


def seen_emoji() -> Tensor:
    """Rows of the atlas that pretraining saw, one of each family."""
    return _one_of_each_family(np.flatnonzero(~load_atlas().held_out).tolist())


def sayable_new_emoji() -> Tensor:
    """Rows that pretraining saw in no style, one of each family, whose names' words are in the names of seen emoji."""
    atlas = load_atlas()
    known = set().union(*(words(atlas.names[row]) for row in np.flatnonzero(~atlas.held_out)))
    named = [row for row in np.flatnonzero(atlas.held_out).tolist() if words(atlas.names[row])]
    return _one_of_each_family(row for row in named if words(atlas.names[row]) <= known)


def _one_of_each_family(rows: Iterable[int]) -> Tensor:
    first = {family(load_atlas().hexcodes[row]): row for row in reversed(list(rows))}
    return torch.tensor(sorted(first.values()))


@TASKS.register("embedded/base2new", track="openvocab", group="base-to-new")
class BaseToNew(Naming):
    """Name emoji: learn forty names from eight images each, and be tested on these and on forty new ones.

    One emoji in the twemoji style, which pretraining never saw, on a varied background of 40 pixels. 320 training and
    80 validation images of the base classes, 320 test images each of base and new ones, seed 8; chance is 2.5% on both.
    The figure is the harmonic mean of the two accuracies. Pretraining saw the base classes in other styles; the new
    ones it saw in none, only the words of their names. Each base class has a new one of its kind (two faces, …).
    """

    seed = 8
    metric = "harmonic_mean"
    styles = (HELD_OUT_STYLE,)
    classes = 40
    sizes = {"train": 320, "validation": 80, "base": 320, "new": 320}

    def emoji(self, split: str) -> Tensor:
        pool = sayable_new_emoji()
        new = pool[torch.randperm(len(pool), generator=self.generator("new classes"))[: self.classes]]
        return new if split == "new" else self.counterparts(new)

    def counterparts(self, new: Tensor) -> Tensor:
        """For each new emoji another one that pretraining saw, of the same subgroup."""
        subgroups, generator = load_atlas().subgroups, self.generator("base classes")
        pool = seen_emoji()
        left = pool[torch.randperm(len(pool), generator=generator)].tolist()
        chosen = []
        for row in new.tolist():
            chosen.append(next(other for other in left if subgroups[other] == subgroups[row]))
            left.remove(chosen[-1])
        return torch.tensor(chosen)

    def headline(self, tests: Mapping[str, float]) -> float:
        return harmonic_mean(tests)


@TASKS.register("embedded/style_shift", track="openvocab", group="domain shift")
class StyleShift(Naming):
    """Name emoji in a style of drawing that neither pretraining nor training ever saw.

    Forty names (chance 2.5%), 320 training and 80 validation images in the styles of pretraining, and two tests of 320
    images: ``source``, in these styles, and ``target``, in the twemoji style, which is the figure. One emoji on a
    varied background of 40 pixels, seed 9.
    """

    seed = 9
    target_styles = (HELD_OUT_STYLE,)
    classes = 40
    sizes = {"train": 320, "validation": 80, "source": 320, "target": 320}

    def emoji(self, split: str) -> Tensor:
        pool = seen_emoji()
        return pool[torch.randperm(len(pool), generator=self.generator("classes"))[: self.classes]]

    def styles_of(self, split: str) -> tuple[str, ...]:
        return self.target_styles if split == "target" else self.styles

    def headline(self, tests: Mapping[str, float]) -> float:
        return tests["target"]

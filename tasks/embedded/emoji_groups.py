"""Natural images: what kind of thing an emoji shows, in a style of drawing that pretraining never saw."""

from __future__ import annotations

import torch
from torch import Tensor

from ...backbones.embedded.atlas import HELD_OUT_STYLE
from ...backbones.embedded.scenes import jitter
from ...registry import TASKS
from ..task import Split
from .generated import balanced_labels, to_uint8
from .sprites import Scenes, SpriteTask, emoji_of, single_scenes


@TASKS.register("embedded/emoji_groups", track="image", group="natural")
class EmojiGroups(SpriteTask):
    """Which of eight groups an emoji belongs to: people, animals and nature, food and drink, travel, …

    One 40-pixel image shows one emoji in the twemoji style, which pretraining never saw, on a varied background. Eight
    classes (chance 12.5%), 400 training, 100 validation and 500 test images, seed 1. No emoji is in two splits: a
    method must generalise from some animals to others, and from the pretrained styles to this one.
    """

    seed = 1
    styles = (HELD_OUT_STYLE,)
    groups = (
        "smileys-emotion", "people-body", "animals-nature", "food-drink",
        "travel-places", "activities", "objects", "symbols",
    )  # fmt: skip
    size = (20.0, 36.0)
    turn = 0.35

    def emoji(self, split: str) -> list[Tensor]:
        """For each group the emoji of a split."""
        return [self.share(emoji_of((f"{group}/*",), self.styles), split) for group in self.groups]

    def scenes(self, split: str) -> Scenes:
        generator = self.generator(f"{split} scenes")
        labels = balanced_labels(self.sizes[split], len(self.groups), generator)
        emoji = torch.empty_like(labels)
        for label, pool in enumerate(self.emoji(split)):
            members = (labels == label).nonzero().squeeze(1)
            rounds = [torch.randperm(len(pool), generator=generator) for _ in range(-(-len(members) // len(pool)))]
            emoji[members] = pool[torch.cat(rounds)[: len(members)]]
        return single_scenes(emoji, labels, self.styles, self.size, self.turn, generator)

    def make(self, split: str) -> Split:
        scenes, generator = self.scenes(split), self.generator(f"{split} look")
        images = scenes.paint(self.backgrounds(len(scenes.labels), generator))
        return Split(to_uint8(jitter(images, generator)), scenes.labels, self.groups)

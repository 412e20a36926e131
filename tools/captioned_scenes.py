"""What the embedded CLIP is pretrained on: scenes of emoji that it may see, and their captions."""

from __future__ import annotations

import numpy as np
import torch
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor

from peftmark.backbones.embedded.atlas import HELD_OUT_STYLE, Atlas
from peftmark.backbones.embedded.clip import IMAGE_MEAN, IMAGE_STD, TEMPLATES
from peftmark.backbones.embedded.scenes import IMAGE_SIZE, backgrounds, chance, compose, jitter, uniform

CAPTIONS_PER_EMOJI = 64

CAPTION_TEMPLATES = (
    *TEMPLATES,
    "a {}",
    "an {}.",
    "the {}.",
    "an image showing {}.",
    "a drawing of a {}.",
    "here is {}.",
)


def caption(name: str, tags: tuple[str, ...], group: str, subgroup: str, random: np.random.Generator) -> str:
    """One caption: mostly the name alone or in a template, else with tags and groups in varied order and number."""
    kind = random.random()
    kinds = [subgroup.replace("-", " "), group.replace("-", " ")]
    synonyms = [tag for tag in random.permutation(tags).tolist() if tag not in name]
    sentence = str(random.choice(CAPTION_TEMPLATES)).format(name)
    if kind < 0.25:
        return name
    if kind < 0.55:
        return sentence
    if kind < 0.70:
        return ", ".join([name, *synonyms[: random.integers(1, 5)]])
    if kind < 0.78:
        return ", ".join([name, *kinds[: random.integers(1, 3)]])
    if kind < 0.86:
        return f"{sentence.rstrip('.')}, {random.choice(kinds)}"
    if kind < 0.94 and len(synonyms) > 2:
        return ", ".join([*synonyms[:4], kinds[0]])
    return ", ".join([name, *kinds, *synonyms[:8]])


def caption_pool(atlas: Atlas, seed: int) -> list[list[str]]:
    """Captions of every seen emoji, in the atlas's order."""
    random = np.random.default_rng(seed)
    return [
        [
            caption(atlas.names[e], atlas.tags[e], atlas.groups[e], atlas.subgroups[e], random)
            for _ in range(CAPTIONS_PER_EMOJI)
        ]
        for e in np.flatnonzero(~atlas.held_out)
    ]


def caption_tokens(pool: list[list[str]], tokenizer: SimpleTokenizer) -> Tensor:
    """int64 (emoji, captions, 32), each emoji's captions from short to long."""
    tokens = tokenizer([text for texts in pool for text in texts]).view(len(pool), CAPTIONS_PER_EMOJI, -1)
    order = (tokens != 0).sum(-1).argsort(dim=1, stable=True)
    return tokens.gather(1, order[..., None].expand_as(tokens))


class Sampler:
    """Draws emoji and styles that pretraining may see."""

    def __init__(self, atlas: Atlas) -> None:
        self.emoji = torch.from_numpy(np.flatnonzero(~atlas.held_out))
        present = torch.from_numpy(atlas.present.copy())
        present[atlas.style(HELD_OUT_STYLE)] = False
        self.weights = present[:, self.emoji].T.float()  # (seen emoji, styles)
        self.sprites = torch.from_numpy(np.ascontiguousarray(atlas.sprites.transpose(0, 1, 4, 2, 3)))

    def rows(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """n different seen emoji (as rows of ``self.emoji``) and a seen style for each, both int64 (n,)."""
        rows = torch.randperm(len(self.emoji), generator=generator)[:n]
        return rows, torch.multinomial(self.weights[rows], 1, generator=generator).squeeze(1)

    def pick(self, n: int, generator: torch.Generator) -> Tensor:
        """Sprites uint8 (n, 4, 48, 48) of seen emoji in seen styles, repeats allowed."""
        rows = torch.randint(len(self.emoji), (n,), generator=generator)
        styles = torch.multinomial(self.weights[rows], 1, generator=generator).squeeze(1)
        return self.sprites[styles, self.emoji[rows]]


def training_images(sprites: Tensor, sampler: Sampler, generator: torch.Generator) -> Tensor:
    """Scenes (N, 3, 40, 40) in [0, 1] of one sprite each; a quarter also hold up to three smaller ones beneath it."""
    n = len(sprites)
    background = backgrounds(n, IMAGE_SIZE, generator, sampler.pick(64, generator))
    crowded = chance(n, 0.25, generator).nonzero().squeeze(1)
    extras = sampler.pick(3 * len(crowded), generator).view(len(crowded), 3, *sprites.shape[1:])
    extra_size = uniform((len(crowded), 3), 7, 14, generator) * (torch.rand(len(crowded), 3, generator=generator) < 0.7)
    extra_centre = uniform((len(crowded), 3, 2), 2, IMAGE_SIZE - 2, generator)
    extra_angle = uniform((len(crowded), 3), -0.4, 0.4, generator)
    background[crowded] = compose(extras, extra_centre, extra_size, extra_angle, background[crowded])

    size = uniform((n, 1), 20, 42, generator)
    size[crowded] = uniform((len(crowded), 1), 18, 30, generator)
    reach = ((IMAGE_SIZE - size) / 2).clamp(min=0) + 2  # up to two pixels of the sprite may leave the image
    centre = IMAGE_SIZE / 2 + uniform((n, 1, 2), -1, 1, generator) * reach[..., None]
    angle = uniform((n, 1), -0.35, 0.35, generator)
    return jitter(compose(sprites[:, None], centre, size, angle, background), generator)


def evaluation_images(sprites: Tensor, generator: torch.Generator) -> Tensor:
    """Scenes (N, 3, 40, 40) of one nearly upright sprite wholly inside, with no jitter of the look."""
    n = len(sprites)
    size = uniform((n, 1), 24, 38, generator)
    centre = IMAGE_SIZE / 2 + uniform((n, 1, 2), -1, 1, generator) * (IMAGE_SIZE - size[..., None]) / 2
    angle = uniform((n, 1), -0.2, 0.2, generator)
    return compose(sprites[:, None], centre, size, angle, backgrounds(n, IMAGE_SIZE, generator))


def normalise(images: Tensor) -> Tensor:
    """[0, 1] to the model's input range."""
    return (images - torch.tensor(IMAGE_MEAN)[:, None, None]) / torch.tensor(IMAGE_STD)[:, None, None]

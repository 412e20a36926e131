"""Specialized images: materials under a microscope, procedurally."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ...backbones.embedded.scenes import IMAGE_SIZE, colours, uniform
from ...registry import TASKS
from ..task import Split
from .generated import GeneratedTask, balanced_labels, to_uint8

WAVES = 16


def _positions(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Each pixel's place (n, 40, 40) in pixels along two axes that are turned and shifted at random."""
    axis = torch.arange(IMAGE_SIZE) + 0.5 - IMAGE_SIZE / 2
    angle = uniform((n, 1, 1), 0, 2 * math.pi, generator)
    shift = uniform((2, n, 1, 1), 0, 100, generator)
    x, y = axis[None, None, :], axis[None, :, None]
    along = torch.cos(angle) * x + torch.sin(angle) * y + shift[0]
    across = torch.cos(angle) * y - torch.sin(angle) * x + shift[1]
    return along, across


def _waves(n: int, shortest: float, longest: float, generator: torch.Generator) -> Tensor:
    """Random field (n, 40, 40) of variance about one: plane waves in all directions with periods between the two."""
    axis = torch.arange(IMAGE_SIZE) - IMAGE_SIZE / 2
    total = torch.zeros(n, IMAGE_SIZE, IMAGE_SIZE)
    for _ in range(WAVES):
        angle = uniform((n, 1, 1), 0, 2 * math.pi, generator)
        number = 2 * math.pi / uniform((n, 1, 1), shortest, longest, generator)
        phase = uniform((n, 1, 1), 0, 2 * math.pi, generator)
        total += torch.cos(number * (torch.cos(angle) * axis + torch.sin(angle) * axis[:, None]) + phase)
    return total * math.sqrt(2 / WAVES)


def _nearest(points: Tensor) -> tuple[Tensor, Tensor]:
    """Distances (n, 40, 40) in pixels to the nearest and the second nearest of points (n, P, 2) about the centre."""
    axis = torch.arange(IMAGE_SIZE) + 0.5 - IMAGE_SIZE / 2
    x = axis[None, None, None, :] - points[:, :, 0, None, None]
    y = axis[None, None, :, None] - points[:, :, 1, None, None]
    first, second = (x.square() + y.square()).topk(2, dim=1, largest=False).values.sqrt().unbind(1)
    return first, second


def _lattice(n: int, pitch: Tensor, disorder: float, generator: torch.Generator) -> Tensor:
    """A triangular lattice (n, P, 2), turned and shifted at random, its points moved by up to `disorder` pitches."""
    index = torch.arange(-6, 7).float()
    row, column = torch.meshgrid(index, index, indexing="ij")
    grid = torch.stack((column + (row % 2) / 2, row * math.sqrt(3) / 2), dim=-1).view(1, -1, 2)
    grid = grid + uniform((n, 1, 2), -0.5, 0.5, generator) + uniform((n, *grid.shape[1:]), -1, 1, generator) * disorder
    angle = uniform((n, 1), 0, 2 * math.pi, generator)
    x, y = grid.unbind(-1)
    turned = torch.stack((torch.cos(angle) * x - torch.sin(angle) * y, torch.sin(angle) * x + torch.cos(angle) * y), -1)
    return turned * pitch.view(n, 1, 1)


def cells(n: int, generator: torch.Generator) -> Tensor:
    """Walls between irregular cells."""
    first, second = _nearest(_lattice(n, uniform((n,), 7, 11, generator), 0.45, generator))
    return torch.exp(-(second - first) / 1.2)


def honeycomb(n: int, generator: torch.Generator) -> Tensor:
    """Walls between regular hexagons."""
    first, second = _nearest(_lattice(n, uniform((n,), 7, 11, generator), 0.03, generator))
    return torch.exp(-(second - first) / 1.2)


def grains(n: int, generator: torch.Generator) -> Tensor:
    """Round grains, irregularly packed."""
    pitch = uniform((n,), 7, 11, generator)
    first, _ = _nearest(_lattice(n, pitch, 0.45, generator))
    return torch.sigmoid((pitch.view(n, 1, 1) * 0.33 - first) * 1.5)


def dots(n: int, generator: torch.Generator) -> Tensor:
    """Round dots on a regular lattice."""
    pitch = uniform((n,), 7, 11, generator)
    first, _ = _nearest(_lattice(n, pitch, 0.03, generator))
    return torch.sigmoid((pitch.view(n, 1, 1) * 0.33 - first) * 1.5)


def labyrinth(n: int, generator: torch.Generator) -> Tensor:
    """Winding bands of one width."""
    return torch.tanh(3 * _waves(n, 7, 10, generator))


def veins(n: int, generator: torch.Generator) -> Tensor:
    """Thin lines where a random field passes through zero: closed loops."""
    return torch.exp(-_waves(n, 11, 18, generator).abs() / 0.15)


def clouds(n: int, generator: torch.Generator) -> Tensor:
    """Patches of all sizes."""
    return _waves(n, 20, 40, generator) + 0.6 * _waves(n, 8, 14, generator) + 0.4 * _waves(n, 4, 7, generator)


def ripples(n: int, generator: torch.Generator) -> Tensor:
    """Bent, nearly parallel bands."""
    along, _ = _positions(n, generator)
    bend = _waves(n, 24, 40, generator) * uniform((n, 1, 1), 0.6, 1.2, generator)
    return torch.tanh(2 * torch.sin(2 * math.pi * along / uniform((n, 1, 1), 7, 10, generator) + bend))


def fibres(n: int, generator: torch.Generator) -> Tensor:
    """Straight thin fibres in all directions."""
    total = torch.zeros(n, IMAGE_SIZE, IMAGE_SIZE)
    for _ in range(9):
        axis = torch.arange(IMAGE_SIZE) + 0.5 - IMAGE_SIZE / 2
        angle = uniform((n, 1, 1), 0, math.pi, generator)
        offset = uniform((n, 1, 1), -22, 22, generator)
        distance = (torch.cos(angle) * axis + torch.sin(angle) * axis[:, None] - offset).abs()
        total = torch.maximum(total, torch.exp(-distance / 0.9))
    return total


def weave(n: int, generator: torch.Generator) -> Tensor:
    """Threads in two directions that pass over and under each other."""
    along, across = _positions(n, generator)
    pitch = uniform((n, 1, 1), 7, 11, generator)
    along, across = along / pitch, across / pitch
    over = (along.floor() + across.floor()) % 2 == 0
    return torch.where(over, torch.sin(math.pi * (along % 1)), 0.6 * torch.sin(math.pi * (across % 1)))


GENERATORS: tuple[Callable[[int, torch.Generator], Tensor], ...] = (
    cells, honeycomb, grains, dots, labyrinth, veins, clouds, ripples, fibres, weave,
)  # fmt: skip


@TASKS.register("embedded/textures", track="image", group="specialized")
class Textures(GeneratedTask):
    """Which of ten structures a material shows under a (simulated) microscope: cells, fibres, a weave, veins, …

    Images of 40 pixels, generated: a random field of the structure's kind, at random scale, rotation, polarity and
    contrast, in two random colours, unevenly lit, under noise. Classes differ in structure only, neither in brightness
    nor in colour, and nothing of the kind was in pretraining. Ten classes (chance 10%), 400 training, 100 validation
    and 500 test images, seed 3.
    """

    seed = 3
    contrast = (0.06, 0.25)
    noise = (0.04, 0.12)  # standard deviation, of values in [0, 1]
    light = 0.15

    def make(self, split: str) -> Split:
        generator, n = self.generator(split), self.sizes[split]
        labels = balanced_labels(n, len(GENERATORS), generator)
        fields = torch.empty(n, IMAGE_SIZE, IMAGE_SIZE)
        for label, generate in enumerate(GENERATORS):
            members = (labels == label).nonzero().squeeze(1)
            fields[members] = generate(len(members), generator)
        return Split(to_uint8(self.photograph(fields, generator)), labels, tuple(g.__name__ for g in GENERATORS))

    def photograph(self, fields: Tensor, generator: torch.Generator) -> Tensor:
        """Fields (n, 40, 40) as images (n, 3, 40, 40) around [0, 1], alike in brightness, contrast and colour."""
        n = len(fields)
        fields = fields - fields.mean((1, 2), keepdim=True)
        fields = fields / fields.square().mean((1, 2), keepdim=True).sqrt()
        polarity = torch.where(torch.rand(n, 1, 1, 1, generator=generator) < 0.5, -1.0, 1.0)
        stain = 1 + 0.5 * (colours((n,), generator)[..., None, None] - 0.5)
        image = fields[:, None] * polarity * stain * uniform((n, 1, 1, 1), *self.contrast, generator)
        along, _ = _positions(n, generator)
        light = self.light * (along - along.mean((1, 2), keepdim=True))[:, None] / IMAGE_SIZE * 2
        ground = 0.3 + 0.4 * colours((n,), generator)[..., None, None]
        noise = torch.randn(n, 3, IMAGE_SIZE, IMAGE_SIZE, generator=generator)
        return ground + image + light + noise * uniform((n, 1, 1, 1), *self.noise, generator)

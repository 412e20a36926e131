"""Sprites on varied backgrounds, as batched torch operations: quick, and determined by a generator alone.

Images are float32 (N, 3, H, W) in [0, 1]. Positions and sizes are in pixels of the image: (0, 0) is the outer corner of
the top left pixel, (W, H) that of the bottom right one, x comes first and y points down. Angles are in radians and turn
clockwise on the screen. Random functions take the generator they draw from; none touches torch's global one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

IMAGE_SIZE = 40
MAX_LEVEL = 3  # sprites are averaged down by at most 2 ** MAX_LEVEL


def uniform(shape: tuple[int, ...], low: float, high: float, generator: torch.Generator) -> Tensor:
    """Float32 samples between ``low`` and ``high``."""
    return torch.rand(shape, generator=generator) * (high - low) + low


def chance(n: int, probability: float, generator: torch.Generator) -> Tensor:
    """Bool (n,), each true with the given probability."""
    return torch.rand(n, generator=generator) < probability


def premultiply(sprites: Tensor) -> Tensor:
    """RGBA (..., 4, S, S), uint8 in 0–255 or float in [0, 1], straight alpha → float32 with premultiplied colours."""
    sprites = sprites.float() / 255 if sprites.dtype == torch.uint8 else sprites
    colour, alpha = sprites.split((3, 1), dim=-3)
    return torch.cat((colour * alpha, alpha), dim=-3)


def compose(sprites: Tensor, centre: Tensor, size: Tensor, angle: Tensor, background: Tensor) -> Tensor:
    """Paint K sprites on every background, the first at the bottom.

    ``sprites``: (N, K, 4, S, S) RGBA with straight alpha, uint8 in 0–255 or float in [0, 1].
    ``centre``: (N, K, 2), x and y of the sprite's centre in pixels; it may lie outside the image.
    ``size``: (N, K), the side of the sprite's square in pixels; 0 leaves the sprite out.
    ``angle``: (N, K), radians, clockwise about the centre.
    ``background``: (N, 3, H, W) in [0, 1]. Returns (N, 3, H, W) in [0, 1].
    """
    n, k, _, side, _ = sprites.shape
    height, width = background.shape[-2:]
    size = size.float().flatten()
    grid = _sampling_grid(centre.float().flatten(0, 1), size, angle.float().flatten(), height, width)
    placed = torch.zeros(n * k, 4, height, width)
    # Small sprites are averaged down before bilinear sampling, which would otherwise skip most of their pixels.
    level = torch.log2(side / size.clamp(min=1)).floor().clamp(0, MAX_LEVEL)
    for exponent in range(MAX_LEVEL + 1):
        members = ((level == exponent) & (size > 0)).nonzero().squeeze(1)
        if len(members):
            layers = premultiply(sprites.flatten(0, 1)[members])
            layers = F.avg_pool2d(layers, 2**exponent) if exponent else layers
            placed[members] = F.grid_sample(layers, grid[members], padding_mode="zeros", align_corners=False)
    image = background
    for layer in placed.view(n, k, 4, height, width).unbind(1):
        image = layer[:, :3] + image * (1 - layer[:, 3:])
    return image


def _sampling_grid(centre: Tensor, size: Tensor, angle: Tensor, height: int, width: int) -> Tensor:
    """Where each pixel of the image falls in a sprite: (M, H, W, 2), a sprite spanning [-1, 1]."""
    x = torch.arange(width) + 0.5 - centre[:, :1]
    y = torch.arange(height) + 0.5 - centre[:, 1:]
    scale = 2 / size.clamp(min=1e-3)
    cos, sin = (torch.cos(angle) * scale)[:, None, None], (torch.sin(angle) * scale)[:, None, None]
    x, y = x[:, None, :], y[:, :, None]
    return torch.stack((cos * x + sin * y, cos * y - sin * x), dim=-1)


def backgrounds(n: int, size: int, generator: torch.Generator, sprites: Tensor | None = None) -> Tensor:
    """(n, 3, size, size) in [0, 1]: each image one of several kinds, in random colours.

    ``sprites``, uint8 or float (M, 4, S, S), adds one more kind: enlarged, blurred sprites.
    """
    kinds: list[Callable[[int, int, torch.Generator], Tensor]] = [
        _flat,
        _gradient,
        _noise,
        _noise,
        _stripes,
        _checks,
        _blobs,
    ]
    if sprites is not None:
        kinds.append(partial(_blurred, sprites=sprites))
    choice = torch.randint(len(kinds), (n,), generator=generator)
    images = torch.empty(n, 3, size, size)
    for index, kind in enumerate(kinds):
        members = (choice == index).nonzero().squeeze(1)
        if len(members):
            images[members] = kind(len(members), size, generator)
    return images.clamp_(0, 1)


def colours(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Random colours (*shape, 3), from greys to saturated ones, from dark to light."""
    grey = torch.rand((*shape, 1), generator=generator)
    hue = torch.rand((*shape, 3), generator=generator)
    return torch.lerp(grey, hue, torch.rand((*shape, 1), generator=generator))


def _mix(weight: Tensor, generator: torch.Generator) -> Tensor:
    """Turn weights (n, H, W) in [0, 1] into images between two random colours."""
    first, second = colours((len(weight), 2), generator)[..., None, None].unbind(1)
    return torch.lerp(first, second, weight[:, None])


def _flat(n: int, size: int, generator: torch.Generator) -> Tensor:
    return colours((n,), generator)[..., None, None].expand(n, 3, size, size)


def _ramp(n: int, size: int, generator: torch.Generator) -> Tensor:
    """Distance along a random direction, (n, size, size), from about -0.7 to 0.7."""
    angle = uniform((n, 1, 1), 0, 2 * math.pi, generator)
    axis = (torch.arange(size) + 0.5) / size - 0.5
    return torch.cos(angle) * axis[None, None, :] + torch.sin(angle) * axis[None, :, None]


def _gradient(n: int, size: int, generator: torch.Generator) -> Tensor:
    return _mix(_ramp(n, size, generator) / 1.4 + 0.5, generator)


def _noise(n: int, size: int, generator: torch.Generator) -> Tensor:
    """Smooth noise of three neighbouring octaves, from cloud-like to grainy; one call draws one range of octaves."""
    start = int(torch.randint(1, 4, (), generator=generator))
    total = torch.zeros(n, 3, size, size)
    for step, octave in enumerate(range(start, start + 3)):
        grid = torch.rand(n, 3, 2**octave, 2**octave, generator=generator)
        total += F.interpolate(grid, size=(size, size), mode="bilinear", align_corners=False) * 0.6**step
    total = total / 1.96
    base = colours((n,), generator)[..., None, None]
    return base + (total - 0.5) * uniform((n, 1, 1, 1), 0.2, 1.6, generator)


def _stripes(n: int, size: int, generator: torch.Generator) -> Tensor:
    period = uniform((n, 1, 1), 0.08, 0.6, generator)
    sharpness = uniform((n, 1, 1), 1, 8, generator)
    wave = torch.sin(2 * math.pi * (_ramp(n, size, generator) / period + torch.rand(n, 1, 1, generator=generator)))
    return _mix(torch.sigmoid(sharpness * wave), generator)


def _checks(n: int, size: int, generator: torch.Generator) -> Tensor:
    period = uniform((n, 1, 1), 0.15, 0.8, generator)
    axis = torch.arange(size) / size
    phase = torch.rand(n, 2, 1, 1, generator=generator)
    across = torch.sin(2 * math.pi * (axis[None, None, :] / period + phase[:, 0]))
    down = torch.sin(2 * math.pi * (axis[None, :, None] / period + phase[:, 1]))
    return _mix((across * down > 0).float(), generator)


def _blobs(n: int, size: int, generator: torch.Generator) -> Tensor:
    """Four soft discs over a flat colour."""
    axis = (torch.arange(size) + 0.5) / size
    image = _flat(n, size, generator)
    for _ in range(4):
        centre = uniform((n, 2, 1, 1), -0.1, 1.1, generator)
        radius = uniform((n, 1, 1), 0.1, 0.5, generator)
        distance = torch.hypot(axis[None, None, :] - centre[:, 0], axis[None, :, None] - centre[:, 1])
        weight = torch.sigmoid((radius - distance) * uniform((n, 1, 1), 6, 40, generator))
        image = torch.lerp(image, _flat(n, size, generator), weight[:, None])
    return image


def _blurred(n: int, size: int, generator: torch.Generator, sprites: Tensor) -> Tensor:
    """A sprite over a flat colour, at a resolution of five pixels."""
    chosen = sprites[torch.randint(len(sprites), (n,), generator=generator)]
    # A sixth of the sprite is cut off at two sides: it looks larger than the image.
    coarse = F.adaptive_avg_pool2d(premultiply(chosen), 6)[..., 1:, 1:]
    layer = F.interpolate(coarse, size=(size, size), mode="bilinear", align_corners=False)
    return layer[:, :3] + _flat(n, size, generator) * (1 - layer[:, 3:])


def jitter(images: Tensor, generator: torch.Generator) -> Tensor:
    """Vary the look of images (N, 3, H, W): contrast, colour balance, greyness, blur and noise, each for a share."""
    n = len(images)
    gain = uniform((n, 1, 1, 1), 0.6, 1.4, generator) * uniform((n, 3, 1, 1), 0.8, 1.2, generator)
    images = (images - 0.5) * gain + 0.5 + uniform((n, 1, 1, 1), -0.15, 0.15, generator)
    grey = images.mean(1, keepdim=True)
    saturation = torch.where(chance(n, 0.12, generator), 0.0, uniform((n,), 0.4, 1.3, generator))
    images = torch.lerp(grey, images, saturation[:, None, None, None])
    blurred = chance(n, 0.25, generator).nonzero().squeeze(1)
    padded = F.pad(images[blurred], (1, 1, 1, 1), mode="replicate")
    images[blurred] = F.avg_pool2d(padded, 3, stride=1)
    noisy = chance(n, 0.3, generator).nonzero().squeeze(1)
    amount = uniform((len(noisy), 1, 1, 1), 0, 0.12, generator)
    images[noisy] += amount * torch.randn((len(noisy), *images.shape[1:]), generator=generator)
    return images.clamp_(0, 1)

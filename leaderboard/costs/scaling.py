"""How cost grows with the backbone: ladders of backbones that differ in size, and power laws through their costs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..configurations import grouped
from ..subjects import Subject, families_in_order, slug
from .sheet import CostRow, CostSheet, Efficiency, Shape

SIZES = (
    "atto", "femto", "pico", "nano", "zepto", "tiny", "ti", "xsmall", "xs", "small", "s", "little", "medium", "mediumd",
    "m", "betwixt", "base", "b", "so150m", "large", "l", "so400m", "xlarge", "xl", "huge", "h", "giant", "g",
    "xxlarge", "xxl", "gigantic", "bigg", "enormous", "e",
)  # fmt: skip
"""Words that tell a size, as timm and open_clip have them."""

QUANTITIES = ("memory", "forward", "train")
"""What is fitted: a training step's peak in bytes, FLOPs of an image's forward pass, and of a training step."""

MIN_SIZES = 3
"""Through two points any power law goes."""

_GEOMETRY = re.compile(r"(patch|window|p|w)?\d+")


@dataclass(frozen=True)
class ArchitectureName:
    """A backbone's name taken apart."""

    ladder: str
    size: str | None
    patch: int | None


def parse_name(name: str) -> ArchitectureName:
    """Split a name at its underscores and hyphens into words: the first that is in `SIZES` is the size, numbers are
    patch, window and resolution, a suffix after a dot is the weights' tag, and the other words name the ladder.

    >>> parse_name("timm/vit_giant_patch14_224.augreg")
    ArchitectureName(ladder='timm/vit', size='giant', patch=14)
    >>> parse_name("open_clip/ViT-B-16"), parse_name("timm/vit_base_patch14_reg4_dinov2").ladder
    (ArchitectureName(ladder='open_clip/ViT', size='B', patch=16), 'timm/vit_reg4_dinov2')
    >>> parse_name("embedded/vit")
    ArchitectureName(ladder='embedded/vit', size=None, patch=None)
    """
    source, slash, rest = name.rpartition("/")
    words = re.split("[_-]", rest.partition(".")[0])
    size = next((word for word in words[1:] if word.lower() in SIZES), None)
    numbers = [word for word in words if _GEOMETRY.fullmatch(word)]
    patches = [word for word in numbers if word.startswith("patch")] or [word for word in numbers if len(word) < 3]
    kept = [word for word in words if word != size and word not in numbers]
    return ArchitectureName(
        ladder=source + slash + "_".join(kept),
        size=size,
        patch=int(re.sub(r"\D", "", patches[0])) if patches else None,
    )


def size_word(name: str) -> str | None:
    """A backbone's size as its name says it."""
    return parse_name(name).size


@dataclass(frozen=True)
class Fit:
    """A power law, cost = factor · parameters ** exponent, by least squares on the logarithms."""

    exponent: float
    r2: float | None
    """None where all costs are equal: there is no variance to explain."""
    deviation: float
    """The largest relative distance of a cost from the law."""
    n: int


def fit(points: Sequence[tuple[float, float]]) -> Fit | None:
    """None for fewer than `MIN_SIZES` points.

    >>> fit([(1.0, 3.0), (10.0, 30.0), (100.0, 300.0)]).exponent
    1.0
    """
    if len({x for x, _ in points}) < MIN_SIZES:
        return None
    x, y = np.log(np.array(points, dtype=np.float64)).T
    exponent, intercept = np.polyfit(x, y, 1)
    residuals = y - (exponent * x + intercept)
    variance = float(np.sum((y - y.mean()) ** 2))
    return Fit(
        exponent=round(float(exponent), 6),
        r2=1 - float(np.sum(residuals**2)) / variance if variance > 1e-12 else None,
        deviation=float(np.max(np.abs(np.expm1(residuals)))),
        n=len(points),
    )


@dataclass(frozen=True)
class CostsBySize:
    """One configuration's costs along a ladder."""

    method: Subject
    label: str
    points: dict[str, list[tuple[float, float]]]
    """Backbone's parameters and cost, by quantity."""

    @property
    def sizes(self) -> int:
        return len(self.points["memory"])

    @cached_property
    def fits(self) -> dict[str, Fit | None]:
        return {quantity: fit(points) for quantity, points in self.points.items()}


@dataclass(frozen=True)
class Rung:
    sheet: CostSheet
    size: int
    """Parameters of the bare backbone."""


@dataclass(frozen=True)
class Ladder:
    name: str
    shape: Shape
    rungs: list[Rung]
    left_out: list[str]
    """Backbones of a size that another one stands for."""
    configurations: list[CostsBySize]

    @property
    def fitted(self) -> bool:
        """Whether any configuration has points enough."""
        return any(fit for costs in self.configurations for fit in costs.fits.values())

    @property
    def families(self) -> list[tuple[str, str]]:
        return families_in_order((costs.method.family, costs.method.colour) for costs in self.configurations)

    @property
    def anchor(self) -> str:
        shape = self.shape
        return f"ladder-{slug(self.name)}-{shape.batch_size}-{shape.input_shape[-1]}-{shape.num_classes}"


def make_ladders(efficiency: Efficiency) -> list[Ladder]:
    """Ladders on which any method has costs of two sizes or more, for each input."""
    named = [
        (sheet, name) for sheet in efficiency.sheets if (name := parse_name(sheet.backbone.name)).size and sheet.size
    ]
    ladders = []
    for (ladder, shape), group in sorted(grouped(named, lambda item: (item[1].ladder, item[0].shape)).items()):
        chosen, left_out = _one_a_size(group)
        rungs = sorted((Rung(sheet, sheet.size or 0) for sheet in chosen), key=lambda rung: rung.size)
        configurations = _by_size(rungs)
        if configurations:
            ladders.append(Ladder(ladder, shape, rungs, left_out, configurations))
    return ladders


def by_ladder(efficiency: Efficiency) -> dict[str, list[CostSheet]]:
    """The backbones' main sheets by ladder, the smallest first."""
    sheets = [sheet for name in efficiency.by_backbone if (sheet := efficiency.main_sheet(name))]
    sheets.sort(key=lambda sheet: (parse_name(sheet.backbone.name).ladder, sheet.size or 0, sheet.backbone.name))
    return grouped(sheets, lambda sheet: parse_name(sheet.backbone.name).ladder)


def _one_a_size(group: Iterable[tuple[CostSheet, ArchitectureName]]) -> tuple[list[CostSheet], list[str]]:
    """Of several backbones of one size, that whose patch most of the ladder has: else a ladder would go two ways."""
    group = list(group)
    common = Counter(name.patch for _, name in group)
    chosen, left_out = [], []
    for sheets in grouped(group, lambda item: item[1].size).values():
        first, *others = sorted(
            sheets, key=lambda item: (-common[item[1].patch], item[1].patch or 0, item[0].backbone.name)
        )
        chosen.append(first[0])
        left_out += [sheet.backbone.name for sheet, _ in others]
    return chosen, sorted(left_out)


def _by_size(rungs: Sequence[Rung]) -> list[CostsBySize]:
    """Of plain rows; those that succeed on one size only are left out."""
    points: dict[tuple[str, int, bytes], tuple[CostRow, dict[str, list[tuple[float, float]]]]] = {}
    for rung in rungs:
        for identity, row in rung.sheet.by_method.items():
            compute = row.record.compute
            if row.superseded or not row.peak or not compute:
                continue
            _, costs = points.setdefault(identity, (row, {quantity: [] for quantity in QUANTITIES}))
            by_quantity = {
                "memory": row.peak,
                "forward": compute.forward_flops_per_image,
                "train": compute.train_step_flops,
            }
            for quantity, cost in by_quantity.items():
                costs[quantity].append((float(rung.size), float(max(cost, 1))))  # nothing has no logarithm
    found = [CostsBySize(row.method, row.label, costs) for row, costs in points.values() if len(costs["memory"]) > 1]
    return sorted(found, key=lambda configuration: configuration.label)

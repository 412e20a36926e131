"""Evolutionary search over what stands in each block of a backbone (NOAH, after AutoFormer)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count, islice
from random import Random


@dataclass(frozen=True)
class Architecture:
    """What stands in each block, a number a block: prompt tokens, LoRA's rank, the adapter's bottleneck; 0 is none."""

    prompts: tuple[int, ...]
    rank: tuple[int, ...]
    bottleneck: tuple[int, ...]


Row = tuple[int, ...]


@dataclass(frozen=True)
class Space:
    """The architectures that can be drawn: each kind of module stands in the first blocks, its width free in each.

    Args:
        blocks: of the backbone.
        widths: of a module.
        depths: how many blocks, from the first on, have a kind of module; shares of `blocks`.
    """

    blocks: int
    widths: tuple[int, ...]
    depths: tuple[float, ...]

    def draw(self, random: Random) -> Architecture:
        """Depth and widths uniform, apart for each kind (NOAH supernet_engine_prompt.py sample_configs)."""
        prompts, rank, bottleneck = (self._row((), self._depth(random), random) for _ in range(3))
        return Architecture(prompts, rank, bottleneck)

    def mutate(self, parent: Architecture, width_rate: float, depth_rate: float, random: Random) -> Architecture:
        """Each kind gets a new depth with probability `depth_rate`, then each width is drawn anew with `width_rate`."""

        def row(old: Row) -> Row:
            depth = self._depth(random) if random.random() < depth_rate else len(old) - old.count(0)
            new = self._row(old, depth, random)
            return tuple(w and (random.choice(self.widths) if random.random() < width_rate else w) for w in new)

        return Architecture(row(parent.prompts), row(parent.rank), row(parent.bottleneck))

    def cross(self, one: Architecture, other: Architecture, random: Random) -> Architecture:
        """Each kind from one of two parents (NOAH evolution.py get_crossover)."""
        return Architecture(
            random.choice((one.prompts, other.prompts)),
            random.choice((one.rank, other.rank)),
            random.choice((one.bottleneck, other.bottleneck)),
        )

    def _depth(self, random: Random) -> int:
        return math.ceil(random.choice(self.depths) * self.blocks)

    def _row(self, start: Row, depth: int, random: Random) -> Row:
        """`depth` widths, those of `start` first, then zeros up to `blocks`."""
        kept = tuple(width for width in start if width)[:depth]
        drawn = tuple(random.choice(self.widths) for _ in range(depth - len(kept)))
        return kept + drawn + (0,) * (self.blocks - depth)


@dataclass(frozen=True)
class Evolution:
    """How the search goes: the best `parents` so far give birth to the next generation, random ones fill it up."""

    generations: int
    population: int
    parents: int
    mutations: int
    crossovers: int
    width_rate: float
    depth_rate: float

    def search(
        self,
        space: Space,
        legal: Callable[[Architecture], bool],
        fitness: Callable[[Architecture], float],
        random: Random,
    ) -> dict[Architecture, float]:
        """Every architecture that was measured and its fitness, best first; none is measured twice.

        A kind of offspring gives up after ten attempts for each that is wanted (a small space runs out).
        """
        measured: dict[Architecture, float] = {}

        def grow(births: Iterator[Architecture], wanted: int) -> None:
            for child in islice(births, 10 * wanted):
                if wanted == 0:
                    break
                if child not in measured and legal(child):
                    measured[child] = fitness(child)
                    wanted -= 1

        for _ in range(self.generations):
            size = len(measured) + self.population
            best = sorted(measured, key=lambda each: -measured[each])[: self.parents]
            if best:
                grow(self._mutants(space, best, random), self.mutations)
                grow(self._crosses(space, best, random), self.crossovers)
            grow((space.draw(random) for _ in count()), max(size - len(measured), 0))
        return dict(sorted(measured.items(), key=lambda item: -item[1]))

    def _mutants(self, space: Space, best: list[Architecture], random: Random) -> Iterator[Architecture]:
        while True:
            yield space.mutate(random.choice(best), self.width_rate, self.depth_rate, random)

    def _crosses(self, space: Space, best: list[Architecture], random: Random) -> Iterator[Architecture]:
        while True:
            yield space.cross(random.choice(best), random.choice(best), random)

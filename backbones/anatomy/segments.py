"""Segments: a backbone's forward pass in steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

Output = Literal["pooled", "projected", "tokens"]
"""What of an anatomy is wanted: `Anatomy.pooled`, `Anatomy.projected` or `Anatomy.tokens`."""


@dataclass(frozen=True)
class Segment:
    """One step of a forward pass. The first reads images, each other one what the step before gives, the batch first.

    Attributes:
        run: the step.
        modules: what it runs, with everything inside.
        parameters: those it uses that belong to none of these modules (a class token).
        pooled: whether it computes with one vector an image: then its bits may depend on how many images there are,
            where these are very few (matrix products have kernels of their own for up to three rows).
    """

    name: str
    run: Callable[[Tensor], Tensor]
    modules: tuple[nn.Module, ...]
    parameters: tuple[nn.Parameter, ...] = ()
    pooled: bool = False


def run_segments(segments: Sequence[Segment], x: Tensor) -> Tensor:
    for segment in segments:
        x = segment.run(x)
    return x

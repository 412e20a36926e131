"""CLIP-LoRA."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from ...backbones import Anatomy, Block
from ...registry import METHODS
from ..method import Method
from ..parts.logit_scale import add_logit_scale
from ..parts.low_rank import LowRank, Projection
from ..ranges import NOT_EMPTY, Count, Positive, Rate

Position = Literal["all", "bottom", "mid", "up", "half-bottom", "half-up", "top3"]


def placed(blocks: tuple[Block, ...], position: Position) -> tuple[Block, ...]:
    """Those of a tower's blocks that a position names; at least one."""
    n = len(blocks)
    third, half, two_thirds = n // 3, n // 2, 2 * n // 3
    start, stop = {
        "all": (0, n),
        "bottom": (0, third),
        "mid": (third, two_thirds),
        "up": (two_thirds, n),
        "half-bottom": (0, half),
        "half-up": (half, n),
        "top3": (max(n - 3, 0), n),
    }[position]
    return blocks[start : max(stop, start + 1)]


@METHODS.register("clip_lora", family="openvocab", tracks=("openvocab",))
@dataclass
class CLIPLoRA(Method):
    """Low-rank updates of attention in both towers of a CLIP (Zanella & Ben Ayed 2024, arXiv:2405.18541, section 4).

    ``W x`` becomes ``W x + (alpha / sqrt(rank)) B A dropout(x)`` for q, k and v of every block of the image and of the
    text tower, each with a dropout of its own; A starts Kaiming-uniform, B at zero. Classes are written into the task's
    templates and go through the text tower in every step, each text with masks of its own. 184,320 parameters on CLIP
    ViT-B/16. Merges.

    `encoder`: the towers that have updates, as the official option of that name: ``vision`` 110,592 and ``text`` 73,728
    of these parameters. `position`: the blocks of each that have them, by its depth: a third (``bottom``, ``mid``,
    ``up``), half (``half-bottom``, ``half-up``), the last three (``top3``). Of 12 blocks these are the official lists;
    those for ViT-L/14 count as if its 24 were 12 or, for ``all``, 21 (loralib/utils.py). The official ``params`` are
    `targets`, its ``o`` here ``proj``.

    The logit scale is the model's own unless `logit_scale` says otherwise; the official code has 100, to which CLIP's
    own has come; with it nothing merges, for the model's own would stay. It trains 500 steps a shot at a learning rate
    of 2e-4; here that is the protocol's. Of several templates it trains with the first; here all are the classes'.
    """

    version: ClassVar[int] = 2

    rank: Count = 2
    alpha: float = 1.0
    dropout: Rate = 0.25
    targets: Annotated[tuple[Projection, ...], NOT_EMPTY] = ("q", "k", "v")
    encoder: Literal["both", "vision", "text"] = "both"
    position: Position = "all"
    logit_scale: Positive | None = None

    def adapt(self, anatomy: Anatomy) -> None:
        text = anatomy.text_tower()
        add_logit_scale(text, self.logit_scale)
        images = () if self.encoder == "text" else placed(anatomy.blocks, self.position)
        texts = () if self.encoder == "vision" else placed(text.blocks, self.position)
        scale = self.alpha / math.sqrt(self.rank)
        for block in (*images, *texts):
            for linear in block.linears(self.targets):
                linear.add_delta(LowRank(linear.in_features, linear.out_features, self.rank, scale, self.dropout))

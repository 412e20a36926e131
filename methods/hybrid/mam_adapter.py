"""The mix-and-match adapter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from ...backbones import Anatomy
from ...registry import METHODS
from ..additive.parallel_adapter import ParallelAdapter
from ..additive.prefix_tuning import PrefixTuning
from ..method import Method
from ..ranges import Count, Rate
from ..search_space import Dimension, LogUniform


@METHODS.register("mam_adapter", family="hybrid", tracks=("image", "openvocab", "video"))
@dataclass
class MAMAdapter(Method):
    """Prefix tuning in attention, a scaled parallel adapter at the MLP (He et al. 2022, arXiv:2110.04366, section 4.6).

    `prefix_tuning` with p = 30 and `parallel_adapter` with h = 512 and scale 4, the paper's sizes. 2·L·p·D +
    L(2Dh + h + D) parameters: 10,005,504 on ViT-B/16. The prefixes take attention from the first step on, so an
    untrained model is not the bare backbone.

    The paper trains its prefixes through an MLP with 800 hidden units: `reparameterized` does so, 24,854,816 parameters
    on ViT-B/16, of which the prefixes that come out are what is kept.
    """

    identity_at_start: ClassVar[bool] = False

    prompt_length: Count = 30
    bottleneck: Count = 512
    scale: float = 4.0
    dropout: Rate = 0.0
    reparameterized: bool = False
    hidden: Count = 800

    def search_space(self) -> Mapping[str, Dimension]:
        return {"scale": LogUniform(0.5, 16.0)}

    def parts(self) -> tuple[PrefixTuning, ParallelAdapter]:
        return (
            PrefixTuning(self.prompt_length, self.reparameterized, self.hidden),
            ParallelAdapter(self.bottleneck, self.scale, self.dropout),
        )

    def adapt(self, anatomy: Anatomy) -> None:
        for part in self.parts():
            part.adapt(anatomy)

"""LayerNorm tuning."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from ...backbones import Anatomy
from ...errors import Unsupported
from ...registry import METHODS
from ..method import Method
from ..parts.peft_adapter import PeftAdapter


@METHODS.register("layernorm", family="selective", tracks=("image", "openvocab", "video"))
@dataclass
class LayerNormTuning(Method):
    """Train the weight and bias of every LayerNorm (Basu et al. 2023, arXiv:2304.01917).

    38,400 parameters on ViT-B/16: 25 norms of 2 x 768.
    """

    def adapt(self, anatomy: Anatomy) -> None:
        norms = (module for module in anatomy.model.modules() if isinstance(module, nn.LayerNorm))
        chosen = {id(parameter) for norm in norms for parameter in norm.parameters()}
        if not chosen:
            raise Unsupported(f"{anatomy.name} has no LayerNorm")
        anatomy.train(lambda name, parameter: id(parameter) in chosen)

    def to_peft(self, anatomy: Anatomy) -> PeftAdapter:
        norms = {name: module for name, module in anatomy.model.named_modules() if isinstance(module, nn.LayerNorm)}
        layers = {
            name: {f"ln_tuning_layers.{own}": parameter.detach() for own, parameter in norm.named_parameters()}
            for name, norm in norms.items()
            if next(norm.parameters(), None) is not None
        }
        return PeftAdapter("LN_TUNING", {}, layers)

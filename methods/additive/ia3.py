"""(IA)³: infused adapter by inhibiting and amplifying inner activations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from ...backbones import Anatomy, Attention, Insert
from ...registry import METHODS
from ..method import Method
from ..parts.peft_adapter import PeftAdapter, inserts_by_layer, rows_of


class Rescale(Insert):
    """``y -> scale * y`` by channel (…, C), on a linear map's output or on its input; starts at one."""

    def __init__(self, channels: int, on_input: bool = False) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels))
        self.on_input = on_input

    def forward(self, y: Tensor) -> Tensor:
        return y * self.scale

    def fold_into(self, host: Any) -> None:
        if self.on_input:
            host.scale_input_(self.scale)
        else:
            host.scale_output_(self.scale)


@METHODS.register("ia3", family="additive", tracks=("image", "openvocab", "video"))
@dataclass
class IA3(Method):
    """Learned rescaling of keys, values and the MLP's hidden activations (Liu et al. 2022, arXiv:2205.05638, sec. 3.3).

    ``softmax(q (l_k * k)^T / sqrt(d)) (l_v * v)`` and ``fc2(l_ff * act(fc1(x)))``; the vectors start at one, keys and
    values (N, L, D) are scaled with their biases. Merges into the weights. L(2D + F) parameters, F the hidden width of
    the MLP: 55,296 on ViT-B/16. In a block without attention (ConvNeXt) the MLP's vector is all there is; of a gated
    MLP (DINOv2's giant) it scales what fc2 reads.

    HF PEFT scales the input of its `feedforward_modules`; with fc2 as that module this is the same.
    """

    def adapt(self, anatomy: Anatomy) -> None:
        for block in anatomy.blocks:
            for branch in block.branches:
                if isinstance(branch, Attention):
                    for linear in (branch.k, branch.v):
                        linear.add_after(Rescale(linear.out_features))
            fc2 = block.mlp.output
            fc2.add_before(Rescale(fc2.in_features, on_input=True))

    def to_peft(self, anatomy: Anatomy) -> PeftAdapter:
        """Of a fused layer, queries are scaled by one."""
        layers, fed_forward = dict[str, dict[str, Tensor]](), []
        for name, layer in inserts_by_layer(anatomy, Rescale).items():
            if layer[0][1].on_input:
                fed_forward.append(name)
                layers[name] = {"ia3_l": layer[0][1].scale.detach().unsqueeze(0)}
                continue
            scale = torch.ones(len(cast(Tensor, layer[0][0].module.weight)), 1)
            for host, own in layer:
                scale[slice(*rows_of(host)), 0] = own.scale.detach()
            layers[name] = {"ia3_l": scale}
        return PeftAdapter("IA3", {"feedforward_modules": fed_forward}, layers)

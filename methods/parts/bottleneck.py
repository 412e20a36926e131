"""The bottleneck that adapters are made of."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from ...backbones import Insert


def quick_gelu(x: Tensor) -> Tensor:
    """``x * sigmoid(1.702 x)``, the activation of OpenAI's CLIP and of NOAH's adapter."""
    return x * (1.702 * x).sigmoid()


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "quick_gelu": quick_gelu,
    "silu": F.silu,
}
Activation = Literal["relu", "gelu", "gelu_tanh", "quick_gelu", "silu"]


class Bottleneck(Insert):
    """``scale * up(dropout(activation(down(x))))``, plus x with `skip`; (…, D) -> (…, D).

    2·D·h + h + D parameters. `up` starts at zero, so that the bottleneck starts as zero (as the identity with `skip`);
    `down` is initialised by its method.
    """

    def __init__(
        self,
        width: int,
        bottleneck: int,
        activation: Activation,
        dropout: float,
        scale: float = 1.0,
        skip: bool = False,
    ) -> None:
        super().__init__()
        self.down = nn.Linear(width, bottleneck)
        self.up = nn.Linear(bottleneck, width)
        self.activation = activation
        self.dropout = nn.Dropout(dropout)
        self.scale = scale
        self.skip = skip
        nn.init.zeros_(self.down.bias)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        y = self.up(self.dropout(ACTIVATIONS[self.activation](self.down(x))))
        if self.scale != 1.0:
            y = y * self.scale
        return x + y if self.skip else y

"""The branches of a block whose attention has a linear layer each for queries, keys, values and output."""

from __future__ import annotations

from torch import nn

from .parts import Affine, Attention, Block, Mlp
from .slots import SlottedAttention


def explicit_branches(
    block: Block,
    *,
    norms: tuple[nn.Module, nn.Module],
    attention: nn.Module,
    projections: tuple[nn.Module, nn.Module, nn.Module, nn.Module],
    num_heads: int,
    slotted: type[SlottedAttention],
    mlp: tuple[nn.Module, nn.Module],
) -> tuple[Attention, Mlp]:
    """
    Args:
        block: that has them.
        norms: before attention and before the MLP.
        attention: the module that computes it, `slotted` its subclass with slots.
        projections: to queries, keys and values, and of the output.
        mlp: its first and its last layer.
    """
    log = block.log
    q, k, v, output = (Affine(projection, log=log) for projection in projections)
    norm, mlp_norm = (Affine(module, log=log) for module in norms)
    first, last = (Affine(layer, log=log) for layer in mlp)
    return (
        Attention(
            name="attention",
            block=block,
            norm=norm,
            inputs=(q, k, v),
            output=output,
            q=q,
            k=k,
            v=v,
            num_heads=num_heads,
            module=attention,
            slotted=slotted,
        ),
        Mlp(name="mlp", block=block, norm=mlp_norm, inputs=(first,), output=last),
    )

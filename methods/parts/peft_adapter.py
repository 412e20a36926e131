"""What a method inserted, in the terms of Hugging Face PEFT: the config and the tensors that PEFT would save.

PEFT changes whole layers. q and v of a fused layer are two blocks of one change of it: the rest of the blocks is zeros
(or ones, where outputs are scaled), which leaves what they stand for as it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from ...backbones import Affine, Anatomy, Insert
from ...errors import Unsupported

Kind = TypeVar("Kind", bound=Insert)


@dataclass
class PeftAdapter:
    """What PEFT saves of an adapter.

    Attributes:
        kind: PEFT's ``peft_type``, e.g. ``"LORA"``.
        settings: fields of its config, but for the layers that are changed.
        layers: of each of these, by its name in the image backbone, tensors by PEFT's names (``lora_A.weight``).
        shared: what layers have in common, e.g. ``vera_A``.
    """

    kind: str
    settings: dict[str, Any]
    layers: dict[str, dict[str, Tensor]]
    shared: dict[str, Tensor] = field(default_factory=dict)


def inserts_by_layer(anatomy: Anatomy, kind: type[Kind]) -> dict[str, list[tuple[Affine, Kind]]]:
    """What of a class is inserted, and what it changes, by the names of the layers, in the backbone's order.

    Raises:
        Unsupported: where something is in another layer than a linear one.
    """
    found: dict[nn.Module, list[tuple[Affine, Kind]]] = {}
    for insertion in anatomy.log:
        if isinstance(insertion.insert, kind):
            host = cast(Affine, insertion.host)
            if not isinstance(host.module, nn.Linear):
                raise Unsupported(
                    f"PEFT folders are written of changed linear layers; {anatomy.name} has 1x1 convolutions for them"
                )
            found.setdefault(host.module, []).append((host, insertion.insert))
    return {name: found[module] for name, module in anatomy.model.named_modules() if module in found}


def rows_of(host: Affine) -> tuple[int, int]:
    """The output rows ``[start, stop)`` of its layer that a map is."""
    return host.rows or (0, host.out_features)


LowRankChange = tuple[Affine, Tensor, Tensor]
"""A map, and A (rank, in) and B (out, rank) of ``x -> scale * B A x``."""


def low_rank_adapter(
    layers: Mapping[str, Sequence[LowRankChange]], scale: float, dropout: float, **settings: Any
) -> PeftAdapter:
    """PEFT's LoRA. n changes of parts of a layer are one of n times the rank: A is stacked, B is block by block."""
    made = {name: _joined(changes) for name, changes in layers.items()}
    ranks = {name: len(factors["lora_A.weight"]) for name, factors in made.items()}
    rank = Counter(ranks.values()).most_common(1)[0][0]
    others = {name: own for name, own in ranks.items() if own != rank}
    return PeftAdapter(
        kind="LORA",
        settings={
            "r": rank,
            "lora_alpha": _whole(scale * rank),  # PEFT's scale is lora_alpha / r
            "lora_dropout": dropout,
            "rank_pattern": others,
            "alpha_pattern": {name: _whole(scale * own) for name, own in others.items()},
            **settings,
        },
        layers=made,
    )


def _joined(changes: Sequence[LowRankChange]) -> dict[str, Tensor]:
    weight = cast(Tensor, changes[0][0].module.weight)
    down = torch.cat([down.detach() for _, down, _ in changes])
    up = down.new_zeros(len(weight), len(down))
    start = 0
    for host, own_down, own_up in changes:
        up[slice(*rows_of(host)), start : start + len(own_down)] = own_up.detach()
        start += len(own_down)
    return {"lora_A.weight": down, "lora_B.weight": up}


def _whole(value: float) -> float:
    """PEFT has an integer where there is one."""
    return int(value) if float(value).is_integer() else value

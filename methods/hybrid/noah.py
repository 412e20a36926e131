"""NOAH."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from random import Random
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...backbones import Anatomy
from ...errors import Unsupported
from ...registry import METHODS
from ..adapted_model import AdaptedModel
from ..method import Context, Method, Phase
from ..parts.bottleneck import Bottleneck, quick_gelu
from ..parts.evolution import Architecture, Evolution, Space
from ..parts.prompts import DropPrompts, Prompts, add_prompts
from ..ranges import NOT_EMPTY, Count, Rate, Share
from ..reparameterized.lora_fused import SharedDownDelta

if TYPE_CHECKING:
    from ...tasks import Targets


class ElasticPrompts(Prompts):
    """The first `used` of its prompt tokens, behind the prefix tokens, in place of the `replaced` ones of before.

    With none in use the stream stays as it is, and so do prompts of an earlier block.
    """

    def __init__(self, width: int, size: int, prefix: int, dropout: float) -> None:
        super().__init__(at=prefix, dropout=dropout)
        bound = math.sqrt(6 / (width * (size + 1)))  # Xavier's, of a tensor (1, size, width)
        self.prompts = nn.Parameter(torch.empty(size, width).uniform_(-bound, bound))
        self.used = size

    def learned(self) -> Tensor:
        return self.prompts[: self.used]

    def use(self, used: int, replaced: int) -> None:
        self.used, self.replaced, self.present = used, replaced, used > 0


class ElasticDelta(SharedDownDelta):
    """`lora_fused` at the first `used` of its ranks."""

    def __init__(self, down: nn.Linear, owner: bool, out_features: int, dropout: float) -> None:
        super().__init__(down, owner, out_features, dropout)
        self.used = down.out_features

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.linear(F.linear(self.dropout(x), self.down.weight[: self.used]), self.up[:, : self.used])

    def weight_delta(self, weight: Tensor) -> Tensor:
        return self.up[:, : self.used] @ self.down.weight[: self.used]


class ElasticAdapter(Bottleneck):
    """A serial bottleneck (`pfeiffer_adapter`) of its first `used` units; the identity with none."""

    def __init__(self, width: int, size: int, dropout: float) -> None:
        super().__init__(width, size, "quick_gelu", dropout, skip=True)
        nn.init.xavier_uniform_(self.down.weight)
        self.used = size

    def forward(self, x: Tensor) -> Tensor:
        if self.used == 0:
            return x
        hidden = quick_gelu(F.linear(x, self.down.weight[: self.used], self.down.bias[: self.used]))
        return x + F.linear(self.dropout(hidden), self.up.weight[:, : self.used], self.up.bias)


@METHODS.register("noah", family="hybrid", tracks=("image", "openvocab", "video"))
@dataclass
class NOAH(Method):
    """Search what stands in each block: prompts, LoRA, an adapter (Zhang et al. 2022, arXiv:2206.04673, section 3).

    Three phases. *Supernet*: every block holds deep prompts, LoRA on the fused qkv and an adapter on the MLP's output
    at the largest of `widths`; each step draws an `Architecture`, for each kind of module how many blocks from the
    first on have it (`depths`, shares of the blocks: 3, 6, 9 or 12 of 12) and its width in each, and trains the slices
    that it uses. *Search*: an `Evolution` measures architectures of at most `limit` parameters, with the supernet's
    weights, by accuracy on the validation split. *Retrain*: the best one is trained from the start. What was found and
    what each phase cost is in the record. With `architecture` given, it is trained and nothing is searched.

    The supernet trains `supernet_epochs` times as long as retraining, at half its learning rate (500 epochs at 5e-4,
    100 at 1e-3). p·D + 4·D·r + 2·D·h + h + D parameters a block of p prompts, rank r and bottleneck h > 0: a supernet
    on ViT-B/16 has 654,456, the subnet shipped for CIFAR-100 320,330. Prompts change the function and cannot be folded.

    Widths are those of the shipped subnets. The official code: has prompts in front of block 0, with positions, that
    block 0 overwrites, and counts those prompts at the architecture's width and all positions of the supernet (left out
    here); resets the matrices of LoRA, B's zeros too, and of the adapters, drawn by Xavier, to N(0, 0.02) when timm's
    `init_weights` runs after (here LoRA's B and the adapters' second matrix start at zero); normalises images
    differently in the search than in training (its ``--inception``); and mutates depths only, where AutoFormer, whose
    search this is, also draws single widths anew (done here).
    """

    version: ClassVar[int] = 2
    identity_at_start: ClassVar[bool] = False
    looks_at_images: ClassVar[bool] = False

    widths: Annotated[tuple[Count, ...], NOT_EMPTY] = (1, 5, 10)
    depths: Annotated[tuple[Share, ...], NOT_EMPTY] = (0.25, 0.5, 0.75, 1.0)
    limit: int = 640_000
    supernet_epochs: float = 5.0
    generations: Count = 15
    population: Count = 50
    parents: Count = 10
    mutations: int = 25
    crossovers: int = 25
    width_rate: float = 0.2
    depth_rate: float = 0.4
    dropout: Rate = 0.1
    architecture: Architecture | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._chosen = self.architecture
        self._random: Random | None = None  # of the supernet's draws, while it trains

    def adapt(self, anatomy: Anatomy) -> None:
        blocks, size = anatomy.blocks, max(self.widths)
        full = (size,) * len(blocks)
        chosen = self._chosen or Architecture(full, full, full)
        if {len(row) for row in asdict(chosen).values()} != {len(blocks)}:
            raise Unsupported(f"{anatomy.name} has {len(blocks)} blocks; the architecture must have a number for each")
        prompts: list[ElasticPrompts | None] = [None] * len(blocks)
        for index, block in enumerate(blocks):
            if chosen.prompts[index]:
                size, prefix = chosen.prompts[index], anatomy.prefix_tokens
                prompts[index] = ElasticPrompts(block.width, size, prefix, self.dropout)
            if chosen.rank[index]:
                inputs = block.attention.inputs
                down = nn.Linear(inputs[0].in_features, chosen.rank[index], bias=False)
                for first, linear in enumerate(inputs):
                    linear.add_delta(ElasticDelta(down, first == 0, linear.out_features, self.dropout))
            if chosen.bottleneck[index]:
                block.mlp.add_serial(ElasticAdapter(block.width, chosen.bottleneck[index], self.dropout))
        if any(chosen.prompts):
            add_prompts(anatomy, prompts, max(chosen.prompts))
        use(anatomy, chosen)

    def phases(self) -> Sequence[Phase]:
        if self.architecture is not None:
            return super().phases()
        return (
            Phase("supernet", epochs=self.supernet_epochs, learning_rate=0.5),
            Phase("search", epochs=0),
            Phase("retrain"),
        )

    def begin_phase(self, name: str, model: AdaptedModel, accuracy: Callable[[], float]) -> None:
        self._random = None
        if name == "supernet":
            self._random = Random(int(torch.randint(2**31, ())))
        elif name == "search":
            self._chosen = self._search(model, accuracy)
        elif name == "retrain":
            model.restart()

    def _search(self, model: AdaptedModel, accuracy: Callable[[], float]) -> Architecture:
        def fitness(architecture: Architecture) -> float:
            use(model.anatomy, architecture)
            return accuracy()

        evolution = Evolution(
            self.generations,
            self.population,
            self.parents,
            self.mutations,
            self.crossovers,
            self.width_rate,
            self.depth_rate,
        )
        measured = evolution.search(
            self._space(model.anatomy),
            lambda architecture: parameters(model.anatomy, architecture) <= self.limit,
            fitness,
            Random(int(torch.randint(2**31, ()))),
        )
        if not measured:
            raise Unsupported(f"no architecture of {model.anatomy.name} has at most limit={self.limit} parameters")
        return next(iter(measured))

    def _space(self, anatomy: Anatomy) -> Space:
        return Space(len(anatomy.blocks), self.widths, self.depths)

    def loss(self, model: AdaptedModel, images: Tensor, targets: Targets, context: Context) -> Tensor:
        if self._random is not None:
            use(model.anatomy, self._space(model.anatomy).draw(self._random))
        return super().loss(model, images, targets, context)

    def found(self) -> dict[str, Any]:
        if self._chosen is None or self.architecture is not None:
            return {}
        return {"architecture": {kind: list(row) for kind, row in asdict(self._chosen).items()}}


def use(anatomy: Anatomy, architecture: Architecture) -> None:
    """Let a supernet compute what `architecture` alone would, with the supernet's weights."""
    present = 0
    for block, prompts, rank, bottleneck in zip(
        anatomy.blocks, architecture.prompts, architecture.rank, architecture.bottleneck, strict=True
    ):
        for module in block.module.modules():
            if isinstance(module, ElasticPrompts):
                module.use(prompts, replaced=present)
            elif isinstance(module, ElasticDelta):
                module.used = rank
            elif isinstance(module, ElasticAdapter):
                module.used = bottleneck
        present = prompts or present
    for module in anatomy.model.modules():
        if isinstance(module, DropPrompts):
            module.length = present


def parameters(anatomy: Anatomy, architecture: Architecture) -> int:
    """How many parameters `architecture` has once it stands alone."""
    total = 0
    for block, prompts, rank, bottleneck in zip(
        anatomy.blocks, architecture.prompts, architecture.rank, architecture.bottleneck, strict=True
    ):
        inputs = block.attention.inputs
        total += prompts * block.width
        total += rank * (inputs[0].in_features + sum(linear.out_features for linear in inputs))
        total += (2 * bottleneck * block.width + bottleneck + block.width) if bottleneck else 0
    return total

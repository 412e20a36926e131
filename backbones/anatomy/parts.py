"""The parts of a residual block as methods see them: its branches, and the affine maps in them.

Views hold modules, not tensors, so they survive `copy.deepcopy`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from torch import Tensor, nn

from ...errors import NotMergeable, Unsupported
from .quantized import plain
from .slots import (
    Insert,
    SlottedAttention,
    SlottedBlock,
    WeightDelta,
    attention_slots,
    block_slots,
    has_slots,
    is_pointwise,
    module_slots,
    replace_module,
    row_slots,
)
from .split_linear import SplitLinear

if TYPE_CHECKING:
    from .text import TextTower


@dataclass
class Insertion:
    """One thing that a method inserted, and the part of the backbone that hosts it."""

    host: Affine | Branch | Block | TextTower
    insert: Insert


@dataclass
class Affine:
    """A view of an affine map: a linear layer or some of its output rows, a convolution, a normalisation.

    Args:
        module: has ``weight`` (out first) and perhaps ``bias``.
        rows: the output rows ``[start, stop)`` that are meant; None for all.
        channels_first: whether it reads and writes (N, C, h, w), as every convolution does. Inserts always see the
            channels last.
        shift_sink: where a constant shift of the output can go if the module has no bias: (module, attribute, first
            token), e.g. the position embeddings that are added to a patch embedding's output.
    """

    module: nn.Module
    rows: tuple[int, int] | None = None
    shift_sink: tuple[nn.Module, str, int] | None = None
    channels_first: bool = False
    log: list[Insertion] = field(repr=False, kw_only=True)

    @property
    def weight(self) -> Tensor:
        """Of a 1x1 convolution, too, the (out, in) matrix; of a weight that is held in fewer bits, its values."""
        weight = plain(cast(Tensor, self.module.weight))
        if is_pointwise(self.module):
            return weight[:, :, 0, 0]
        return weight if self.rows is None else weight[slice(*self.rows)]

    @property
    def bias(self) -> Tensor | None:
        bias = cast("Tensor | None", getattr(self.module, "bias", None))  # an RMSNorm has not even the name
        return bias if bias is None or self.rows is None else bias[slice(*self.rows)]

    @property
    def out_features(self) -> int:
        return self.weight.shape[0]

    @property
    def in_features(self) -> int:
        return self.weight.shape[1]

    def add_delta(self, insert: WeightDelta) -> None:
        """Change the linear map by `insert` (see `WeightDelta`)."""
        if not (isinstance(self.module, nn.Linear) or is_pointwise(self.module)):
            raise Unsupported(f"a weight delta needs a linear layer, not {type(self.module).__name__}")
        rows = row_slots(self.module, self.rows or (0, self.out_features))
        cast(nn.ModuleList, rows["delta"]).append(insert)
        self.log.append(Insertion(self, insert))

    def add_after(self, insert: Insert) -> None:
        """Map the output (…, out) by `insert`."""
        slots = self._slots() if self.rows is None else row_slots(self.module, self.rows)
        cast(nn.ModuleList, slots["after"]).append(insert)
        self.log.append(Insertion(self, insert))

    def add_before(self, insert: Insert) -> None:
        """Map the module's input (…, in) by `insert`.

        Raises:
            Unsupported: on some rows of a module: its input is that of all rows.
        """
        if self.rows is not None:
            raise Unsupported("the input of some of a module's rows cannot be mapped apart from the others'")
        cast(nn.ModuleList, self._slots()["before"]).append(insert)
        self.log.append(Insertion(self, insert))

    def _slots(self) -> nn.ModuleDict:
        return module_slots(self.module, self.channels_first)

    def replace(self, insert: Insert) -> None:
        """Run `insert` in place of the module, which keeps its parameters under their own names.

        Raises:
            ValueError: on some rows of a module (see `Attention.split`), or where something is inserted already.
        """
        if self.rows is not None or has_slots(self.module):
            raise ValueError("only a whole module in which nothing is inserted can be replaced")
        replace_module(self.module, insert)
        self.log.append(Insertion(self, insert))

    def scale_output_(self, scale: Tensor) -> None:
        """Fold ``y -> scale * y`` (scale: (out,)) into the weights, in place."""
        self.weight.mul_(scale.view(-1, *[1] * (self.weight.dim() - 1)))
        if self.bias is not None:
            self.bias.mul_(scale)

    def scale_input_(self, scale: Tensor) -> None:
        """Fold ``x -> scale * x`` (scale: (in,)) into the weights of a linear layer, in place."""
        self.weight.mul_(scale)

    def shift_output_(self, shift: Tensor) -> None:
        """Fold ``y -> y + shift`` (shift: (out,)) into the bias, or where there is none into what is added next.

        Raises:
            NotMergeable: where nothing can take the shift.
        """
        self.check_shift()
        if self.bias is not None:
            self.bias.add_(shift)
        elif self.shift_sink is not None:
            module, name, first = self.shift_sink
            cast(Tensor, getattr(module, name))[..., first:, :].add_(shift)

    def check_shift(self) -> None:
        """Raises NotMergeable where nothing can take a shift of the output."""
        if self.bias is None and self.shift_sink is None:
            raise NotMergeable(f"a shift cannot be folded into a {type(self.module).__name__} that has no bias")


@dataclass
class Branch:
    """One residual branch of a block, ``x + operator(norm(x))``, with its slots.

    The stream x is tokens (N, L, D), or a map (N, h, w, D) in a block that has no tokens: see `Block.map_stream`.

    Attributes:
        name: ``attention``, ``mlp``, or what else its operator is.
        norm: the normalisation before the operator.
        inputs: the linear maps that read the norm's output (one fused qkv, or q, k and v; fc1).
        output: the linear map that writes to the stream (the output projection; fc2).
        mixing: the depthwise convolution in front of the norm, in a ConvNeXt block.
        pads: whether zeros join the norm's output before `inputs` read it (windows that the map does not fill), which
            a shift of that output does not reach.
    """

    name: str
    block: Block = field(repr=False)
    norm: Affine
    inputs: tuple[Affine, ...]
    output: Affine
    mixing: Affine | None = field(default=None, kw_only=True)
    pads: bool = field(default=False, kw_only=True)

    @property
    def projections(self) -> dict[str, Affine]:
        """The linear maps, by the names methods use for their ``targets``."""
        raise NotImplementedError

    @property
    def operations(self) -> tuple[Affine, ...]:
        """Every affine map, in the order in which they run."""
        mixing = () if self.mixing is None else (self.mixing,)
        return (*mixing, self.norm, *self.inputs, self.output)

    def add_serial(self, insert: Insert) -> None:
        """Map the operator's output (N, L, D) before it is added to the stream (Houlsby, Pfeiffer)."""
        self._insert("serial", insert)

    def add_parallel(self, insert: Insert) -> None:
        """Add ``insert(x)`` to the stream, x (N, L, D) being the branch's input before its norm (AdaptFormer)."""
        self._insert("parallel", insert)

    def add_after_add(self, insert: Insert) -> None:
        """Map the stream (N, L, D) after the operator's output was added (AdapterHub's Pfeiffer adapter)."""
        self._insert("after_add", insert)

    def add_parallel_norm(self, insert: Insert) -> None:
        """Add ``insert(norm(x))`` to the stream, norm(x) (N, L, D) being what the operator reads (Convpass)."""
        self._insert("parallel_norm", insert)

    def add_after_norm(self, insert: Insert) -> None:
        """Map the norm's output (N, L, D) before the operator reads it (RepAdapter); folds into `inputs`."""
        cast(nn.ModuleList, self.norm._slots()["after"]).append(insert)
        self.block.log.append(Insertion(self, insert))

    def check_input_shift(self) -> None:
        """Raises NotMergeable where a shift of what `inputs` read is no shift of what they put out."""
        if self.pads:
            raise NotMergeable("a shift of padded windows' input cannot be folded: the padding is not shifted")
        for linear in self.inputs:
            linear.check_shift()

    def _insert(self, slot: str, insert: Insert) -> None:
        branch = cast(nn.ModuleDict, self.block.slots()[self.name])
        cast(nn.ModuleList, branch[slot]).append(insert)
        self.block.log.append(Insertion(self, insert))


@dataclass
class Attention(Branch):
    """Multi-head self-attention, seen as four linear maps even where q, k and v are one fused layer."""

    q: Affine
    k: Affine
    v: Affine
    num_heads: int
    module: nn.Module
    slotted: type[SlottedAttention] | None

    def add_prefix(self, insert: Insert) -> None:
        """Attend to more keys and values: `insert` maps the input (N, L, D) to both, (N, p, D) or (1, p, D) each.

        Raises:
            Unsupported: where the attention module's forward is not known.
        """
        self._insert_inside("prefix", insert, "takes no extra keys and values")

    def add_query(self, insert: Insert) -> None:
        """Map the queries (N, heads, L, d) before they meet the keys (a temperature of the softmax).

        Raises:
            Unsupported: where the attention module's forward is not known.
        """
        self._insert_inside("query", insert, "lets nothing change its queries")

    def split(self) -> None:
        """Give q, k and v linear layers of their own where they are one fused layer; `Anatomy.merge` undoes it.

        For methods that can only change whole layers. The new layers' parameters are called ``qkv.q.weight`` and so on.
        """
        fused = self.q.module
        if self.q.rows is not None:
            parts = SplitLinear(cast(nn.Linear, fused))
            setattr(self.module, self._child(fused), parts)
            self.q, self.k, self.v = (Affine(part, log=self.block.log) for part in parts.children())
            self.inputs = (self.q, self.k, self.v)

    def fuse(self) -> None:
        """Undo `split`; without it, do nothing."""
        for name, parts in list(self.module.named_children()):
            if isinstance(parts, SplitLinear):
                fused, log = parts.fused(), self.block.log
                setattr(self.module, name, fused)
                rows = fused.out_features // 3
                self.q, self.k, self.v = (Affine(fused, rows=(i * rows, (i + 1) * rows), log=log) for i in range(3))
                self.inputs = (Affine(fused, log=log),)

    def _child(self, module: nn.Module) -> str:
        return next(name for name, child in self.module.named_children() if child is module)

    def _insert_inside(self, slot: str, insert: Insert, lack: str) -> None:
        if self.slotted is None:
            raise Unsupported(f"attention of type {type(self.module).__name__} {lack}")
        cast(nn.ModuleList, attention_slots(self.module, self.slotted)[slot]).append(insert)
        self.block.log.append(Insertion(self, insert))

    @property
    def projections(self) -> dict[str, Affine]:
        return {"q": self.q, "k": self.k, "v": self.v, "proj": self.output}


@dataclass
class Mlp(Branch):
    """The feed-forward branch, ``fc2(activation(fc1(x)))``; of a gated one fc1 writes gate and value."""

    @property
    def projections(self) -> dict[str, Affine]:
        return {"fc1": self.inputs[0], "fc2": self.output}


@dataclass
class Block:
    """A pre-norm residual block of any number of branches.

    Attention, then MLP; an MLP alone, behind a convolution (ConvNeXt); a mixer of another kind alone (Mamba).

    Args:
        module: the backbone's own module.
        slotted: the subclass mixin that runs this block family's forward through the slots; None where the family has
            none yet, which makes methods that need slots `Unsupported`.
        map_stream: whether its stream is a map (N, h, w, D), which has no place for more tokens.

    Attributes:
        branches: in the order in which they run.
    """

    module: nn.Module
    slotted: type[SlottedBlock] | None
    map_stream: bool = False
    branches: tuple[Branch, ...] = field(init=False)
    log: list[Insertion] = field(repr=False, kw_only=True)

    @property
    def attention(self) -> Attention:
        """Raises Unsupported where the block has none."""
        found = next((branch for branch in self.branches if isinstance(branch, Attention)), None)
        if found is None:
            raise Unsupported(f"a {self._kind} has no attention")
        return found

    @property
    def mlp(self) -> Mlp:
        """Raises Unsupported where the block has none."""
        found = next((branch for branch in self.branches if isinstance(branch, Mlp)), None)
        if found is None:
            raise Unsupported(f"a {self._kind} has no MLP")
        return found

    @property
    def width(self) -> int:
        """D, of its stream."""
        return self.branches[-1].output.out_features

    @property
    def projections(self) -> dict[str, Affine]:
        """Every linear map: q, k, v, proj, fc1, fc2, as far as they exist."""
        return {name: linear for branch in self.branches for name, linear in branch.projections.items()}

    def linears(self, targets: Sequence[str]) -> tuple[Affine, ...]:
        """The linear maps that `targets` names; in a block that has none of them, those of its last branch.

        In a block without attention these are fc1 and fc2, which HF PEFT's guide to custom models adapts in a timm
        model that has none.
        """
        named = tuple(self.projections[target] for target in targets if target in self.projections)
        return named or tuple(self.branches[-1].projections.values())

    def named_branches(self, names: Sequence[str]) -> tuple[Branch, ...]:
        """The branches that `names` names. Raises Unsupported where there is none."""
        named = tuple(branch for branch in self.branches if branch.name in names)
        if not named:
            raise Unsupported(f"a {self._kind} has no {' or '.join(names)}")
        return named

    @property
    def operations(self) -> tuple[Affine, ...]:
        """Every affine map, in the order in which they run."""
        return tuple(operation for branch in self.branches for operation in branch.operations)

    def slots(self) -> nn.ModuleDict:
        if self.slotted is None:
            raise Unsupported(f"blocks of type {self._kind} have no slots for inserted modules")
        return block_slots(self.module, self.slotted, [branch.name for branch in self.branches])

    def add_before(self, insert: Insert) -> None:
        """Map the whole stream (N, L, D) on its way into the block (prompts are put there).

        Raises:
            Unsupported: where the stream is a map.
        """
        self._insert_tokens("before", insert)

    def add_carry(self, insert: Insert) -> None:
        """Map the stream as it enters attention (after ``before``) and as it leaves, both (N, L, D), to what leaves.

        Raises:
            Unsupported: where the stream is a map.
        """
        self._insert_tokens("carry", insert)

    def _insert_tokens(self, slot: str, insert: Insert) -> None:
        if self.map_stream:
            raise Unsupported(f"the stream of a {self._kind} is a map, which has no place for more tokens")
        cast(nn.ModuleList, self.slots()[slot]).append(insert)
        self.log.append(Insertion(self, insert))

    @property
    def _kind(self) -> str:
        kind = type(self.module)
        return cast(type, getattr(kind, "unslotted_class", kind)).__name__

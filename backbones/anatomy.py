"""Anatomy: what of a backbone a method may touch.

A method is written once against these parts; one builder per backbone family provides them. Views hold modules, not
tensors, so they survive `copy.deepcopy`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, cast

import torch
from torch import Tensor, nn

from ..errors import NotMergeable, Unsupported
from .frozen import QUANTIZED, plain
from .segments import Output, Segment
from .slots import (
    Insert,
    Predicate,
    SlottedAttention,
    SlottedBlock,
    WeightDelta,
    attention_slots,
    block_slots,
    has_slots,
    is_inserted,
    is_pointwise,
    module_slots,
    remove_slots,
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


BranchName = Literal["attention", "mlp"]


@dataclass
class Branch:
    """One residual branch of a block, ``x + operator(norm(x))``, with its slots.

    The stream x is tokens (N, L, D), or a map (N, h, w, D) in a block that has no tokens: see `Block.map_stream`.

    Attributes:
        norm: the normalisation before the operator.
        inputs: the linear maps that read the norm's output (one fused qkv, or q, k and v; fc1).
        output: the linear map that writes to the stream (the output projection; fc2).
        mixing: the depthwise convolution in front of the norm, in a ConvNeXt block.
        pads: whether zeros join the norm's output before `inputs` read it (windows that the map does not fill), which
            a shift of that output does not reach.
    """

    name: BranchName
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
    """A pre-norm residual block: attention, then MLP; or an MLP alone, behind a convolution (ConvNeXt).

    Args:
        module: the backbone's own module.
        slotted: the subclass mixin that runs this block family's forward through the slots; None where the family has
            none yet, which makes methods that need slots `Unsupported`.
        map_stream: whether its stream is a map (N, h, w, D), which has no place for more tokens.

    Attributes:
        branches: in the order in which they run; the last is the MLP.
    """

    module: nn.Module
    slotted: type[SlottedBlock] | None
    map_stream: bool = False
    branches: tuple[Branch, ...] = field(init=False)
    log: list[Insertion] = field(repr=False, kw_only=True)

    @property
    def attention(self) -> Attention:
        """Raises Unsupported where the block has none."""
        first = self.branches[0]
        if not isinstance(first, Attention):
            raise Unsupported(f"a {self._kind} has no attention")
        return first

    @property
    def mlp(self) -> Mlp:
        return cast(Mlp, self.branches[-1])

    @property
    def width(self) -> int:
        """D, of its stream."""
        return self.mlp.output.out_features

    @property
    def projections(self) -> dict[str, Affine]:
        """Every linear map: q, k, v, proj, fc1, fc2, as far as they exist."""
        return {name: linear for branch in self.branches for name, linear in branch.projections.items()}

    def linears(self, targets: Sequence[str]) -> tuple[Affine, ...]:
        """The linear maps that `targets` names; in a block that has none of them (no attention), fc1 and fc2.

        The stand-ins are what HF PEFT's guide to custom models adapts in a timm model without attention.
        """
        named = tuple(self.projections[target] for target in targets if target in self.projections)
        return named or tuple(self.mlp.projections.values())

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


@dataclass
class Anatomy(ABC):
    """An image backbone as methods see it, and its text tower where it has one. One subclass per backbone family.

    Attributes:
        name: the backbone's name, for messages.
        model: the image backbone; parameter names are relative to it.
        root: the whole model (a CLIP holds `model` and the text tower; otherwise `root` is `model`).
        stem: the patch embedding. norm: the final norm, before or after pooling.
        blocks: all residual blocks, of all stages. transitions: affine maps that run between, by the block they lead to
            (those of the stem, behind the patch embedding, lead to block 0).
        entering: what reads the tokens before the first block, positions added; perhaps no norm but `nn.Identity`.
        leaving: what reads the stream that leaves the last block, where that is not `norm`.
        norm_after_pooling: whether nothing does but the pooling itself.
        grid: patch tokens (rows, columns), None where the stream is a map; prefix_tokens: tokens before them (class
            token, registers).
        mean, std: of the normalisation that the weights expect, on pixels in [0, 1].
        log: everything inserted so far, in order.
        masks: of parameters of which only some entries train (see `train_entries`), by name.
        held_in: what frozen matrices are held in (see `frozen.hold`).
        num_frames: T of the clips that the model is for, whose frames come as N·T images; None for images.
        text_lack: why there is no `text`, in words that follow the backbone's name.
    """

    name: str
    model: nn.Module
    root: nn.Module
    feature_dim: int
    image_size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    log: list[Insertion]
    text: TextTower | None = None
    grid: tuple[int, int] | None = None
    prefix_tokens: int = 0
    token_blocks: tuple[Block, ...] = ()
    patch_embedding: Affine | None = None
    final_norm: Affine | None = None
    entering: Affine | None = None
    leaving: Affine | None = None
    norm_after_pooling: bool = False
    transitions: dict[int, tuple[Affine, ...]] = field(default_factory=dict)
    masks: dict[str, Tensor] = field(default_factory=dict)
    held_in: str = "float32"
    num_frames: int | None = None
    text_lack: str = "has no text tower"

    def __post_init__(self) -> None:
        self.root.requires_grad_(False)

    @abstractmethod
    def pooled(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) -> features (N, feature_dim) for a classifier."""

    def projected(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) -> embeddings (N, E) in the space shared with text. Raises Unsupported without one."""
        raise Unsupported(f"{self.name} has no text tower")

    def segments(self, output: Output) -> tuple[Segment, ...]:
        """The steps of `pooled` or `projected`, as the model is now; one where its parts are not known."""
        return (Segment("all", getattr(self, output), (self.model,), pooled=True),)

    @property
    def blocks(self) -> tuple[Block, ...]:
        """Raises Unsupported where the backbone is not made of residual blocks whose parts are known."""
        if not self.token_blocks:
            raise Unsupported(f"{self.name} has no transformer blocks, nor others whose parts are known")
        return self.token_blocks

    @property
    def width(self) -> int:
        """D, of all blocks. Raises Unsupported where it changes from stage to stage."""
        widths = {block.width for block in self.blocks}
        if len(widths) > 1:
            raise Unsupported(f"{self.name} has blocks of different widths, stage by stage")
        return widths.pop()

    @property
    def operations(self) -> tuple[Affine, ...]:
        """Every affine map that SSF scales and shifts, in the order in which they run.

        Raises:
            Unsupported: where the backbone's parts are not known.
        """
        inside = (
            operation
            for index, block in enumerate(self.blocks)
            for operation in (*self.transitions.get(index, ()), *block.operations)
        )
        return (self.stem, *inside, self.norm)

    @property
    def stem(self) -> Affine:
        """Raises Unsupported where the backbone has no patch embedding."""
        if self.patch_embedding is None:
            raise Unsupported(f"{self.name} has no patch embedding")
        return self.patch_embedding

    @property
    def norm(self) -> Affine:
        """Raises Unsupported where the backbone has no final norm over tokens."""
        if self.final_norm is None:
            raise Unsupported(f"{self.name} has no final norm over tokens")
        return self.final_norm

    @property
    def clip_length(self) -> int:
        """T, the frames of a clip. Raises Unsupported where the model is for images."""
        if self.num_frames is None:
            raise Unsupported("this method is for clips: give num_frames=T")
        return self.num_frames

    def add_before_blocks(self, insert: Insert) -> None:
        """Map the tokens (N, L, D) when positions are added, before a norm in front of the first block.

        Raises:
            Unsupported: where that place is not known.
        """
        if self.entering is None:
            raise Unsupported(f"{self.name} has no tokens with positions in front of its blocks")
        self.entering.add_before(insert)

    def add_after_blocks(self, insert: Insert) -> None:
        """Map the stream (N, L, D) as it leaves the last block, before norm and pooling (prompts leave there)."""
        if self.norm_after_pooling:
            self.blocks[-1].mlp.add_after_add(insert)
        else:
            (self.leaving or self.norm).add_before(insert)

    def drop_text(self) -> None:
        """Leave the text tower behind; parameter names of the whole model are then those of the image backbone."""
        self.root, self.text = self.model, None

    def text_tower(self) -> TextTower:
        """Raises Unsupported where the backbone has no text tower whose parts are known."""
        if self.text is None:
            raise Unsupported(f"{self.name} {self.text_lack}")
        return self.text

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The image backbone's own parameters, without what was inserted."""
        return ((name, p) for name, p in self.model.named_parameters() if not is_inserted(name))

    def train(self, choose: Predicate) -> None:
        """Make the image backbone's own parameters trainable for which ``choose(name, parameter)`` holds.

        Raises:
            Unsupported: where none is chosen.
        """
        chosen = [parameter for name, parameter in self.named_parameters() if choose(name, parameter)]
        if not chosen:
            raise Unsupported(f"{self.name} has no parameter that this method would train")
        for parameter in chosen:
            parameter.requires_grad_(True)

    def train_entries(self, masks: Mapping[str, Tensor]) -> None:
        """Train some entries of parameters: where a mask (bool, of the parameter's shape) is true.

        `AdaptedModel.optimizer_step` keeps the others bit-identical. A parameter without a true entry stays frozen;
        masks that were given before are forgotten.

        Raises:
            Unsupported: where no entry is chosen.
        """
        parameters = dict(self.named_parameters())
        chosen = {name: mask for name, mask in masks.items() if bool(mask.any())}
        if not chosen:
            raise Unsupported(f"{self.name} has no parameter entry that this method would train")
        for name in self.masks:
            parameters[name].requires_grad_(False)
        for name in chosen:
            parameters[name].requires_grad_(True)
        self.masks = chosen

    def clear(self) -> None:
        """Take out everything inserted and freeze everything; the backbone's weights stay as they are."""
        self._take_out()
        self.masks = {}
        self.root.requires_grad_(False)

    @property
    def mergeable(self) -> bool:
        """Whether `merge` can fold everything that was inserted."""
        try:
            self._check_foldable()
        except NotMergeable:
            return False
        return True

    def _check_foldable(self) -> None:
        if self.log and self.held_in in QUANTIZED:
            raise NotMergeable(f"weights that are held in {self.held_in} cannot take a change")
        for insertion in self.log:
            insertion.insert.check_foldable(insertion.host)

    @torch.no_grad()
    def merge(self) -> None:
        """Fold everything inserted into the weights and take the slots away.

        Raises:
            NotMergeable: where an insert cannot be folded; the model is left as it was.
        """
        self._check_foldable()  # first: half a merge would be a broken model
        for insertion in sorted(self.log, key=lambda item: not isinstance(item.insert, WeightDelta)):
            insertion.insert.fold_into(insertion.host)
        self._take_out()

    def _take_out(self) -> None:
        """Give the backbone its own structure again."""
        remove_slots(self.root)
        for block in self.token_blocks:
            for branch in block.branches:
                if isinstance(branch, Attention):
                    branch.fuse()
        self.log.clear()

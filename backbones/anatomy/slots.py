"""Slots: the places in a frozen backbone where a method may put something.

A module gets slots by having its class swapped for a subclass of it that also runs what the slots hold (as
`torch.nn.utils.parametrize` and FSDP2 do). Its parameters keep their names, a module without slots is untouched and
costs nothing, and `remove_slots` gives back exactly the module that was there. What is inserted lives in
``module.slots``, so a parameter is the backbone's own if and only if ``slots`` is not a part of its name.

The name of an inserted tensor says where it is, and does not depend on what else is inserted elsewhere:
``<module>.slots.<slot>.<i>.<tensor>`` of a module or block (``<branch>.<slot>`` in a block), and
``<module>.slots.rows.<p>.<slot>.<i>.<tensor>`` of part p of a linear map's output: q, k and v of a fused qkv are 0, 1
and 2, whichever of them are used; a map that is one part has 0. i counts what a method puts into one slot.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...errors import NotMergeable
from .quantized import plain, product


class Insert(nn.Module):
    """What a method puts into a slot.

    `fold_into` changes the host's weights so that the host alone computes what it computed with the insert; it raises
    `NotMergeable` where that is impossible, which is the default.

    Attributes:
        learned_buffers: names of buffers, or of frozen parameters, that hold what was learned without gradients: they
            are saved with what was trained.

    >>> class Scale(Insert):
    ...     '''``y -> s * y``, one s per channel.'''
    ...
    ...     def __init__(self, width):
    ...         super().__init__()
    ...         self.scale = nn.Parameter(torch.full((width,), 2.0))
    ...
    ...     def forward(self, y):
    ...         return self.scale * y
    >>> from peftmark.backbones import find_backbone
    >>> anatomy = find_backbone("vit_tiny_patch16_224").build(pretrained=False)
    >>> images = torch.ones(1, 3, 224, 224)
    >>> before = anatomy.pooled(images)
    >>> anatomy.add_after_blocks(Scale(anatomy.width))  # before the final norm, which takes no notice of a scale
    >>> torch.allclose(anatomy.pooled(images), before, atol=1e-4)
    True
    >>> anatomy.blocks[-1].mlp.add_serial(Scale(anatomy.width))  # on the MLP's output, before it is added
    >>> torch.allclose(anatomy.pooled(images), before, atol=1e-4)
    False
    """

    learned_buffers: tuple[str, ...] = ()

    @property
    def foldable(self) -> bool:
        """Whether there are hosts that it can be folded into."""
        return type(self).fold_into is not Insert.fold_into

    def check_foldable(self, host: Any) -> None:
        """Raises NotMergeable where `fold_into` would; nothing is changed."""
        if not self.foldable:
            self.fold_into(host)

    def fold_into(self, host: Any) -> None:
        raise NotMergeable(f"{type(self).__name__} cannot be folded into the backbone's weights")

    def share(self, name: str, module: nn.Module, owner: bool) -> None:
        """Use a module that several inserts have in common as ``self.<name>``.

        One of them owns it: there it is registered, and so named, moved, counted and saved once.
        """
        if owner:
            setattr(self, name, module)
        else:
            object.__setattr__(self, name, module)


class WeightDelta(Insert):
    """An additive change of a linear map: ``y = W x + b`` becomes ``y + delta(x, W)``."""

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        """Map `x` (…, in) to the change of the output (…, out); `weight` is the frozen (out, in) matrix."""
        raise NotImplementedError

    def weight_delta(self, weight: Tensor) -> Tensor:
        """The (out, in) matrix ΔW with ``delta(x, W) == ΔW x`` at inference."""
        raise NotImplementedError

    def fold_into(self, host: Any) -> None:
        host.weight.add_(self.weight_delta(host.weight))


def _inserts(slots: nn.ModuleDict, name: str) -> nn.ModuleList:
    return cast(nn.ModuleList, slots[name])


class _SlottedModule(nn.Module):
    """``after(module(before(x)))``."""

    slots: nn.ModuleDict

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        y = super().forward(self.through("before", x), *args, **kwargs)
        return self.through("after", y)

    def through(self, slot: str, x: Tensor) -> Tensor:
        for insert in _inserts(self.slots, slot):
            x = insert(x)
        return x


class _SlottedMap(_SlottedModule):
    """The same of a module that reads and writes channels first (N, C, h, w): inserts see channels last."""

    def through(self, slot: str, x: Tensor) -> Tensor:
        return super().through(slot, x.movedim(1, -1)).movedim(-1, 1) if len(_inserts(self.slots, slot)) else x


class _SlottedLinear(_SlottedModule):
    """A linear map that maps its input first, changes some or all of its output rows, then maps its whole output."""

    row_ranges: list[tuple[int, int]]
    weight: Tensor
    bias: Tensor | None

    def forward(self, x: Tensor) -> Tensor:
        x = self.through("before", x)
        y = product(x, self.weight, self.bias)
        if self.row_ranges:
            y = self.change_rows(x, y, self.weight)
        return self.through("after", y)

    def change_rows(self, x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        weight = plain(weight)
        # one split, not a slice a piece: the backward pass of each slice would fill a tensor as large as y
        bounds = sorted({0, y.shape[-1], *itertools.chain.from_iterable(self.row_ranges)})
        pieces = list(y.split([stop - start for start, stop in itertools.pairwise(bounds)], dim=-1))
        parts = _inserts(self.slots, "rows")
        for start, stop in self.row_ranges:
            index, rows = bounds.index(start), parts[start // (stop - start)]
            for insert in _inserts(cast(nn.ModuleDict, rows), "delta"):
                pieces[index] = pieces[index] + insert(x, weight[start:stop])
            for insert in _inserts(cast(nn.ModuleDict, rows), "after"):
                pieces[index] = insert(pieces[index])
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=-1)


class _SlottedPointwise(_SlottedMap, _SlottedLinear):
    """The same of a linear map that is a 1x1 convolution."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.through("before", x)
        y = F.conv2d(x, self.weight, self.bias)
        if self.row_ranges:
            y = self.change_rows(x.movedim(1, -1), y.movedim(1, -1), self.weight[:, :, 0, 0]).movedim(-1, 1)
        return self.through("after", y)


class _ReplacedModule(nn.Module):
    """``instead(x)``: what was inserted runs in place of the module."""

    slots: nn.ModuleDict

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.slots["instead"](*args, **kwargs)


class SlottedAttention(nn.Module):
    """Base of the slotted subclasses of attention modules; each family writes its forward with these two."""

    slots: nn.ModuleDict

    def queried(self, q: Tensor) -> Tensor:
        """The ``query`` slot: maps the queries (N, heads, L, d) before they meet the keys."""
        for insert in _inserts(self.slots, "query"):
            q = insert(q)
        return q

    def prefixed(self, x: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (N, heads, L, d) with those of the ``prefix`` slot in front.

        An insert maps the attention's input x (N, L, D) to keys and values, each (N, p, D) or (1, p, D).
        """
        n, heads, _, width = k.shape
        for insert in _inserts(self.slots, "prefix"):
            more_k, more_v = (
                part.view(part.shape[0], -1, heads, width).transpose(1, 2).expand(n, -1, -1, -1) for part in insert(x)
            )
            k, v = torch.cat((more_k, k), dim=2), torch.cat((more_v, v), dim=2)
        return k, v


class SlottedBlock(nn.Module):
    """Base of the slotted subclasses of residual blocks; each backbone family writes its forward with `residual`."""

    slots: nn.ModuleDict

    def residual(self, branch: str, x: Tensor, normed: Tensor, y: Tensor) -> Tensor:
        """Add a branch's output `y` to the stream `x` (N, L, D), or a map (N, h, w, D), through the branch's slots.

        ``serial`` maps the operator's output before the add; ``parallel`` maps the branch's input (before its norm),
        ``parallel_norm`` the norm's output `normed`, and both are added too; ``after_add`` maps the sum.
        """
        slots = cast(nn.ModuleDict, self.slots[branch])
        for insert in _inserts(slots, "serial"):
            y = insert(y)
        for insert in _inserts(slots, "parallel"):
            y = y + insert(x)
        for insert in _inserts(slots, "parallel_norm"):
            y = y + insert(normed)
        x = x + y
        for insert in _inserts(slots, "after_add"):
            x = insert(x)
        return x

    def enter(self, x: Tensor) -> Tensor:
        """The ``before`` slot: maps the whole stream on its way into the block."""
        for insert in _inserts(self.slots, "before"):
            x = insert(x)
        return x

    def leave(self, entered: Tensor, x: Tensor) -> Tensor:
        """The ``carry`` slot: maps the stream as it entered the block's attention, and as it leaves, to what leaves."""
        for insert in _inserts(self.slots, "carry"):
            x = insert(entered, x)
        return x


BRANCH_SLOTS = ("serial", "parallel", "parallel_norm", "after_add")


_slotted_classes: dict[tuple[type, type], type] = {}


def _swap_class(module: nn.Module, mixin: type[nn.Module]) -> None:
    """Make `module` an instance of a subclass of its own class and `mixin`: one such class for all modules alike."""
    original = type(module)
    if (original, mixin) not in _slotted_classes:
        name = f"Slotted{original.__name__}"
        _slotted_classes[original, mixin] = type(name, (mixin, original), {"unslotted_class": original})
    module.__class__ = _slotted_classes[original, mixin]


def has_slots(module: nn.Module) -> bool:
    return "slots" in module._modules


def is_pointwise(module: nn.Module) -> bool:
    """Whether it is a linear map over the channels of (N, C, h, w): a 1x1 convolution and nothing more."""
    if not isinstance(module, nn.Conv2d):
        return False
    return (module.kernel_size, module.stride, module.padding, module.groups) == ((1, 1), (1, 1), (0, 0), 1)


def module_slots(module: nn.Module, channels_first: bool = False) -> nn.ModuleDict:
    """The ``before`` and ``after`` slots of any module (and ``rows`` of a linear one), made on first use.

    Args:
        channels_first: whether it reads and writes (N, C, h, w), as every convolution does; inserts see (N, h, w, C).
    """
    if not has_slots(module):
        channels_first = channels_first or isinstance(module, nn.Conv2d)
        linear = isinstance(module, nn.Linear) or is_pointwise(module)
        names = ("before", "rows", "after") if linear else ("before", "after")
        module.slots = nn.ModuleDict({name: nn.ModuleList() for name in names})
        if linear:
            object.__setattr__(module, "row_ranges", [])
        _swap_class(module, _MIXINS[linear, channels_first])
    return cast(nn.ModuleDict, module.slots)


_MIXINS: dict[tuple[bool, bool], type[nn.Module]] = {
    (False, False): _SlottedModule,
    (False, True): _SlottedMap,
    (True, False): _SlottedLinear,
    (True, True): _SlottedPointwise,
}
"""By whether a module is a linear map, and whether its channels come first."""


def replace_module(module: nn.Module, insert: Insert) -> None:
    """The ``instead`` slot of any module that has no slots yet."""
    module.slots = nn.ModuleDict({"instead": insert})
    _swap_class(module, _ReplacedModule)


def twin(module: nn.Module) -> nn.Module:
    """A second module over the very parameters and buffers of one without children.

    An insert that runs instead of the module can call it, and change its weights when it is folded. Also after ``to``,
    ``load_state_dict`` and ``deepcopy`` of both, the two have the same tensors: they share the dictionaries.
    """
    second = copy.copy(module)
    second._modules = {}
    return second


def block_slots(module: nn.Module, mixin: type[SlottedBlock], branch_names: Iterable[str]) -> nn.ModuleDict:
    """The slots of a residual block, made on first use; `mixin` holds the block family's forward."""
    if not has_slots(module):
        branches = {branch: nn.ModuleDict({slot: nn.ModuleList() for slot in BRANCH_SLOTS}) for branch in branch_names}
        module.slots = nn.ModuleDict({"before": nn.ModuleList(), **branches, "carry": nn.ModuleList()})
        _swap_class(module, mixin)
    return cast(nn.ModuleDict, module.slots)


def attention_slots(module: nn.Module, mixin: type[SlottedAttention]) -> nn.ModuleDict:
    """The slots of an attention module, made on first use; `mixin` holds the family's forward."""
    if not has_slots(module):
        module.slots = nn.ModuleDict({"query": nn.ModuleList(), "prefix": nn.ModuleList()})
        _swap_class(module, mixin)
    return cast(nn.ModuleDict, module.slots)


def row_slots(module: nn.Module, rows: tuple[int, int]) -> nn.ModuleDict:
    """The ``delta`` and ``after`` slots of output rows ``[start, stop)`` of a linear map, made on first use.

    The rows are one of the equal parts that the output is made of. All have a number, those without slots too, so that
    names do not depend on which are used.

    Raises:
        ValueError: where the rows are no such part, or of another size than others that have slots.
    """
    parts = _inserts(module_slots(module), "rows")
    ranges = cast(_SlottedLinear, module).row_ranges
    size, out = rows[1] - rows[0], len(cast(Tensor, module.weight))
    if rows[0] % size or out % size:
        raise ValueError(f"rows {rows} are none of the equal parts of {out}")
    if any(stop - start != size for start, stop in ranges):
        raise ValueError(f"rows {rows} overlap others that have slots: {ranges}")
    if not len(parts):
        parts.extend(nn.ModuleDict({"delta": nn.ModuleList(), "after": nn.ModuleList()}) for _ in range(out // size))
    if rows not in ranges:
        ranges.append(rows)
        ranges.sort()
    return cast(nn.ModuleDict, parts[rows[0] // size])


def remove_slots(root: nn.Module) -> None:
    """Give every slotted module below `root` its own class back and drop what was inserted."""
    for module in list(root.modules()):
        if has_slots(module):
            original = getattr(type(module), "unslotted_class", None)
            if original is not None:
                module.__class__ = original
            del module.slots
            module.__dict__.pop("row_ranges", None)


def is_inserted(name: str) -> bool:
    """Whether a parameter's name says that a method inserted it."""
    return "slots" in name.split(".")


Predicate = Callable[[str, nn.Parameter], bool]

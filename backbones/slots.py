"""Slots: the places in a frozen backbone where a method may put something.

A module gets slots by having its class swapped for a subclass of it that also runs what the slots hold (as
`torch.nn.utils.parametrize` and FSDP2 do). Its parameters keep their names, a module without slots is untouched and
costs nothing, and `remove_slots` gives back exactly the module that was there. What is inserted lives in
``module.slots``, so a parameter is the backbone's own if and only if ``slots`` is not a part of its name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import NotMergeable


class Insert(nn.Module):
    """What a method puts into a slot.

    `fold_into` changes the host's weights so that the host alone computes what it computed with the insert; it raises
    `NotMergeable` where that is impossible, which is the default.
    """

    @property
    def foldable(self) -> bool:
        return type(self).fold_into is not Insert.fold_into

    def fold_into(self, host: Any) -> None:
        raise NotMergeable(f"{type(self).__name__} cannot be folded into the backbone's weights")


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
        for insert in _inserts(self.slots, "before"):
            x = insert(x)
        y = super().forward(x, *args, **kwargs)
        for insert in _inserts(self.slots, "after"):
            y = insert(y)
        return y


class _SlottedLinear(nn.Module):
    """A linear map with weight deltas on all or some of its output rows, then the ``after`` slot."""

    slots: nn.ModuleDict
    delta_rows: list[tuple[int, int]]
    weight: Tensor
    bias: Tensor | None

    def forward(self, x: Tensor) -> Tensor:
        y = F.linear(x, self.weight, self.bias)
        if self.delta_rows:
            y = self._add_deltas(x, y)
        for insert in _inserts(self.slots, "after"):
            y = insert(y)
        return y

    def _add_deltas(self, x: Tensor, y: Tensor) -> Tensor:
        pieces: list[Tensor] = []
        position = 0
        for (start, stop), inserts in zip(self.delta_rows, _inserts(self.slots, "delta"), strict=True):
            if start > position:
                pieces.append(y[..., position:start])
            piece = y[..., start:stop]
            for insert in cast(nn.ModuleList, inserts):
                piece = piece + insert(x, self.weight[start:stop])
            pieces.append(piece)
            position = stop
        if position < y.shape[-1]:
            pieces.append(y[..., position:])
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=-1)


class SlottedBlock(nn.Module):
    """Base of the slotted subclasses of residual blocks; each backbone family writes its forward with `residual`."""

    slots: nn.ModuleDict

    def residual(self, branch: str, x: Tensor, y: Tensor) -> Tensor:
        """Add a branch's output `y` to the stream `x` (N, L, D), through the branch's slots.

        ``serial`` maps the operator's output before the add, ``parallel`` maps the branch's input (before its norm)
        and is added too, ``after_add`` maps the sum.
        """
        slots = cast(nn.ModuleDict, self.slots[branch])
        for insert in _inserts(slots, "serial"):
            y = insert(y)
        for insert in _inserts(slots, "parallel"):
            y = y + insert(x)
        x = x + y
        for insert in _inserts(slots, "after_add"):
            x = insert(x)
        return x

    def enter(self, x: Tensor) -> Tensor:
        """The ``before`` slot: maps the whole stream on its way into the block."""
        for insert in _inserts(self.slots, "before"):
            x = insert(x)
        return x


BRANCH_SLOTS = ("serial", "parallel", "after_add")


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


def module_slots(module: nn.Module) -> nn.ModuleDict:
    """The ``before`` and ``after`` slots of any module (and ``delta`` of a linear one), made on first use."""
    if not has_slots(module):
        if isinstance(module, nn.Linear):
            module.slots = nn.ModuleDict({"delta": nn.ModuleList(), "after": nn.ModuleList()})
            object.__setattr__(module, "delta_rows", [])
            _swap_class(module, _SlottedLinear)
        else:
            module.slots = nn.ModuleDict({"before": nn.ModuleList(), "after": nn.ModuleList()})
            _swap_class(module, _SlottedModule)
    return cast(nn.ModuleDict, module.slots)


def block_slots(module: nn.Module, mixin: type[SlottedBlock]) -> nn.ModuleDict:
    """The slots of a residual block, made on first use; `mixin` holds the block family's forward."""
    if not has_slots(module):
        branches = {
            branch: nn.ModuleDict({slot: nn.ModuleList() for slot in BRANCH_SLOTS}) for branch in ("attention", "mlp")
        }
        module.slots = nn.ModuleDict({"before": nn.ModuleList(), **branches})
        _swap_class(module, mixin)
    return cast(nn.ModuleDict, module.slots)


def insert_delta(module: nn.Linear, rows: tuple[int, int], insert: WeightDelta) -> None:
    """Put a weight delta on output rows ``[start, stop)`` of a linear module.

    Raises:
        ValueError: where the rows overlap others that have a delta, but are not the same.
    """
    slots = module_slots(module)
    ranges = cast(_SlottedLinear, module).delta_rows
    deltas = _inserts(slots, "delta")
    if rows in ranges:
        cast(nn.ModuleList, deltas[ranges.index(rows)]).append(insert)
        return
    if any(rows[0] < stop and start < rows[1] for start, stop in ranges):
        raise ValueError(f"rows {rows} overlap another delta's {ranges}")
    position = sum(start < rows[0] for start, _ in ranges)
    ranges.insert(position, rows)
    deltas.insert(position, nn.ModuleList([insert]))


def remove_slots(root: nn.Module) -> None:
    """Give every slotted module below `root` its own class back and drop what was inserted."""
    for module in list(root.modules()):
        if has_slots(module):
            original = getattr(type(module), "unslotted_class", None)
            if original is not None:
                module.__class__ = original
            del module.slots
            module.__dict__.pop("delta_rows", None)


def is_inserted(name: str) -> bool:
    """Whether a parameter's name says that a method inserted it."""
    return "slots" in name.split(".")


Predicate = Callable[[str, nn.Parameter], bool]

"""Where a model was adapted: which parts of its backbone train, and which slots hold something."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import cast

from torch import nn

from ..backbones import Anatomy
from ..backbones.anatomy.parts import Affine, Attention, Block
from ..backbones.anatomy.slots import has_slots, is_inserted
from .adapted_model import AdaptedModel

Places = dict[str, dict[str, int]]
"""By place, then by what happens there: in how many blocks. What is in no block counts once."""

_Rows = tuple[int, int] | None


def places_of(model: AdaptedModel) -> Places:
    """
    A place is a part of a block (``attention.norm``, ``q``, ``k``, ``v``, ``proj``, ``mlp.norm``, ``fc1``, ``fc2``),
    one of its branches (``attention``, ``mlp``), the ``block``, or around the blocks ``stem``, ``tokens`` (class token,
    positions), ``entering``, ``norm``, ``text``, ``head`` and, of what has no name here, ``rest``; parts of a text
    tower's blocks are ``text.q`` and so on. What happens is ``weight``, ``bias`` (it trains), ``entries`` (some of its
    entries do), or the slot that something was put into (``delta``, ``serial``, …: see `Affine`, `Branch` and `Block`).
    """
    known = _Known(model.anatomy)
    found: defaultdict[tuple[str, str], set[int]] = defaultdict(set)
    for place, how, block in (*_trained(model, known), *_inserted(model, known)):
        found[place, how].add(block)
    places: Places = {}
    for (place, how), blocks in sorted(found.items()):
        places.setdefault(place, {})[how] = len(blocks)
    return places


class _Known:
    """The modules of an anatomy that have a place: its name, the rows that it is and the block that it is in."""

    def __init__(self, anatomy: Anatomy) -> None:
        self.affine: defaultdict[int, list[tuple[str, _Rows, int]]] = defaultdict(list)
        self.branches: dict[int, tuple[str, int]] = {}
        self.blocks: dict[int, tuple[str, int]] = {}
        self._add_blocks(anatomy.token_blocks, "")
        around = {"stem": anatomy.patch_embedding, "entering": anatomy.entering, "norm": anatomy.final_norm}
        for place, affine in around.items():
            if affine is not None:
                self._add(place, affine, 0)
        if anatomy.text is not None:
            self._add_blocks(anatomy.text.token_blocks, "text.")

    def _add_blocks(self, blocks: Iterable[Block], prefix: str) -> None:
        for index, block in enumerate(blocks):
            self.blocks[id(block.module)] = (f"{prefix}block", index)
            for branch in block.branches:
                self._add(f"{prefix}{branch.name}.norm", branch.norm, index)
                for name, affine in branch.projections.items():
                    self._add(f"{prefix}{name}", affine, index)
                if isinstance(branch, Attention):
                    self.branches[id(branch.module)] = (f"{prefix}{branch.name}", index)

    def _add(self, place: str, affine: Affine, block: int) -> None:
        self.affine[id(affine.module)].append((place, affine.rows, block))


def _trained(model: AdaptedModel, known: _Known) -> Iterator[tuple[str, str, int]]:
    """Of the backbone's own parameters, and of the head."""
    root, masks = (
        model.anatomy.root,
        {id(p): n for n, p in model.anatomy.named_parameters() if n in model.anatomy.masks},
    )
    modules = dict(root.named_modules())
    for name, parameter in root.named_parameters():
        if is_inserted(name) or not parameter.requires_grad:
            continue
        path, _, leaf = name.rpartition(".")
        mask = model.anatomy.masks.get(masks.get(id(parameter), ""))
        how = "entries" if mask is not None else "bias" if leaf.endswith("bias") else "weight"
        places = known.affine.get(id(modules[path]))
        if places is None:
            yield _around(path, modules, known, model), how, 0
            continue
        for place, rows, block in places:
            if mask is None or rows is None or bool(mask[slice(*rows)].any()):
                yield place, how, block
    if any(parameter.requires_grad for parameter in model.head_parameters()):
        yield "head", "weight", 0


def _around(path: str, modules: dict[str, nn.Module], known: _Known, model: AdaptedModel) -> str:
    """Where a parameter is whose module has no place of its own."""
    if modules[path] is model.anatomy.model:
        return "tokens"
    while path:
        place = known.blocks.get(id(modules[path]))
        if place is not None:
            return place[0]
        path = path.rpartition(".")[0]
    return "rest"


def _inserted(model: AdaptedModel, known: _Known) -> Iterator[tuple[str, str, int]]:
    for module in model.anatomy.root.modules():
        if not has_slots(module):
            continue
        slots = cast(nn.ModuleDict, module.slots)
        for slot in _filled(slots):
            if id(module) in known.blocks:
                place, block = known.blocks[id(module)]
                if slot[0] in ("before", "carry"):
                    yield place, slot[0], block
                else:
                    yield f"{place.removesuffix('block')}{slot[0]}", slot[1], block
            elif id(module) in known.branches:
                place, block = known.branches[id(module)]
                yield place, slot[0], block
            elif id(module) in known.affine:
                places = known.affine[id(module)]
                if slot[0] == "rows" and len(cast(nn.ModuleList, slots["rows"])) > 1:  # one part is all of a fused map
                    places = [each for each in places if _part(each[1]) == int(slot[1])]
                for place, _, block in places:
                    yield place, slot[-1], block
            else:
                yield "text" if module is model.anatomy.root and model.anatomy.text else "rest", slot[0], 0


def _part(rows: _Rows) -> int:
    return 0 if rows is None else rows[0] // (rows[1] - rows[0])


def _filled(slots: nn.Module, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The paths of slots that hold something."""
    for name, child in slots.named_children():
        if isinstance(child, nn.ModuleDict | nn.ModuleList):
            yield from _filled(child, (*path, name))
        else:
            yield path if name.isdigit() else (*path, name)

"""Where a method sits in a transformer block: boxes and lines, as the method's card tells.

The harness finds the places by adapting a small model (`peftmark.methods.places`), so none of this knows a method.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

Kind = Literal["frozen", "trains", "inserted"]


class Places(msgspec.Struct, frozen=True):
    """The fact ``places`` of a method's card."""

    model: str
    blocks: int
    parts: dict[str, dict[str, int]]
    text_blocks: int = 0


_TRAINS = {"weight", "bias", "entries"}

NAMES = {
    "stem": "patch embedding",
    "tokens": "class token, positions",
    "entering": "entry to the blocks",
    "block": "stream of tokens",
    "attention.norm": "norm of attention",
    "q": "queries",
    "k": "keys",
    "v": "values",
    "proj": "output projection",
    "attention": "attention",
    "mlp.norm": "norm of the MLP",
    "fc1": "fc1",
    "fc2": "fc2",
    "mlp": "MLP",
    "norm": "final norm",
    "head": "head",
    "text": "text side",
    "rest": "elsewhere",
}

WORDS = {
    "weight": "weights train",
    "bias": "bias trains",
    "entries": "some entries train",
    "delta": "weight change added",
    "before": "inserted in front",
    "after": "inserted behind",
    "serial": "inserted in the branch",
    "parallel": "inserted beside",
    "parallel_norm": "inserted beside, behind the norm",
    "after_add": "inserted behind the sum",
    "prefix": "more keys and values",
    "query": "queries mapped",
    "carry": "inserted from entry to exit",
    "instead": "replaced",
    "prompt": "prompt learned",
    "image": "image features mapped",
    "logits": "logits mapped",
    "scale": "scale of logits replaced",
}


@dataclass(frozen=True)
class Box:
    x: float
    y: float
    width: float
    height: float
    label: str
    how: str
    kind: Kind

    @property
    def middle(self) -> float:
        return self.x + self.width / 2


@dataclass
class Picture:
    width: int
    height: float = 0.0
    boxes: list[Box] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    """Paths as of SVG."""
    sums: list[tuple[float, float]] = field(default_factory=list)
    frame: tuple[float, float] = (0.0, 0.0)
    """Top and bottom of the block."""
    blocks: int = 0
    chosen: bool = False
    """Whether single entries train, which depends on data."""


def places_of(facts: Mapping[str, Any]) -> Places | None:
    """None where a card does not tell, or tells something else."""
    try:
        return msgspec.convert(facts.get("places"), Places)
    except (msgspec.ValidationError, RecursionError):
        return None


def described(places: Places) -> list[tuple[str, str]]:
    """Each place with what happens there, in words, in the order in which data passes them."""
    lines = []
    for prefix, of, blocks in (("", "", places.blocks), ("text.", " of the text tower", places.text_blocks)):
        for place in (*NAMES, *sorted(set(places.parts) - set(NAMES))):
            hows = places.parts.get(prefix + place)
            if hows is None or (not prefix and place.startswith("text.")):
                continue
            lines.append((f"{NAMES.get(place, place)}{of}", _sentence(hows, blocks)))
    return lines


def _sentence(hows: Mapping[str, int], blocks: int) -> str:
    words = [f"{WORDS.get(how, how)}{_where(count, blocks)}" for how, count in sorted(hows.items(), key=_order)]
    if "weight" in hows and hows["weight"] == hows.get("bias"):
        words[:2] = [f"weights and biases train{_where(hows['weight'], blocks)}"]
    return "; ".join(words)


def _order(item: tuple[str, int]) -> tuple[int, str]:
    known = list(WORDS)
    return (known.index(item[0]) if item[0] in known else len(known), item[0])


def _where(count: int, blocks: int) -> str:
    return f", in {count} of {blocks} blocks" if 1 < count < blocks else ""


_STREAM, _BESIDE, _LEFT, _WIDTH = 60.0, 84.0, 200.0, 216.0
"""Where the stream runs, where boxes beside a branch begin, where a branch's do, and how wide these are."""
_TALL, _GAP = 32.0, 12.0


def draw(places: Places) -> Picture:
    """The picture, from top to bottom."""
    return _Drawing(places).picture


class _Drawing:
    def __init__(self, places: Places) -> None:
        self.parts = places.parts
        chosen = any("entries" in hows for hows in places.parts.values())
        self.picture = Picture(440, blocks=places.blocks, chosen=chosen)
        self.y = 10.0
        for place in ("stem", "tokens"):
            self._on_stream(place, always=place == "stem")
        self._insert_on_stream("entering", "before")
        self._on_stream("entering", always=False)
        top = self.y = self.y + 4
        self.y += 22
        self._insert_on_stream("block", "before")
        entered = self.y
        self._attention()
        self._mlp()
        if "carry" in self._of("block"):
            self._insert_on_stream("block", "carry")
            end = self.y - _GAP - _TALL / 2
            self._line(f"M{_STREAM} {entered}H14V{end}H20")
        self._on_stream("block", always=False)
        self.picture.frame = (top, self.y)
        self.y += 14
        self._insert_on_stream("norm", "before")
        self._on_stream("norm")
        self._insert_on_stream("text", "image")
        if "text" in self.parts or any(part.startswith("text.") for part in self.parts):
            self._text()
        else:
            self._on_stream("head")
        self.picture.height = self.y

    def _of(self, place: str) -> Mapping[str, int]:
        return self.parts.get(place, {})

    def _box(self, x: float, width: float, label: str, how: str, kind: Kind) -> None:
        self.picture.boxes.append(Box(x, self.y, width, _TALL, label, how, kind))

    def _line(self, path: str) -> None:
        self.picture.lines.append(path)

    def _part(self, x: float, width: float, place: str, label: str) -> None:
        """A part of the backbone, with what happens to itself."""
        hows = {how for how in self._of(place) if how in _TRAINS or how in ("delta", "after", "before", "instead")}
        if place in ("norm", "entering", "block"):
            hows -= {"before"}  # a box of its own on the stream
        short = {"weight": "trains", "bias": "bias trains", "entries": "some train", "delta": "+ ΔW"}
        short |= {"after": "→ inserted", "before": "inserted →", "instead": "replaced"}
        if "weight" in hows:
            hows -= {"bias"}
        kind: Kind = "inserted" if hows - _TRAINS else "trains" if hows else "frozen"
        self._box(x, width, label, ", ".join(short[how] for how in short if how in hows), kind)

    def _on_stream(self, place: str, always: bool = True) -> None:
        if not always and not set(self._of(place)) - {"before", "carry"}:
            return
        self._line(f"M{_STREAM} {self.y - _GAP}V{self.y}")
        self._part(20, 130, place, NAMES[place])
        self.y += _TALL + _GAP

    def _insert_on_stream(self, place: str, slot: str) -> None:
        if slot in self._of(place):
            label = {"image": "on features", "carry": "entry to exit"}.get(slot, "on the tokens")
            self._line(f"M{_STREAM} {self.y - _GAP}V{self.y}")
            self._box(20, 130, label, self._count(self._of(place)[slot]), "inserted")
            self.y += _TALL + _GAP

    def _count(self, count: int) -> str:
        return f"{count} of {self.picture.blocks} blocks" if 1 < count < self.picture.blocks else "inserted"

    def _attention(self) -> None:
        start, norm = self._enter_branch("attention")
        third = (_WIDTH - 16) / 3
        for index, place in enumerate("qkv"):
            self._part(_LEFT + index * (third + 8), third, place, place)
        self.y += _TALL + _GAP
        slots = self._of("attention")
        if "query" in slots or "prefix" in slots:
            if "query" in slots:
                self._box(_LEFT, third, "on q", "inserted", "inserted")
            if "prefix" in slots:
                self._box(_LEFT + third + 8, 2 * third + 8, "more keys and values", "inserted", "inserted")
            self.y += _TALL + _GAP
        self._box(_LEFT, _WIDTH, "softmax(q kᵀ) v", "", "frozen")
        self.y += _TALL + _GAP
        self._part(_LEFT, _WIDTH, "proj", "projection")
        self._leave_branch("attention", start, norm)

    def _mlp(self) -> None:
        start, norm = self._enter_branch("mlp")
        for place in ("fc1", "fc2"):
            self._part(_LEFT, _WIDTH, place, place)
            self.y += _TALL + _GAP
        self.y -= _TALL + _GAP
        self._leave_branch("mlp", start, norm)

    def _enter_branch(self, branch: str) -> tuple[float, float]:
        """Returns where the branch leaves the stream, and where its norm ends."""
        start = self.y - _GAP / 2
        self._line(f"M{_STREAM} {self.y - _GAP}V{self.y}")
        middle = _LEFT + _WIDTH / 2
        self._line(f"M{_STREAM} {start}H{middle}V{self.y}")
        self._part(_LEFT, _WIDTH, f"{branch}.norm", "norm")
        self.y += _TALL + _GAP
        return start, self.y - _GAP

    def _leave_branch(self, branch: str, start: float, norm: float) -> None:
        """From the branch's last box to the sum, by way of what is in its slots."""
        slots, middle = self._of(branch), _LEFT + _WIDTH / 2
        self.y += _TALL + _GAP
        if "serial" in slots:
            self._box(_LEFT, _WIDTH, "adapter", "inserted", "inserted")
            self.y += _TALL + _GAP
        total = self.y
        self._line(f"M{middle} {norm}V{total}H{_STREAM + 9}")
        beside = [slot for slot in ("parallel", "parallel_norm") if slot in slots]
        for index, slot in enumerate(beside):
            x = _BESIDE
            self.y = norm + _GAP + index * (_TALL + _GAP)
            self._box(x, 104, "beside", "inserted", "inserted")
            at = x + 52
            if slot == "parallel":
                self._line(f"M{_STREAM} {start}H{at}V{self.y}")
            else:
                self._line(f"M{middle} {norm + _GAP / 2}H{at}V{self.y}")
            self._line(f"M{at} {self.y + _TALL}V{total}H{_STREAM + 9}")
        self._line(f"M{_STREAM} {start}V{total - 9}")
        self.picture.sums.append((_STREAM, total))
        self.y = total + 9 + _GAP
        if "after_add" in slots:
            self._line(f"M{_STREAM} {total + 9}V{self.y}")
            self._box(20, 130, "on the sum", "inserted", "inserted")
            self.y += _TALL + _GAP

    def _text(self) -> None:
        inside = [part for part in self.parts if part.startswith("text.")]
        slots = self._of("text")
        y = self.y
        self._line(f"M{_STREAM} {y - _GAP}V{y}")
        kind: Kind = "inserted" if {"logits", "scale"} & set(slots) else "frozen"
        self._box(20, 130, "image · text", "logits mapped" if kind == "inserted" else "", kind)
        trains = bool(_TRAINS & set(slots))
        touched: Kind = "inserted" if inside else "trains" if trains else "frozen"
        self._line(f"M{_LEFT} {y + _TALL / 2}H150")
        self._box(_LEFT, _WIDTH, "text tower", "see the list" if inside else "trains" if trains else "", touched)
        self.y += _TALL + _GAP
        prompt: Kind = "inserted" if "prompt" in slots else "frozen"
        self._line(f"M{_LEFT + _WIDTH / 2} {self.y}V{self.y - _GAP}")
        self._box(_LEFT, _WIDTH, "prompt", "learned" if prompt == "inserted" else "", prompt)
        self.y += _TALL + _GAP

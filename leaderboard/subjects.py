"""What the board says of methods, backbones and tasks: their cards, and what a name tells where a card is missing."""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..results import Card, CostRecord, RunRecord, read_cards
from ..results.cards import Kind
from ..results.files import CARDS, read_regular
from ..results.store import files_below

TRACKS = {"image": "Image", "openvocab": "Open vocabulary", "video": "Video"}
"""The tracks that are known, in the order in which they are shown."""

FAMILIES = ("baseline", "additive", "selective", "reparameterized", "hybrid", "peft", "openvocab", "video")
"""The families that have a colour of their own; every other one shares that of ``other``."""

GROUPS = ("natural", "specialized", "structured")

_TRACK_OF_FAMILY = {
    **dict.fromkeys(("vtab", "fgvc", "folder", *GROUPS), "image"),
    **dict.fromkeys(("fewshot", "base2new", "cross_dataset", "domain_generalization"), "openvocab"),
    "video": "video",
}


@dataclass(frozen=True)
class Subject:
    """A method, backbone or task, as far as it is known."""

    name: str
    family: str
    doc: str = ""
    origin: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    picture: Path | None = None
    """The picture in the results folder."""

    @property
    def slug(self) -> str:
        return slug(self.name)

    @property
    def short(self) -> str:
        """The name without its family: ``digits`` for ``embedded/digits``."""
        return self.name.rpartition("/")[2] or self.name

    @property
    def colour(self) -> str:
        """The family whose colour this one's has."""
        return self.family if self.family in FAMILIES else "other"

    @property
    def defaults(self) -> dict[str, Any] | None:
        """Of a method: its default configuration, where the card says it."""
        value = self.facts.get("defaults", self.facts.get("config"))
        return value if isinstance(value, dict) else None

    def number(self, fact: str) -> float | None:
        value = self.facts.get(fact)
        return value if isinstance(value, int | float) and not isinstance(value, bool) else None

    @property
    def chance(self) -> float | None:
        return self.number("chance_percent")

    @property
    def track(self) -> str:
        """Of a task: ``image``, ``openvocab``, ``video``, or the name's family where nothing tells."""
        name_family = self.name.partition("/")[0]
        stated = self.facts.get("track")
        for clue in (stated if isinstance(stated, str) else "", self.family, name_family):
            key = re.sub(r"[^a-z0-9]", "", clue.lower())
            key = "openvocab" if key.startswith("openvocab") else key
            if key in TRACKS:
                return key
            if clue.lower() in _TRACK_OF_FAMILY:
                return _TRACK_OF_FAMILY[clue.lower()]
        return name_family

    @property
    def picture_name(self) -> str:
        """The picture's name in the site."""
        return f"{self.slug}.png"


class Subjects:
    """The methods, backbones and tasks that some records mention, and no others."""

    def __init__(self, root: Path, records: Iterable[RunRecord], costs: Iterable[CostRecord] = ()) -> None:
        records, costs = list(records), list(costs)
        methods = {record.spec.method.name for record in records} | {cost.spec.method.name for cost in costs}
        backbones = {*(record.spec.backbone.name for record in records), *(cost.spec.backbone for cost in costs)}
        self.methods = _subjects(root, "methods", methods, family="other")
        self.backbones = _subjects(root, "backbones", backbones)
        self.tasks = _subjects(root, "tasks", {record.spec.task.name for record in records})


def families_in_order(families: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Names and colours of families, each once."""
    return sorted(set(families), key=lambda family: (place(family[0], FAMILIES), family))


def place(item: str, order: Sequence[str]) -> int:
    """Where an item comes in an order; what is not in it comes last."""
    return order.index(item) if item in order else len(order)


def slug(name: str) -> str:
    """A name as a file name or anchor, of 120 characters at most; names that differ never become the same.

    >>> slug("lora"), slug("embedded/digits")
    ('lora', 'embedded__digits')
    >>> slug("../x y")
    '____x_y-46c740'
    """
    safe = re.sub(r"[^A-Za-z0-9_.-]", "_", name.replace("/", "__")).replace("..", "__")
    if len(safe) > 100:
        safe = f"{safe[:100]}_"
    if name.replace("/", "__") == safe and "__" not in name and not safe.startswith("."):
        return safe
    return f"{safe.replace('.', '_')}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def _subjects(root: Path, kind: Kind, names: set[str], family: str | None = None) -> dict[str, Subject]:
    cards = read_cards(root, kind)
    subjects: dict[str, Subject] = {}
    for name in sorted(names):
        card = cards.get(name)
        if card is None:
            subjects[name] = Subject(name, family or name.partition("/")[0])
        else:
            doc = inspect.cleandoc(card.doc)
            subjects[name] = Subject(name, card.family, doc, card.origin, card.facts, _picture(root, kind, card))
    return subjects


def _picture(root: Path, kind: Kind, card: Card) -> Path | None:
    """The card's PNG, if it is one and lies where it should: a card is not trusted to name any file it likes."""
    if card.picture is None:
        return None
    for path in files_below(root, f"{CARDS}/{kind}", ".png"):
        with suppress(OSError):
            if path.name == card.picture and read_regular(path).startswith(b"\x89PNG\r\n\x1a\n"):
                return path
    return None

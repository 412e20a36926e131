"""What the board shows of a method, backbone or task: the harness writes it beside the records, plug-ins' too.

``<results>/cards/<kind>/<name>.json`` (slashes in names become ``__``); a task's sample picture lies next to its card.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Literal

import msgspec

from ..errors import PeftmarkError
from .files import CARDS, holds, read_regular, write_atomically
from .nesting import check_nesting
from .record import canonical_json
from .store import files_below

Kind = Literal["methods", "backbones", "tasks"]
KINDS: tuple[Kind, ...] = ("methods", "backbones", "tasks")


class Card(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    family: str
    """A method's or backbone's family; a task's group (natural, specialized, structured, …)."""
    doc: str
    origin: str
    facts: dict[str, Any] = {}
    """Of a task: track, metric, its objective's facts (num_classes), n_train, n_validation, n_test, tests and, where
    it is known, chance_percent; else metadata."""
    picture: str | None = None
    """File name of a PNG beside the card."""


def card_path(root: Path, kind: Kind, name: str) -> Path:
    return root / CARDS / kind / f"{name.replace('/', '__')}.json"


def write_card(root: Path, kind: Kind, card: Card, picture: bytes | None = None) -> None:
    """Write a card where it is new or changed."""
    path = card_path(root, kind, card.name)
    if picture is not None:
        card = msgspec.structs.replace(card, picture=path.with_suffix(".png").name)
        write_atomically(path.with_suffix(".png"), picture)
    data = msgspec.json.format(msgspec.json.encode(card), indent=1) + b"\n"
    if not holds(path, data):
        write_atomically(path, data)


def write_manifest(root: Path, manifest: dict[str, Any]) -> None:
    """Write what a drawn split consists of, once: ``<results>/cards/manifests/<sha256 of the file>.json``.

    The sha256 is the ``split_sha256`` of the records.
    """
    data = canonical_json(manifest)
    path = root / CARDS / "manifests" / f"{hashlib.sha256(data).hexdigest()}.json"
    if not path.exists():
        write_atomically(path, data)


def read_cards(root: Path, kind: Kind) -> dict[str, Card]:
    """Cards by name, from `root` and then its sub-folders; a damaged one is passed over (the next run rewrites it)."""
    cards: dict[str, Card] = {}
    for path in files_below(root, f"{CARDS}/{kind}", ".json"):
        card = read_card(path)
        if card is not None:
            cards.setdefault(card.name, card)
    return cards


def read_card(path: Path) -> Card | None:
    """The card in a file, None where it is damaged, or no such file."""
    try:
        card = msgspec.json.decode(read_regular(path), type=Card)
        check_nesting(path, card.facts)
    except (OSError, PeftmarkError, RecursionError, msgspec.DecodeError, UnicodeDecodeError):
        return None
    return card

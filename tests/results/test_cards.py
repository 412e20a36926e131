"""Cards: what the board shows of a method, backbone or task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from peftmark.results import Card, Store, read_cards, write_card

CARD = Card(name="mine/digits", family="natural", doc="Digits.", origin="/home/me/mine.py", facts={"track": "image"})


def test_round_trip_with_a_picture(tmp_path: Path) -> None:
    write_card(tmp_path, "tasks", CARD, b"png")
    [card] = read_cards(tmp_path, "tasks").values()
    assert card.picture == "mine__digits.png"
    assert (tmp_path / "cards" / "tasks" / "mine__digits.png").read_bytes() == b"png"
    assert (card.name, card.family, card.doc, card.origin, card.facts) == (
        CARD.name,
        CARD.family,
        CARD.doc,
        CARD.origin,
        CARD.facts,
    )
    assert read_cards(tmp_path, "methods") == {}
    assert Store(tmp_path).load() == ([], [])


def test_only_a_changed_card_is_written(tmp_path: Path) -> None:
    path = tmp_path / "cards" / "methods" / "mine__digits.json"
    write_card(tmp_path, "methods", CARD)
    before = path.stat().st_ino
    write_card(tmp_path, "methods", CARD)
    assert path.stat().st_ino == before
    write_card(tmp_path, "methods", Card(name=CARD.name, family="new", doc="", origin=""))
    assert read_cards(tmp_path, "methods")[CARD.name].family == "new"


def test_cards_of_subfolders_are_read_and_damaged_ones_passed_over(tmp_path: Path) -> None:
    write_card(tmp_path / "suite", "methods", CARD)
    folder = tmp_path / "cards" / "methods"
    folder.mkdir(parents=True)
    (folder / "half.json").write_text('{"name": "half')
    (folder / "list.json").write_bytes(b"[\xff]")
    assert read_cards(tmp_path, "methods") == {CARD.name: CARD}


@pytest.mark.parametrize("levels", [33, 300, 980, 100_000])
def test_what_is_nested_too_deep_is_no_card(tmp_path: Path, levels: int) -> None:
    write_card(tmp_path, "methods", CARD)
    [path] = (tmp_path / "cards" / "methods").iterdir()
    path.write_text(path.read_text().replace('"image"', "[" * levels + "]" * levels))
    assert read_cards(tmp_path, "methods") == {}


def test_what_is_no_file_is_no_card(tmp_path: Path, special: Any) -> None:
    write_card(tmp_path, "methods", CARD)
    special.make(tmp_path / "cards" / "methods" / "x.json")
    assert read_cards(tmp_path, "methods") == {CARD.name: CARD}


def test_what_is_no_file_in_a_card_s_place_is_replaced(tmp_path: Path, special: Any) -> None:
    """But a folder, which is not ours to delete."""
    path = tmp_path / "cards" / "methods" / "mine__digits.json"
    path.parent.mkdir(parents=True)
    special.make(path)
    if path.is_dir():
        with pytest.raises(IsADirectoryError):
            write_card(tmp_path, "methods", CARD)
    else:
        write_card(tmp_path, "methods", CARD)
        assert read_cards(tmp_path, "methods") == {CARD.name: CARD}

"""Cards: what the board shows of a method, backbone or task."""

from __future__ import annotations

from pathlib import Path

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

"""Records from elsewhere: each thing that can be wrong with one, and what merging does and does not do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from peftmark import results
from peftmark.results import (
    BackboneSpec,
    Card,
    Params,
    RunRecord,
    RunSpec,
    Storage,
    Store,
    encode_record,
    write_card,
)
from peftmark.results.store import ADAPTERS
from peftmark.results.validation import check_adapters, check_costs, check_runs, merge

Make = Callable[..., RunRecord]
PNG = b"\x89PNG\r\n\x1a\n and so on"


def changed(record: RunRecord, **quality: Any) -> RunRecord:
    assert record.quality is not None
    return msgspec.structs.replace(record, quality=msgspec.structs.replace(record.quality, **quality))


def problems(root: Path, record: RunRecord) -> list[str]:
    Store(root).write(record)
    checked = check_runs(Store(root))
    assert len(checked.records) == (not checked.problems)
    path = f"{root / record.run_id}.json: "
    assert all(problem.startswith(path) and "\n" not in problem for problem in checked.problems)
    return [problem.removeprefix(path) for problem in checked.problems]


def test_a_sound_record_has_no_problems(record: Make, tmp_path: Path) -> None:
    assert problems(tmp_path, record()) == []
    assert problems(tmp_path / "failed", record(status="oom", params=None, storage=None)) == []


@pytest.mark.parametrize(
    ("quality", "problem"),
    [
        ({"test": 100.5}, "test is 100.5, which is no percentage"),
        ({"test": -0.1}, "test is -0.1, which is no percentage"),
        ({"validation": 4000.0}, "validation is 4000.0, which is no percentage"),
        ({"predictions_sha256": ""}, "the predictions' hash '' is no sha256"),
        ({"predictions_sha256": "EF" * 32}, f"the predictions' hash '{'EF' * 32}' is no sha256"),
        ({"tests": {}}, "tests need at least one figure, each of at least one example"),
        ({"n_test": 9}, "n_test is 9, but its tests have 8 examples"),
        ({"tests": {"test": results.TestFigure(value=101.0, n=8)}}, "tests.test is 101.0, which is no percentage"),
    ],
)
def test_what_is_wrong_with_figures(record: Make, tmp_path: Path, quality: dict[str, Any], problem: str) -> None:
    assert problems(tmp_path, changed(record(), **quality)) == [problem]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"params": None}, "a record of status ok has params and storage"),
        ({"created": "yesterday"}, "created is 'yesterday', which is no time (ISO 8601)"),
        (
            {"created": "2026-11-24T05:00:00"},
            "created is '2026-11-24T05:00:00', which has no time zone (UTC is +00:00)",
        ),
        ({"storage": Storage(adapter_bytes=-1)}, "adapter_bytes must not be negative"),
        (
            {"params": Params(trainable=20, trainable_without_head=30, stored=20, added_at_inference=0, total=120)},
            "parameters must be: 0 ≤ trainable without head ≤ trainable ≤ total",
        ),
        ({"status": "oom", "error": None}, "a record has an error if and only if its status is not ok"),
    ],
)
def test_what_is_wrong_with_the_rest(record: Make, tmp_path: Path, changes: dict[str, Any], problem: str) -> None:
    assert problems(tmp_path, record(**changes)) == [problem]


def test_specs_that_no_harness_makes(record: Make, spec: RunSpec, tmp_path: Path) -> None:
    replace = msgspec.structs.replace
    untold = replace(spec, protocol=replace(spec.protocol, overrides={"epochs": 1}))
    assert problems(tmp_path / "a", record(untold)) == [
        "its protocol was changed, and it does not say so (protocol_deviation)"
    ]
    assert problems(tmp_path / "b", record(untold, protocol_deviation="one epoch")) == []
    weights = replace(spec, backbone=BackboneSpec(name="embedded/vit", weights="latest"), seed=-1)
    assert problems(tmp_path / "c", record(weights)) == [
        "the weights' hash 'latest' is no sha256",
        "seed and trial must not be negative",
    ]


def test_names_and_duplicates(record: Make, tmp_path: Path) -> None:
    one = record()
    path = Store(tmp_path).write(one)
    path.rename(tmp_path / "best.json")
    assert check_runs(Store(tmp_path)).problems == [
        f"{tmp_path / 'best.json'}: its name is not its id: rename it to {one.run_id}.json"
    ]
    (tmp_path / "best.json").rename(path)
    for folder, other in (("again", one), ("other", changed(one, test=50.0))):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / path.name).write_bytes(encode_record(other))
    checked = check_runs(Store(tmp_path))
    assert list(checked.records) == [one.run_id]
    assert checked.problems == [
        f"{tmp_path / 'again' / path.name}: {path} holds the same record: delete one of the two",
        f"{tmp_path / 'other' / path.name}: {path} holds another record of the same spec: delete one of the two",
    ]


def test_files_that_are_no_records(record: Make, tmp_path: Path) -> None:
    Store(tmp_path).write(record())
    (tmp_path / "notes.json").write_text("{")
    data = encode_record(record()).replace(b'"seed": 3', b'"seed": 4')
    (tmp_path / "0123456789abcdef.json").write_bytes(data)
    checked = check_runs(Store(tmp_path))
    assert len(checked.records) == 1
    assert [problem.partition(" ")[0] for problem in checked.problems] == [
        f"{tmp_path / '0123456789abcdef.json'}:",
        f"{tmp_path / 'notes.json'}",
    ]
    assert "is not that of its spec" in checked.problems[0]


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ('"schema_version": 1,', '"status": "error", "schema_version": 1,', "status"),
        ('"rank": 8', '"rank": 64, "rank": 8', "rank"),
        ('"test": 87.5,', '"test": 99.0, "test": 87.5,', "test"),
        ('"found": {}', '"found": {"x": [{"y": 1, "y": 1}]}', "y"),
        ('"found": {}', f'"found": {"[" * 990 + "]" * 990}, "found": {{}}', ""),
    ],
)
def test_a_key_that_is_there_twice_hides_a_value(record: Make, tmp_path: Path, old: str, new: str, key: str) -> None:
    path = Store(tmp_path).write(record())
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))
    checked = check_runs(Store(tmp_path))
    assert checked.records == {}
    [problem] = checked.problems
    assert problem.startswith(f"{path} is not a record: ")
    assert not key or problem.endswith(f"the key {key!r} is there twice")


def merged(source: Path, into: Path) -> Any:
    there = Store(source)
    return merge(there, Store(into), check_runs(there), check_costs(there))


def test_merging_copies_once_and_overwrites_nothing(record: Make, spec: RunSpec, tmp_path: Path) -> None:
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    one, two = record(), record(msgspec.structs.replace(spec, seed=4))
    Store(theirs / "suite").write(one)
    Store(theirs).write(two)
    kept = Store(ours).write(changed(two, test=50.0, tests={"test": results.TestFigure(value=50.0, n=8)}))
    before = kept.read_bytes()
    found = merged(theirs, ours)
    assert (found.runs, found.known) == (1, 0)
    assert (ours / f"{one.run_id}.json").read_bytes() == encode_record(one)
    assert kept.read_bytes() == before
    assert found.problems == [
        f"{theirs / kept.name}: {kept} is another record of the same spec (test 50.00, not 87.50); it is kept"
    ]
    again = merged(theirs, ours)
    assert (again.runs, again.known, again.problems) == (0, 1, found.problems)
    Store(ours).write(msgspec.structs.replace(two, created="2026-11-25T05:00:00+00:00"))
    [repeated] = merged(theirs, ours).problems
    assert "with the same predictions, made 2026-11-25" in repeated


def test_a_damaged_record_of_one_s_own_is_not_overwritten(record: Make, tmp_path: Path) -> None:
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    path = Store(theirs).write(record())
    ours.mkdir()
    (ours / path.name).write_text("{")
    assert merged(theirs, ours).problems == [f"{path}: {ours / path.name} is there and is not sound; it is kept"]
    assert (ours / path.name).read_text() == "{"


def test_unsound_records_are_not_merged(record: Make, tmp_path: Path) -> None:
    Store(tmp_path / "theirs").write(changed(record(), test=101.0))
    assert merged(tmp_path / "theirs", tmp_path / "ours").runs == 0
    assert not (tmp_path / "ours").exists()


def test_adapters_go_with_their_records(record: Make, tmp_path: Path) -> None:
    theirs, ours, one = tmp_path / "theirs", tmp_path / "ours", record()
    Store(theirs).write(one)
    adapters = theirs / ADAPTERS
    adapters.mkdir()
    (adapters / f"{one.run_id}.safetensors").write_bytes(b"x" * 240)
    (adapters / "stray.safetensors").write_bytes(b"x")
    found = merged(theirs, ours)
    assert found.adapters == 1
    assert found.problems == [
        f"{adapters / 'stray.safetensors'}: there is no sound record stray.json that it belongs to"
    ]
    kept = ours / ADAPTERS / f"{one.run_id}.safetensors"
    assert kept.read_bytes() == b"x" * 240
    kept.write_bytes(b"y" * 240)
    assert "is another adapter" in merged(theirs, ours).problems[-1]
    assert kept.read_bytes() == b"y" * 240
    (adapters / f"{one.run_id}.safetensors").write_bytes(b"x" * 239)
    lines = check_adapters(Store(theirs), check_runs(Store(theirs)).records).problems
    assert "it has 239 bytes, its record says otherwise" in lines[0]


@pytest.mark.parametrize("side", ["theirs", "ours"])
def test_what_is_no_file_is_neither_merged_nor_overwritten(
    record: Make, spec: RunSpec, tmp_path: Path, special: Any, side: str
) -> None:
    """A record, an adapter, a file of predictions, a card and its picture, there or here."""
    other = record(msgspec.structs.replace(spec, seed=4), storage=Storage(adapter_bytes=0))
    if side == "theirs":
        Store(tmp_path / "theirs").write(other)
    card = Card(name="lora", family="y", doc="", origin="")
    places = ["x.json", f"adapters/{other.run_id}.safetensors", f"predictions/{other.run_id}.npz"]
    places += ["cards/tasks/embedded__digits.json", "cards/methods/lora.png"]
    if side == "ours":
        Store(tmp_path / "theirs").write(other)
        write_card(tmp_path / "theirs", "tasks", Card(name="embedded/digits", family="z", doc="", origin=""))
        (tmp_path / "theirs" / "adapters").mkdir()
        (tmp_path / "theirs" / "adapters" / f"{other.run_id}.safetensors").touch()
        places[0] = f"{other.run_id}.json"
    write_card(tmp_path / "theirs", "methods", card, PNG if side == "ours" else None)
    if side == "theirs":
        folder = tmp_path / "theirs" / "cards" / "methods"
        (folder / "lora.json").write_text((folder / "lora.json").read_text().replace("null", '"lora.png"'))
    for place in places:
        path = tmp_path / side / place
        path.parent.mkdir(parents=True, exist_ok=True)
        special.make(path)
    before = {path: path.lstat().st_ino for path in (tmp_path / side).rglob("*")}
    found = merged(tmp_path / "theirs", tmp_path / "ours")
    after = {path: path.lstat().st_ino for path in (tmp_path / side).rglob("*")}
    assert before.items() <= after.items()
    assert (found.adapters, found.predictions) == (0, 0)
    if side == "theirs":
        assert (found.runs, found.cards) == (1, 1)
        assert [path.name for path in (tmp_path / "ours").rglob("*") if path.is_file()] == [
            f"{other.run_id}.json",
            "lora.json",
        ]
        lines = check_runs(Store(tmp_path / "theirs")).problems
        assert len(lines) == 1 and lines[0].startswith(f"{tmp_path / 'theirs' / 'x.json'} cannot be read (")
    else:
        assert found.runs == 0
        assert any("lora.png is there without its card; it is kept" in problem for problem in found.problems)
        assert any(f"{places[0]} is there and is not sound; it is kept" in problem for problem in found.problems)


def test_cards_and_their_pictures_are_copied_where_there_are_none(record: Make, tmp_path: Path) -> None:
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    Store(theirs).write(record())
    write_card(theirs, "tasks", Card(name="embedded/digits", family="natural", doc="Theirs.", origin="x"), PNG)
    write_card(theirs, "methods", Card(name="lora", family="y", doc="Theirs.", origin="x"))
    write_card(ours, "methods", Card(name="lora", family="y", doc="Ours.", origin="x"))
    (theirs / "cards" / "methods" / "full.json").write_text('{"name": "linear"')
    found = merged(theirs, ours)
    assert found.cards == 1
    assert found.problems == [f"{theirs / 'cards' / 'methods' / 'full.json'} is not the card that its name says"]
    assert (ours / "cards" / "tasks" / "embedded__digits.png").read_bytes() == PNG
    assert "Ours." in (ours / "cards" / "methods" / "lora.json").read_text()


def test_a_card_cannot_name_a_picture_elsewhere(record: Make, tmp_path: Path) -> None:
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    Store(theirs).write(record())
    (tmp_path / "secret.png").write_bytes(PNG)
    card = Card(name="embedded/digits", family="natural", doc="", origin="", picture="../../../secret.png")
    write_card(theirs, "tasks", card)
    assert merged(theirs, ours).cards == 1
    assert not list(ours.rglob("*.png"))

"""``peftmark validate``: exit statuses and lines. What is checked is in results/test_validation.py."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import peftmark

Invoke = Callable[..., Any]
REFERENCE = Path(peftmark.__file__).parent / "results" / "records"
needs_checkout = pytest.mark.skipif(not REFERENCE.is_dir(), reason="records are not in the wheel")


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """Three reference records of runs and one of a cost, as a colleague sends them."""
    folder = tmp_path / "theirs"
    (folder / "costs").mkdir(parents=True)
    for path in sorted((REFERENCE / "embedded").glob("*.json"))[:3]:
        shutil.copy(path, folder)
    shutil.copy(next(iter(sorted((REFERENCE / "embedded" / "costs").glob("*.json")))), folder / "costs")
    return folder


@needs_checkout
@pytest.mark.parametrize("folder", ["embedded", "embedded-full", "efficiency"])
def test_the_reference_records_are_sound(invoke: Invoke, folder: str) -> None:
    ended = invoke("validate", REFERENCE / folder)
    assert (ended.code, ended.err, len(ended.lines)) == (0, "", 1)
    assert ended.lines[0].endswith("are sound; no problems")


@needs_checkout
def test_merging(invoke: Invoke, theirs: Path, tmp_path: Path) -> None:
    ours = tmp_path / "ours"
    ended = invoke("validate", theirs, "--into", ours)
    assert (ended.code, ended.lines) == (
        0,
        [
            "3 runs and 1 cost records are sound; copied 3 runs, 1 cost records, 0 adapters, 0 files of predictions "
            f"and 0 cards into {ours}, 0 were there; no problems"
        ],
    )
    assert len(peftmark.load_results(ours)) == 3 and len(peftmark.load_costs(ours)) == 1
    again = invoke("validate", theirs, "--into", ours)
    assert again.code == 0 and "copied 0 runs, 0 cost records" in again.out and "4 were there" in again.out


@needs_checkout
def test_problems_are_lines_and_status_1_and_what_is_sound_is_merged(
    invoke: Invoke, theirs: Path, tmp_path: Path
) -> None:
    path = min(theirs.glob("*.json"))
    path.write_text(path.read_text().replace('"predictions_sha256": "', '"predictions_sha256": "x'))
    ended = invoke("validate", theirs, "--into", tmp_path / "ours")
    assert ended.code == 1
    assert len(ended.lines) == 2
    assert ended.lines[0].startswith(f"{path}: the predictions' hash 'x")
    assert ended.lines[1].startswith("2 runs and 1 cost records are sound") and ended.lines[1].endswith("; 1 problem")
    assert len(peftmark.load_results(tmp_path / "ours")) == 2


@needs_checkout
def test_mistakes_are_one_line(invoke: Invoke, theirs: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for arguments, message in (
        (["missing"], "no results folder missing: name one that holds records"),
        (["empty"], "no records in empty: name a folder that holds some"),
        (["theirs", "--into", "theirs"], "--into theirs: it must not lie in theirs, nor theirs in it"),
        (["theirs", "--into", "theirs/more"], "--into theirs/more: it must not lie in theirs, nor theirs in it"),
        (["theirs", "--into", "."], "--into .: it must not lie in theirs, nor theirs in it"),
    ):
        ended = invoke("validate", *arguments)
        assert (ended.code, ended.out) == (2, "")
        assert ended.one_line() == f"peftmark: {message}"

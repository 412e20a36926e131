"""``peftmark validate``: exit statuses and lines. What is checked is in results/test_validation.py."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
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
@pytest.mark.parametrize("folder", ["embedded", "embedded-full", "embedded-tuned", "efficiency"])
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
def test_what_is_no_file_is_a_line(command: Invoke, theirs: Path, tmp_path: Path, special: Any) -> None:
    """Anywhere in a folder; nothing waits for it."""
    runs = sorted(theirs.glob("*.json"))
    made = ["x.json", "costs/y.json", f"predictions/{runs[0].stem}.npz", f"adapters/{runs[0].stem}.safetensors"]
    for name in (*made, "cards/methods/lora.json", "cards/tasks/x.json", "notes.txt"):
        (theirs / name).parent.mkdir(parents=True, exist_ok=True)
        special.make(theirs / name)
    ended = command("validate", "theirs", timeout=60)
    assert (ended.code, ended.err) == (1, "")
    assert ended.lines[-1] == "3 runs and 1 cost records are sound; 4 problems"
    for name, line in zip(("x.json", "costs/y.json"), ended.lines, strict=False):
        assert line.startswith(f"theirs/{name} cannot be read ({special.reason}")
    assert ended.lines[2].startswith(f"theirs/{made[3]}: it ")
    assert ended.lines[3].startswith(f"theirs/{made[2]} ")
    into = command("validate", "theirs", "--into", "ours", timeout=60)
    assert (into.code, into.err) == (1, "")
    assert len(peftmark.load_results(tmp_path / "ours")) == 3
    board = command("board", "--results", "theirs", "--out", "page", timeout=60)
    assert board.code == 0
    assert board.err == f"2 files could not be read and are left out; why: {Path('page', 'left_out.html')}\n"
    assert special.reason in (tmp_path / "page" / "index.html").read_text()


@needs_checkout
def test_names_that_are_no_text(command: Invoke, theirs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of files, of a folder of records and of one for the board: lines show the bytes."""
    monkeypatch.setenv("PYTHONIOENCODING", "utf-8:strict")  # as a language has it; not C, which is what tests may have
    path = min(theirs.glob("*.json"))
    path.rename(theirs / os.fsdecode(b"\xff.json"))
    (theirs / os.fsdecode(b"\xfe.json")).write_text("{")
    named = theirs.rename(tmp_path / os.fsdecode(b"\xfd"))
    ended = command("validate", named)
    assert (ended.code, ended.err) == (1, "")
    assert [line.rpartition("/")[2].partition(".json")[0] for line in ended.lines[:-1]] == [r"\udcfe", r"\udcff"]
    into = command("validate", named, "--into", os.fsdecode(b"ours\xfc"))
    assert (into.code, into.err, len(into.lines)) == (1, "", 3)
    board = command("board", "--results", named, "--out", os.fsdecode(b"page\xfc"))
    assert (board.code, board.err[:54]) == (0, "1 file could not be read and is left out; why: page\\udcfc"[:54])
    assert r"\udcfe.json is not a record" in (tmp_path / os.fsdecode(b"page\xfc") / "index.html").read_text()
    for option in (["run", "--suite"], ["run", "--import"], ["board", "--results"], ["validate"]):
        ended = command(*option, os.fsdecode(b"\xff.toml"))
        assert (ended.code, ended.out) == (2, "")
        assert r"\udcff.toml" in ended.one_line()


@needs_checkout
def test_folders_of_any_depth(invoke: Invoke, theirs: Path, tmp_path: Path) -> None:
    here = os.open(theirs, os.O_RDONLY)  # its path is too long for one call
    for _ in range(1100):
        os.mkdir("x", dir_fd=here)
        inner = os.open("x", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    try:
        for words in (["validate", "theirs"], ["validate", "theirs", "--into", "ours"]):
            ended = invoke(*words)
            assert (ended.code, ended.err) == (0, "")
        assert invoke("board", "--results", "theirs").code == 0
    finally:
        subprocess.run(["rm", "-r", theirs], check=True)  # shutil calls itself for every level


@needs_checkout
def test_a_text_of_any_length_is_a_line_of_some(invoke: Invoke, theirs: Path) -> None:
    path = min(theirs.glob("*.json"))
    path.write_text(re.sub('"created": "[^"]*"', f'"created": "{"x" * 100_000}"', path.read_text()))
    ended = invoke("validate", theirs)
    assert (ended.code, len(ended.lines)) == (1, 2)
    assert ended.lines[0].startswith(f"{path}: created is 'xxx") and len(ended.lines[0]) < 3000


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

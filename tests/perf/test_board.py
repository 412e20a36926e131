"""The board: against decoding the records that it is made of, and how its time grows with them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest

from peftmark.leaderboard import build_board
from peftmark.results import RunRecord, Store
from peftmark.tools.many_records import write_many

RECORDS = Path(__file__).parents[2] / "results" / "records" / "embedded-full"


def write(records: list[RunRecord], folder: Path) -> Path:
    for record in records:
        Store(folder).write(record)
    return folder


def as_if(record: RunRecord, kind: str) -> RunRecord:
    """The same record as if another method, or another seed, had given it."""
    method = msgspec.structs.replace(record.spec.method, name=f"{record.spec.method.name}_again")
    spec = msgspec.structs.replace(record.spec, **{"method": {"method": method}, "seed": {"seed": 1}}[kind])
    return msgspec.structs.replace(record, spec=spec, run_id=spec.run_id)


def test_board_against_decoding(compare, tmp_path: Path) -> None:
    compare(lambda: build_board(RECORDS, tmp_path / "board"), lambda: Store(RECORDS).load(), target=None, pairs=5)


@pytest.mark.parametrize("kind", ["method", "seed"])
def test_board_of_twice_the_records(compare, kind: str, tmp_path: Path) -> None:
    """Half of the methods against these and as many others, or the same with two seeds."""
    records = Store(RECORDS).load()[0]
    names = sorted({record.spec.method.name for record in records})[::2]
    records = [record for record in records if record.spec.method.name in names]
    one = write(records, tmp_path / "one")
    two = write(records + [as_if(record, kind) for record in records], tmp_path / "two")
    compare(
        lambda: build_board(two, tmp_path / "board of two"),
        lambda: build_board(one, tmp_path / "board of one"),
        target=2.2,
        pairs=5,
    )


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Mapping[int, Path]:
    folders = {n: tmp_path_factory.mktemp(f"of_{n}") for n in (10_000, 100_000)}
    for n, folder in folders.items():
        write_many(folder, n)
    return folders


def test_board_of_10_000_against_decoding(compare, many: Mapping[int, Path], tmp_path: Path) -> None:
    """All that a board is made of, drawn and written, in the time in which its records are read some times."""
    folder = many[10_000]
    compare(lambda: build_board(folder, tmp_path / "board"), lambda: Store(folder).load(), target=10, pairs=3)


def test_board_of_100_000_against_10_000(compare, many: Mapping[int, Path], tmp_path: Path) -> None:
    """90 seconds in place of 10."""
    compare(
        lambda: build_board(many[100_000], tmp_path / "board of many"),
        lambda: build_board(many[10_000], tmp_path / "board of fewer"),
        target=9,
        pairs=1,
        warmup=0,
    )

"""The board: against decoding the records that it is made of, and how its time grows with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from peftmark.leaderboard import build_board
from peftmark.results import RunRecord, Store

RECORDS = Path(__file__).parents[2] / "results" / "records" / "embedded-full"


@pytest.fixture(scope="module")
def records() -> list[RunRecord]:
    return Store(RECORDS).load()[0]


def write(records: list[RunRecord], folder: Path) -> Path:
    for record in records:
        Store(folder).write(record)
    return folder


def of_seed(record: RunRecord, seed: int) -> RunRecord:
    """The same as if another seed had given it."""
    spec = msgspec.structs.replace(record.spec, seed=seed)
    return msgspec.structs.replace(record, spec=spec, run_id=spec.run_id)


def half_of_the_methods(records: list[RunRecord]) -> list[RunRecord]:
    kept = sorted({record.spec.method.name for record in records})[::2]
    return [record for record in records if record.spec.method.name in kept]


def test_board_against_decoding(compare, tmp_path: Path) -> None:
    compare(lambda: build_board(RECORDS, tmp_path / "board"), lambda: Store(RECORDS).load(), target=None, pairs=5)


@pytest.mark.parametrize(
    "halve",
    [half_of_the_methods, lambda records: [record for record in records if record.spec.seed == 0]],
    ids=["methods", "seeds"],
)
def test_board_of_twice_as_many(
    compare, halve: Callable[[list[RunRecord]], list[RunRecord]], records: list[RunRecord], tmp_path: Path
) -> None:
    twice = records if halve is half_of_the_methods else records + [of_seed(record, 1) for record in records]
    one, two = write(halve(twice), tmp_path / "one"), write(twice, tmp_path / "two")
    compare(
        lambda: build_board(two, tmp_path / "two.board"),
        lambda: build_board(one, tmp_path / "one.board"),
        target=2.2,
        pairs=5,
    )

"""``peftmark figures``: what it prints, and what its mistakes say. What is drawn is in leaderboard/drawings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import peftmark

Invoke = Callable[..., Any]
RECORDS = Path(peftmark.__file__).parent / "results" / "records" / "embedded"

pytestmark = pytest.mark.skipif(not RECORDS.is_dir(), reason="records are not in the wheel")


def test_both_widths_in_three_formats(invoke: Invoke, tmp_path: Path) -> None:
    ended = invoke("figures", "--results", RECORDS, "--out", "out", "--x", "stored", "--y", "task:embedded/digits")
    assert (ended.code, ended.err) == (0, "")
    name = "image-embedded__vit-embedded-1-task.embedded__digits-stored"
    kinds = ("svg", "pdf", "png")
    assert ended.lines == [f"out/{name}-{width}.{kind}" for width in ("column", "text") for kind in kinds]
    assert all((tmp_path / line).stat().st_size > 5_000 for line in ended.lines)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (["--table", "nowhere"], "no table 'nowhere': there are Image · embedded/vit · embedded, version 1"),
        (["--x", "weight"], "--x is one of"),
        (["--y", "task:nothing"], "--y one of group:natural"),
        (["--out", __file__], "cannot write figures to"),
        (["--results", "nowhere"], "no results folder nowhere"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_mistakes_are_one_line(invoke: Invoke, wrong: list[str], says: str) -> None:
    ended = invoke("figures", "--results", RECORDS, *wrong)
    assert ended.code == 2 and says in ended.err and len(ended.err.splitlines()) == 1

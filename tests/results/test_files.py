"""How files are written and read, whatever somebody has put in their place."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from peftmark.errors import PeftmarkError
from peftmark.results import Store, write_atomically
from peftmark.results.files import hold, holds, identity_of, let_go, read_regular


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Path]:
    root = tmp_path / "results"
    root.mkdir()
    hold(root)
    yield root
    let_go(root)


@pytest.mark.parametrize("path", ["x.json", "costs/x.json", "cards/methods/lora.json"])
def test_a_held_folder_is_not_made_anew_nor_is_another_one_written_to(held: Path, path: str) -> None:
    write_atomically(held / path, b"data")
    held.rename(held.with_name("moved"))
    for _ in range(2):
        with pytest.raises(PeftmarkError, match=rf"^the results folder {held} was moved, deleted or replaced: nothing"):
            write_atomically(held / path, b"more")
        assert list(held.rglob("*")) == []
        held.mkdir(exist_ok=True)
    held.rmdir()
    held.with_name("moved").rename(held)
    write_atomically(held / path, b"more")
    assert (held / path).read_bytes() == b"more"


def test_other_folders_are_free(held: Path) -> None:
    held.rmdir()
    write_atomically(held.with_name("results2") / "x.json", b"data")
    let_go(held)
    write_atomically(held / "x.json", b"data")


def test_the_lock_holds_the_folder(tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    assert identity_of(store.root) is None
    with store.lock():
        before = identity_of(store.root)
        store.root.rename(tmp_path / "moved")
        store.root.mkdir()
        assert before == identity_of(store.root) == identity_of(tmp_path / "moved")
    assert identity_of(store.root) not in (before, None)


def test_what_is_no_file_is_not_read(special: Any, tmp_path: Path) -> None:
    special.make(tmp_path / "x.json")
    with pytest.raises(OSError, match=re.escape(special.reason)):
        read_regular(tmp_path / "x.json")
    assert not holds(tmp_path / "x.json", b"")


def test_a_file_is_read_whole_up_to_the_limit(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("x")
    assert read_regular(tmp_path / "x", 5) == read_regular(tmp_path / "link") == b"12345"
    with pytest.raises(OSError, match="5 bytes, more than 4:"):
        read_regular(tmp_path / "x", 4)
    (tmp_path / "empty").touch()
    assert read_regular(tmp_path / "empty") == b""


def test_a_file_that_does_not_say_its_size_ends_at_the_limit() -> None:
    """As those of /proc, of 0 bytes each."""
    path = Path("/proc/self/maps")
    if not path.exists():
        pytest.skip("there is no /proc")
    assert read_regular(path).startswith(path.read_bytes()[:12])
    with pytest.raises(OSError, match=r"\] more than 10 bytes:"):
        read_regular(path, 10)

"""How files are written and read, whatever somebody has put in their place."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from peftmark.errors import PeftmarkError
from peftmark.results import Store, write_atomically
from peftmark.results.files import hold, identity_of, let_go


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

"""Plug-ins: a user's file, and an installed package's entry point."""

from __future__ import annotations

import importlib.metadata
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest

from peftmark import METHODS
from peftmark.errors import PeftmarkError
from peftmark.registry import import_file, load_plugins

pytestmark = pytest.mark.usefixtures("registries")

PLUGIN = """
from peftmark import METHODS

@METHODS.register({name!r}, family="mine", tracks=("image",))
class Mine:
    '''My own.'''
"""


@pytest.fixture
def plugin(tmp_path: Path) -> Callable[..., Path]:
    def write(source: str, name: str = "mine.py") -> Path:
        path = tmp_path / name
        path.write_text(source)
        return path

    return write


class Point:
    """As much of `importlib.metadata.EntryPoint` as is used."""

    name, value = "vision", "their_package:plugin"
    dist = types.SimpleNamespace(name="their-package")

    def __init__(self, load: Callable[[], object]) -> None:
        self.load = load


def install(monkeypatch: pytest.MonkeyPatch, load: Callable[[], object]) -> list[str]:
    """Pretend that a package with one entry point is installed; gives the groups that are asked for."""
    groups: list[str] = []

    def entry_points(*, group: str) -> list[Point]:
        groups.append(group)
        return [Point(load)]

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
    return groups


def test_a_file_registers_and_is_the_origin(plugin: Callable[..., Path]) -> None:
    path = plugin(PLUGIN.format(name="mine"))
    import_file(path)
    entry = METHODS.entry("mine")
    assert entry.origin == str(path)
    assert entry.summary == "My own."
    assert METHODS.names("mine/*") == ["mine"]
    assert METHODS["mine"].__name__ == "Mine"


def test_a_file_is_imported_once(plugin: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    path = plugin("import builtins\nbuiltins.peftmark_count = getattr(builtins, 'peftmark_count', 0) + 1\n")
    load_plugins([path, path])
    monkeypatch.chdir(path.parent)
    import_file("mine.py")
    import builtins

    assert builtins.peftmark_count == 1  # type: ignore[attr-defined]
    del builtins.peftmark_count  # type: ignore[attr-defined]


def test_two_files_of_one_name_are_two_plugins(plugin: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    load_plugins([plugin(PLUGIN.format(name="mine")), plugin(PLUGIN.format(name="mine_too"), "a/mine.py")])
    assert METHODS.entry("mine").origin != METHODS.entry("mine_too").origin


def test_a_file_cannot_take_a_shipped_name(plugin: Callable[..., Path]) -> None:
    path = plugin(PLUGIN.format(name="lora"))
    with pytest.raises(PeftmarkError) as error:
        import_file(path)
    assert str(error.value) == (
        f"method 'lora' is registered twice: by peftmark.methods.reparameterized.lora and by {path}; rename one"
    )


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("def", "SyntaxError: "),
        ("import nothing_that_exists", "ModuleNotFoundError: No module named 'nothing_that_exists'"),
        ("raise SystemExit(3)", "SystemExit: 3"),
    ],
)
def test_a_file_that_cannot_be_imported(plugin: Callable[..., Path], source: str, message: str) -> None:
    path = plugin(source)
    for _ in range(2):  # a failure is not remembered as an import
        with pytest.raises(PeftmarkError) as error:
            import_file(path)
        assert str(error.value).startswith(f"--import {path}: {message}")
    assert not [name for name in sys.modules if name.startswith("peftmark_plugin_mine")]


def test_files_that_are_none(plugin: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(PeftmarkError, match=r"--import nowhere\.py: no such file"):
        import_file("nowhere.py")
    with pytest.raises(PeftmarkError, match="no such file"):
        import_file(tmp_path)
    with pytest.raises(PeftmarkError, match="not a Python file"):
        import_file(plugin("x = 1", "mine.txt"))


def test_an_entry_point_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def load() -> None:
        METHODS.register("theirs", family="theirs", tracks=("image",))(type("Theirs", (), {}))

    groups = install(monkeypatch, load)
    load_plugins()
    assert groups == ["peftmark.plugins"]
    assert "theirs" in METHODS


def test_a_broken_entry_point_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, lambda: 1 / 0)
    with pytest.raises(PeftmarkError) as error:
        load_plugins()
    assert str(error.value) == (
        "plug-in 'vision' of their-package cannot be imported (ZeroDivisionError: division by zero); "
        "mend it or `pip uninstall their-package`"
    )

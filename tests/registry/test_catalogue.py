"""The catalogue that is read with `ast` is the one that importing everything gives, and reading it imports nothing."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

import peftmark
from peftmark.benchmark.plan.suite import SUITES, suite_entry
from peftmark.errors import PeftmarkError
from peftmark.registry import BACKBONES, METHODS, TASKS, Registry, scan_package

ROOT = Path(peftmark.__file__).parent
SHIPPED = [
    pytest.param(METHODS, "METHODS", "methods", id="methods"),
    pytest.param(BACKBONES, "BACKBONES", "backbones", id="backbones"),
    pytest.param(TASKS, "TASKS", "tasks", id="tasks"),
]


@pytest.mark.parametrize(("registry", "variable", "folder"), SHIPPED)
def test_reading_and_importing_agree(
    registry: Registry[Any], variable: str, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = {entry.name: entry for entry in scan_package(variable, f"peftmark.{folder}", ROOT / folder)}
    assert read
    for name in read:
        registry[name]  # importing its module calls register(), which replaces the entry that was read
    for name, entry in read.items():
        target, imported = registry[name], registry.entry(name)
        assert imported.metadata == entry.metadata
        assert imported.aliases == entry.aliases
        assert imported.doc == entry.doc == inspect.getdoc(target)
        assert (imported.origin, imported.qualname) == (entry.origin, entry.qualname)
        assert (target.__module__, target.__qualname__) == (entry.origin, entry.qualname)
        assert getattr(importlib.import_module(entry.origin), entry.qualname) is target


@pytest.mark.parametrize(("registry", "variable", "folder"), SHIPPED)
def test_every_entry_says_what_it_is(registry: Registry[Any], variable: str, folder: str) -> None:
    for entry in scan_package(variable, f"peftmark.{folder}", ROOT / folder):
        assert entry.summary, entry.name
        assert registry.required <= set(entry.metadata)


def test_listing_imports_nothing_heavy() -> None:
    """Every catalogue is read through in a fresh process."""
    script = """
        import sys
        from peftmark import METHODS, BACKBONES, TASKS, SUITES
        for registry in (METHODS, BACKBONES, TASKS, SUITES):
            assert [registry.entry(name).as_row() for name in registry.names()]
            assert registry.expand("*")
        heavy = {"torch", "peft", "numpy", "pandas", "timm", "open_clip", "sklearn", "rich"}
        sys.exit(", ".join(sorted(heavy & set(sys.modules))) or None)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.strip()) == (0, "")


def write(folder: Path, source: str) -> Path:
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "module.py").write_text(textwrap.dedent(source))
    return folder


def test_what_a_scan_sees(tmp_path: Path) -> None:
    folder = write(
        tmp_path / "package",
        '''
        import nothing_that_exists

        @THINGS.register("one", family="f", tracks=("a", "b"), aliases=("eins",))
        @other_decorator
        class One:
            """First.

            Second:
                indented.
            """

        @THINGS.register("two")
        @THINGS.register("zwei")
        def two(): ...

        @OTHERS.register("three")
        class Three: ...
        ''',
    )
    entries = {entry.name: entry for entry in scan_package("THINGS", "a.package", folder)}
    assert set(entries) == {"one", "two", "zwei"}
    one = entries["one"]
    assert one.metadata == {"family": "f", "tracks": ("a", "b")}
    assert one.aliases == ("eins",)
    assert one.doc == "First.\n\nSecond:\n    indented."
    assert (one.origin, one.qualname) == ("a.package.sub.module", "One")
    assert entries["two"].doc == ""
    with pytest.raises(ModuleNotFoundError):
        one.load()


@pytest.mark.parametrize(
    "call", ['register(NAME)', 'register("x", family=FAMILY)', 'register("x", **FACTS)', "register()",
             'register("x", facts={[]: 1})', 'register(*NAMES)'],
)  # fmt: skip
def test_arguments_must_be_literals(tmp_path: Path, call: str) -> None:
    folder = write(tmp_path / "package", f"NAME = 'x'\n\n@THINGS.{call}\nclass Thing: ...\n")
    with pytest.raises(PeftmarkError) as error:
        list(scan_package("THINGS", "a.package", folder))
    assert str(error.value) == "a.package.sub.module, line 3: the arguments of register() must be literals"


def test_suites_are_files(tmp_path: Path) -> None:
    assert {"embedded", "embedded-full", "efficiency"} <= set(SUITES)
    for name in SUITES:
        entry = SUITES.entry(name)
        assert Path(entry.origin).is_file()
        assert entry.summary
        assert bool(entry.metadata["protocol"]) == bool(SUITES[name].runs)
    damaged = tmp_path / "mine.toml"
    damaged.write_text("runs = [")
    with pytest.raises(PeftmarkError, match=r"mine\.toml is not a TOML file: "):
        suite_entry(damaged)
    damaged.write_bytes(b"\xff\xfe")
    with pytest.raises(PeftmarkError, match=r"mine\.toml is not a TOML file: "):
        suite_entry(damaged)

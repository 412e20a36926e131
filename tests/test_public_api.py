"""What ``import peftmark`` promises, and that the examples in docstrings do what they say."""

from __future__ import annotations

import doctest
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import peftmark

ROOT = Path(peftmark.__file__).parent
PROMISED = {
    "BACKBONES", "METHODS", "SUITES", "TASKS", "Anatomy", "Classification", "Context", "Method", "Objective",
    "OpenVocabulary", "PeftmarkError", "Task", "TrainingStep", "adapt", "export_peft", "load_costs",
    "load_predictions", "load_protocol", "load_results", "make_optimizer", "make_schedule",
}  # fmt: skip


def modules() -> list[str]:
    """Every module of the package, by its import name, without importing it."""
    names = []
    for folder in sorted(path.parent for path in ROOT.glob("*/__init__.py")):
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            names.append(".".join(("peftmark", *parts)).removesuffix(".__init__"))
    return ["peftmark", "peftmark.adapting", "peftmark.cli", "peftmark.errors", *names]


def source(module: str) -> str:
    path = ROOT.joinpath(*module.split(".")[1:])
    return (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text()


WITH_EXAMPLES = [module for module in modules() if ">>> " in source(module)]


def test_every_promised_name_is_there() -> None:
    assert set(peftmark.__all__) == PROMISED
    assert len(peftmark.__all__) == len(PROMISED)
    assert set(dir(peftmark)) >= PROMISED
    for name in PROMISED:
        value = getattr(peftmark, name)
        assert value is getattr(importlib.import_module(f"peftmark.{peftmark._HOME[name]}"), name)
    with pytest.raises(AttributeError, match="module 'peftmark' has no attribute 'adopt'"):
        _ = peftmark.adopt
    assert all(inspect.getdoc(getattr(peftmark, name)) for name in PROMISED)


def test_star_import_gives_the_same() -> None:
    names: dict[str, object] = {}
    exec("from peftmark import *", names)
    assert set(names) - {"__builtins__"} == PROMISED


def test_importing_peftmark_imports_next_to_nothing() -> None:
    script = """if True:
        import sys
        import peftmark
        peftmark.__version__, dir(peftmark), peftmark.PeftmarkError, peftmark.METHODS
        sys.exit(", ".join({"torch", "pandas", "numpy", "timm", "msgspec", "click"} & set(sys.modules)) or None)
    """
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("load", ["load_results", "load_costs"])
def test_loading_imports_no_torch(tmp_path: Path, load: str) -> None:
    script = f"""if True:
        import sys
        import peftmark
        assert len(peftmark.{load}({str(tmp_path)!r})) == 0
        sys.exit(", ".join({{"torch", "timm"}} & set(sys.modules)) or None)
    """
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("peftmark", "adapt"),
        ("peftmark", "Method"),
        ("peftmark", "Anatomy"),
        ("peftmark.backbones", "Insert"),
        ("peftmark", "Task"),
        ("peftmark.registry", "Registry"),
        ("peftmark.results", "Store"),
    ],
)
def test_what_an_author_meets_has_an_example(module: str, name: str) -> None:
    """It is run below."""
    thing = getattr(importlib.import_module(module), name)
    assert ">>> " in (thing.__doc__ or "")
    assert thing.__module__ in WITH_EXAMPLES


@pytest.mark.usefixtures("registries")
@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_in_docstrings(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert result.attempted > 0
    assert result.failed == 0

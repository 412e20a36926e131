"""The wheel holds the whole package, and nothing else."""

from __future__ import annotations

import configparser
import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

import peftmark

ROOT = Path(peftmark.__file__).parent
NOT_OF_A_CHECKOUT = shutil.ignore_patterns(
    ".*", "runs", "build", "dist", "*.egg-info", "__pycache__", "node_modules", "*.pyc"
)
NOT_PACKAGED = {"records"}
"""Folders of results that the repository keeps and an installed package does not need."""


def package_files() -> set[str]:
    """Every file of the package in this checkout: modules and data, as paths in a wheel."""
    top = [path for path in ROOT.iterdir() if path.suffix == ".py"]
    folders = [path.parent for path in ROOT.glob("*/__init__.py")]
    files = {f"peftmark/{path.name}" for path in (*top, ROOT / "CITATION.cff")}
    for path in (path for folder in folders for path in folder.rglob("*")):
        parts = path.relative_to(ROOT).parts
        hidden = any(part.startswith(".") or part == "__pycache__" for part in parts)
        if path.is_file() and not hidden and NOT_PACKAGED.isdisjoint(parts):
            files.add("/".join(("peftmark", *parts)))
    return files


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Built from a copy of the checkout by the declared build backend, without the network."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT, folder / "source", ignore=NOT_OF_A_CHECKOUT)
    script = f"from setuptools.build_meta import build_wheel; build_wheel({str(folder)!r})"
    subprocess.run([sys.executable, "-c", script], cwd=folder / "source", check=True, capture_output=True)
    [path] = folder.glob("*.whl")
    return zipfile.ZipFile(path)


def test_it_holds_every_module_and_data_file_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    expected = package_files()
    documents = {name for name in expected if name.endswith((".md", "/screenshot.png"))}  # may be left out
    assert sorted(expected - names - documents) == []
    assert sorted(names - expected) == []
    for kind in (".toml", ".csv", ".webp", ".json", ".j2", ".css"):
        assert any(name.endswith(kind) for name in names), kind


def test_what_it_says_of_itself(wheel: zipfile.ZipFile) -> None:
    [metadata] = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    said = Parser().parsestr(wheel.read(metadata).decode())
    assert (said["Name"], said["Version"]) == ("peftmark", peftmark.__version__)
    assert "Apache-2.0" in (said["License-Expression"], said["License"])
    assert said["Requires-Python"] == ">=3.11"
    required = {line.partition(";")[0].strip() for line in said.get_all("Requires-Dist", []) if "extra ==" not in line}
    assert any(line.startswith("torch") for line in required)
    [entry_points] = [name for name in wheel.namelist() if name.endswith(".dist-info/entry_points.txt")]
    parsed = configparser.ConfigParser()
    parsed.read_string(wheel.read(entry_points).decode())
    assert dict(parsed["console_scripts"]) == {"peftmark": "peftmark.cli:main"}


def test_it_works_where_it_is_unpacked(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    """As installed: the catalogues are read from the wheel's own files."""
    wheel.extractall(tmp_path)
    script = """if True:
        import sys
        sys.path.insert(0, ".")
        import peftmark.cli
        print(peftmark.__file__)
        peftmark.cli.main()
    """
    command = [sys.executable, "-P", "-c", script, "list", "suites"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    first, *suites = done.stdout.splitlines()
    assert Path(first) == tmp_path / "peftmark" / "__init__.py"
    assert [line.split()[0] for line in suites] == peftmark.SUITES.names()

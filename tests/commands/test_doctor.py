"""``peftmark doctor``."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from peftmark import TASKS
from peftmark.benchmark import doctor

Invoke = Callable[..., Any]

SICK = """
from peftmark import TASKS, PeftmarkError, Task


class Sick(Task):
    def split_sha256(self):
        return "0" * 64

    def load(self):
        raise NotImplementedError


@TASKS.register("sick/list", track="image", group="natural")
class List(Sick):
    \"\"\"Says what is missing.\"\"\"

    def check(self):
        return ["no list train.txt: put it\\nthere", "two images are missing"]


@TASKS.register("sick/raises", track="image", group="natural")
class Raises(Sick):
    \"\"\"Says it by an error.\"\"\"

    def check(self):
        raise PeftmarkError("no folder sick: unpack the data there")


@TASKS.register("sick/broken", track="image", group="natural")
class Broken(Sick):
    \"\"\"Cannot say anything.\"\"\"

    def check(self):
        raise KeyError("x")


@TASKS.register("sick/*", track="image", group="natural")
class Below(Sick):
    \"\"\"Says what is below it.\"\"\"

    @classmethod
    def members(cls):
        return ["sick/member"]
"""


@pytest.fixture
def sick(tmp_path: Path) -> Path:
    path = tmp_path / "sick.py"
    path.write_text(SICK)
    return path


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PEFTMARK_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.delenv("PEFTMARK_DATA", raising=False)


def test_it_says_what_is_here(invoke: Invoke) -> None:
    ended = invoke("doctor")
    assert (ended.code, ended.err) == (0, "")
    assert [line for line in ended.lines if not line.startswith(" ")] == ["Packages", "Device", "Data", "Weights"]
    assert f"torch {version('torch')}" in ended.out
    embedded = len(TASKS.names("embedded/*"))
    assert f"  embedded: {embedded} of {embedded} tasks ready" in ended.lines
    assert (
        "  PEFTMARK_DATA is not set: `export PEFTMARK_DATA=/path` to the folder that holds the data sets" in ended.lines
    )


def test_tasks_say_what_to_do_in_a_line_each(invoke: Invoke, sick: Path) -> None:
    ended = invoke("doctor", "--import", sick)
    assert ended.code == 0
    at = ended.lines.index("  sick: 1 of 4 tasks ready")
    assert ended.lines[at + 1 : at + 5] == [
        "    sick/broken: its check fails (KeyError: 'x')",
        "    sick/list: no list train.txt: put it there",
        "    sick/list: two images are missing",
        "    sick/raises: no folder sick: unpack the data there",
    ]


def test_as_json(invoke: Invoke, sick: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PEFTMARK_DATA", str(tmp_path / "missing"))
    weights = tmp_path / "weights" / "timm" / "x.orig.pth"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"")
    ended = invoke("doctor", "--json", "--import", sick)
    assert (ended.code, ended.err) == (0, "")
    report = json.loads(ended.out)
    assert report["packages"]["torch"] == version("torch")
    assert report["machine"]["cores"] >= 1
    assert "there is no such folder" in report["data_problem"]
    tasks = {task["name"]: task["problems"] for task in report["tasks"]}
    assert len(tasks["sick/list"]) == 2 and tasks["sick/member"] == [] and tasks["embedded/digits"] == []
    assert report["weights_files"] == ["timm/x.orig.pth"]
    by_backbone = {state["backbone"]: state for state in report["weights"]}
    assert Path(by_backbone["embedded/vit"]["file"]).is_file()


def test_a_data_folder_that_is_there_is_no_problem(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PEFTMARK_DATA", str(tmp_path))
    assert f"  PEFTMARK_DATA is {tmp_path}" in invoke("doctor").lines


def test_readers_say_what_is_missing_and_where(invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PEFTMARK_DATA", str(tmp_path))
    lines = invoke("doctor").lines
    assert "  vtab: 0 of 19 tasks ready" in lines
    assert f"    base2new/dtd: there is no folder {tmp_path / 'dtd'}: put the data set there" in lines
    (tmp_path / "dtd").mkdir()
    assert any(
        "base2new/dtd" in line and "split_zhou_DescribableTextures.json" in line for line in invoke("doctor").lines
    )


def test_a_missing_data_folder_is_said_once(invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PEFTMARK_DATA", str(tmp_path / "missing"))
    assert sum("there is no such folder" in line for line in invoke("doctor").lines) == 1


def test_missing_extras_come_with_the_command(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["torch>=2", "absent-one>=1; extra == 'odd'", "numpy>=1 ; extra == 'odd'", 'numpy; extra == "fine"']
    monkeypatch.setattr(doctor, "requires", lambda name: [*lines, "pytest>=8; extra == 'test'"])
    written = invoke("doctor").lines
    assert "  extra odd: without absent-one: pip install 'peftmark[odd]'" in written
    assert any(line.startswith("  extra fine: numpy ") for line in written)
    assert not any(line.startswith("  extra test") for line in written)


def test_weights_of_a_suite_that_are_not_here_come_with_their_place(tmp_path: Path) -> None:
    name = "timm/vit_base_patch16_224.orig_in21k"
    state = doctor._weights_state("vit_base_patch16_224.orig_in21k", ["vtab1k"])
    assert (state.file, state.suites) == (None, ["vtab1k"])
    assert state.remedy is not None and f"{tmp_path / 'weights' / name}.safetensors" in state.remedy
    path = tmp_path / "weights" / f"{name}.pth"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"")
    assert doctor._weights_state(name, ["vtab1k"]).file == str(path)
    wrong = doctor._weights_state("no_such_backbone", ["vtab1k"])
    assert wrong.file is None and wrong.remedy is not None and "unknown backbone" in wrong.remedy

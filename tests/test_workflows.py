"""The workflows' files: they parse, and the commands in them exist."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import peftmark
from peftmark.cli import main

ROOT = Path(peftmark.__file__).parent
BOARD = ROOT / ".github" / "workflows" / "board.yml"
pytestmark = pytest.mark.skipif(not BOARD.exists(), reason="workflows are not in the wheel")


def steps_of(job: dict[str, Any]) -> tuple[list[str], dict[str, dict[str, str]]]:
    """The commands of a job, and the actions that it uses, with what they are given."""
    commands = [step["run"] for step in job["steps"] if "run" in step]
    return commands, {step["uses"]: step.get("with", {}) for step in job["steps"] if "uses" in step}


@pytest.fixture
def jobs() -> dict[str, Any]:
    workflow = yaml.safe_load(BOARD.read_text())
    assert workflow["name"] == "board"
    assert set(workflow[True]) == {"push", "workflow_dispatch"}  # to YAML 1.1, `on` is a truth value
    assert workflow["permissions"] == {"contents": "read"}
    for pattern in workflow[True]["push"]["paths"]:
        assert (ROOT / pattern.removesuffix("/**")).exists(), pattern
    found: dict[str, Any] = workflow["jobs"]
    return found


def test_it_publishes_with_the_official_actions(jobs: dict[str, Any]) -> None:
    assert list(jobs) == ["build", "publish"]
    _, building = steps_of(jobs["build"])
    _, publishing = steps_of(jobs["publish"])
    names = {action.partition("@")[0] for action in (*building, *publishing)}
    assert names == {
        f"actions/{name}"
        for name in ("checkout", "setup-python", "configure-pages", "upload-pages-artifact", "deploy-pages")
    }
    assert all(re.fullmatch(r"actions/[a-z-]+@v\d+", action) for action in (*building, *publishing))
    [python] = [given for action, given in building.items() if "setup-python" in action]
    assert python == {"python-version": "3.11"}
    assert jobs["publish"]["needs"] == "build"
    assert jobs["publish"]["permissions"] == {"pages": "write", "id-token": "write"}
    assert jobs["publish"]["environment"]["name"] == "github-pages"
    [step] = jobs["publish"]["steps"]
    assert f"steps.{step['id']}.outputs.page_url" in jobs["publish"]["environment"]["url"]


def test_its_commands_do_what_they_say(jobs: dict[str, Any], invoke: Callable[..., Any], tmp_path: Path) -> None:
    """As make would run them; what is uploaded is what they made."""
    commands, actions = steps_of(jobs["build"])
    made: list[list[str]] = []
    for command in commands:
        if command.startswith("make "):
            said = subprocess.run(
                [*shlex.split(command), "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=True
            )
            made += [shlex.split(line) for line in said.stdout.splitlines() if line.startswith(".venv/bin/peftmark ")]
        else:
            made.append(shlex.split(command))
    assert [words[1] for words in made] == ["board", "export"]
    some = tmp_path / "results" / "records"  # of all it takes a minute
    some.mkdir(parents=True)
    for record in sorted((ROOT / "results" / "records" / "embedded").glob("*.json"))[:3]:
        shutil.copy(record, some)
    for program, name, *words in made:
        assert program == ".venv/bin/peftmark" and name in main.commands
        ended = invoke(name, *words)
        assert (ended.code, ended.err) == (0, "")
    [place] = [given["path"] for action, given in actions.items() if "upload-pages-artifact" in action]
    assert (tmp_path / place / "index.html").is_file()
    assert (tmp_path / place / "tables" / "results.csv").is_file()

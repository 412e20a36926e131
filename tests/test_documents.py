"""The examples in the documents run as they are printed, and what the documents point to is there."""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from tokenize import COMMENT

import pytest
import torch
from safetensors.torch import load_file

import peftmark
from peftmark import METHODS

ROOT = Path(peftmark.__file__).parent
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
OTHERS_DOCUMENTS = {"DATASETS.md"}
"""CoOp's."""
needs_checkout = pytest.mark.skipif(not (ROOT / "README.md").exists(), reason="documents are not in the wheel")


def code_blocks(document: str) -> dict[str, str]:
    """Python blocks of a document that start with a file's name, by that name."""
    blocks = re.findall(r"```python\n# (\w+\.py)\n(.*?)```", (ROOT / document).read_text(), re.DOTALL)
    return dict(blocks)


@needs_checkout
def test_examples_run(tmp_path: Path) -> None:
    """The method of the README on the task and the backbone of CONTRIBUTING, from files, to records and a board."""
    blocks = {**code_blocks("README.md"), **code_blocks("CONTRIBUTING.md")}
    assert set(blocks) == {"my_method.py", "my_task.py", "my_backbone.py", "my_objective.py"}
    for name, code in blocks.items():
        (tmp_path / name).write_text(code)
    make_weights = (
        "import timm, safetensors.torch as s; m = timm.create_model('vit_tiny_patch16_224', img_size=32, patch_size=8, "
        "depth=2, num_classes=0); s.save_file(m.state_dict(), 'tiny.safetensors')"
    )
    subprocess.run([sys.executable, "-c", make_weights], cwd=tmp_path, check=True)
    imports = [word for name in blocks for word in ("--import", name)]
    command = [sys.executable, "-m", "peftmark", "run", "--method", "branch_gate", "--backbone", "mine/tiny"]
    command += ["--task", "mine/noise", "--task", "mine/angles", "--set", "protocol.epochs=2", "--jobs", "1", *imports]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "2 ok" in done.stdout
    frame = peftmark.load_results(tmp_path / "runs")
    assert frame["spec.method.name"].tolist() == ["branch_gate"] * 2
    assert frame["params.trainable_without_head"].tolist() == [2 * 192] * 2
    assert dict(zip(frame["spec.task.name"], frame["quality.unit"], strict=True)) == {
        "mine/noise": "percent",
        "mine/angles": "radians",
    }
    subprocess.run([sys.executable, "-m", "peftmark", "board"], cwd=tmp_path, check=True, capture_output=True)
    page = (tmp_path / "board" / "index.html").read_text()
    assert "branch_gate" in page
    assert "mine/tiny" in page


@needs_checkout
def test_a_loop_of_one_s_own_leaves_the_weights_that_a_run_leaves(tmp_path: Path) -> None:
    """The example, as it is printed, and the command beside it."""
    name = "my_loop.py"
    (tmp_path / name).write_text(code_blocks("methods/README.md")[name])
    subprocess.run([sys.executable, name], cwd=tmp_path, check=True, capture_output=True)
    [command] = re.findall(r"`peftmark (run [^`]*)`", (ROOT / "methods/README.md").read_text().split("my_loop.py")[0])
    arguments = [sys.executable, "-m", "peftmark", *command.split(), "--jobs", "1"]
    subprocess.run(arguments, cwd=tmp_path, check=True, capture_output=True)
    [file] = (tmp_path / "runs").rglob("*.safetensors")
    by_run, by_hand = load_file(file), torch.load(tmp_path / "lora.pt", weights_only=True)
    assert by_run.keys() == by_hand.keys()
    assert len(by_run) == 26
    assert [key for key, value in by_run.items() if not torch.equal(value, by_hand[key])] == []


@needs_checkout
def test_an_adapter_goes_to_peft(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    name = "to_peft.py"
    code = code_blocks("methods/README.md")[name]
    same = (
        "images = __import__('torch').rand(2, 3, 224, 224)\nassert model.eval()(images).equal(loaded.eval()(images))\n"
    )
    (tmp_path / name).write_text(code + same)
    subprocess.run([sys.executable, name], cwd=tmp_path, check=True, capture_output=True)
    assert sorted(file.name for file in (tmp_path / "adapter").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]


def documents() -> list[Path]:
    """Those at the root, and the READMEs of the folders."""
    found = [*(ROOT / name for name in DOCUMENTS), *ROOT.glob("[!.]*/**/*.md")]
    return [path for path in found if in_checkout(path)]


def in_checkout(path: Path) -> bool:
    return not {"runs", "build", "node_modules"} & set(path.relative_to(ROOT).parts)


@needs_checkout
def test_the_readme_is_short_and_every_room_of_the_house_has_one() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 130
    for room in ("backbones", "benchmark", "benchmark/measure", "leaderboard", "methods", "results", "tasks"):
        assert f"({room}/README.md)" in (ROOT / "README.md").read_text(), room


@needs_checkout
def test_links_lead_somewhere() -> None:
    assert len(documents()) > 15
    absent = [
        (str(document.relative_to(ROOT)), target)
        for document in documents()
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text())
        if not (document.parent / target).exists()
    ]
    assert absent == []


@needs_checkout
def test_files_that_documents_name_are_there() -> None:
    """A path with a folder in it is from the root or from the document's own folder."""
    absent = [
        (str(document.relative_to(ROOT)), name)
        for document in documents()
        for name in re.findall(r"`(\w+(?:/\w+)+\.(?:py|md|toml))`", document.read_text())
        if not (ROOT / name).exists() and not (document.parent / name).exists()
    ]
    assert absent == []


def modules() -> list[Path]:
    """Tests and tools, too."""
    return [path for pattern in ("*.py", "[!.]*/**/*.py") for path in ROOT.glob(pattern) if in_checkout(path)]


def prose(file: Path) -> Iterator[str]:
    """Comments, and strings that stand alone: docstrings."""
    source = file.read_text(encoding="utf-8")
    yield from (
        token.string for token in tokenize.generate_tokens(io.StringIO(source).readline) if token.type == COMMENT
    )
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.value.value


@needs_checkout
def test_documents_that_code_names_are_there() -> None:
    """From the root, from the file's own folder, or, of a name alone, anywhere."""
    names = {path.name for path in documents()}
    named = [(file, name) for file in modules() for text in prose(file) for name in re.findall(r"[\w/-]+\.md\b", text)]
    assert named
    absent = [
        (str(file.relative_to(ROOT)), name)
        for file, name in named
        if name not in {*names, *OTHERS_DOCUMENTS} and not (ROOT / name).exists() and not (file.parent / name).exists()
    ]
    assert absent == []


@needs_checkout
def test_no_file_is_long() -> None:
    lines = {str(file.relative_to(ROOT)): len(file.read_text(encoding="utf-8").splitlines()) for file in modules()}
    assert len(lines) > 300
    assert {name: count for name, count in lines.items() if count > 400} == {}


@needs_checkout
def test_moved_modules_are_where_the_changelog_says() -> None:
    rows = re.findall(
        r"^\| `peftmark\.([\w.]+)` \| `(?:peftmark\.)?([\w.]+)`", (ROOT / "CHANGELOG.md").read_text(), re.M
    )
    assert len(rows) > 50
    assert [new for _, new in rows if not (ROOT / f"{new.replace('.', '/')}.py").exists()] == []
    assert [old for old, _ in rows if (ROOT / f"{old.replace('.', '/')}.py").exists()] == []


@needs_checkout
def test_every_equation_of_the_survey_has_its_classes() -> None:
    """Of each row, and each class is in the file that it is linked to."""
    text = (ROOT / "methods/README.md").read_text()
    rows = [row.split("|")[1:-1] for row in text.splitlines() if row.startswith("| (")]
    numbers = [int(number) for row in rows for number in re.findall(r"\((\d+)\)", row[0])]
    assert sorted(numbers) == list(range(1, 13))
    links = re.findall(r"\[`(\w+)`\]\(([\w/]+\.py)\)", text)
    assert len(links) > 20
    wrong = [name for name, file in links if f"\nclass {name}(" not in (ROOT / "methods" / file).read_text()]
    assert wrong == []


@needs_checkout
def test_changelog_names_every_method() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    assert [name for name in METHODS.names() if f"`{name}`" not in text] == []

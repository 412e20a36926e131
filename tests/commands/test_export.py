"""``peftmark export``: what it prints, and what its mistakes say. What is written is in leaderboard/export."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries

import peftmark
from peftmark.commands.export import FORMATS

Invoke = Callable[..., Any]
REFERENCE = Path(peftmark.__file__).parent / "results" / "records"
needs_checkout = pytest.mark.skipif(not REFERENCE.is_dir(), reason="records are not in the wheel")


@needs_checkout
@pytest.mark.parametrize("name", ["csv", "parquet", "json"])
def test_the_reference_records_as_tables(invoke: Invoke, tmp_path: Path, name: str) -> None:
    ended = invoke("export", "--results", REFERENCE / "embedded", "--format", name, "--out", "out")
    assert (ended.code, ended.err) == (0, "")
    written = [f"out/{table}.{name}" for table in ("costs", "results", "runs")]
    assert ended.lines == [*written, "out/columns.csv", "out/README.md"]
    read = {"csv": pd.read_csv, "parquet": pd.read_parquet, "json": pd.read_json}[name]
    assert len(read(tmp_path / "out" / f"runs.{name}")) == len(peftmark.load_results(REFERENCE / "embedded"))
    results = read(tmp_path / "out" / f"results.{name}")
    lora = results[(results["method"] == "lora") & (results["task"] == "embedded/digits")]
    tests = peftmark.load_results(REFERENCE / "embedded").query(
        "`spec.method.name` == 'lora' and `spec.task.name` == 'embedded/digits'"
    )["quality.test"]
    assert lora["mean"].tolist() == [pytest.approx(tests.mean(), abs=1e-12)]
    assert lora["std"].tolist() == [pytest.approx(tests.std(), abs=1e-12)]


@needs_checkout
def test_files_that_are_left_out_are_a_line(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    shutil.copy(min((REFERENCE / "embedded").glob("*.json")), tmp_path / "runs")
    (tmp_path / "runs" / "half.json").write_text("{")
    ended = invoke("export", "--format", "json", "--out", "runs.json")
    assert (ended.code, ended.lines) == (0, ["runs.json"])
    assert ended.one_line() == ("peftmark: 1 file could not be read and is left out: `peftmark validate runs` says why")
    assert len(json.loads((tmp_path / "runs.json").read_text())) == 1


def test_mistakes_are_one_line(invoke: Invoke) -> None:
    for format_ in FORMATS:
        ended = invoke(
            "export",
            "--format",
            format_,
            "--out",
            "out",
            "--results",
            "missing",
            *["0" * 16] * (format_ in ("hub", "peft")),
        )
        assert (ended.code, ended.out) == (2, "")
        assert ended.one_line().startswith("peftmark: no results folder missing")
    ended = invoke("export", "--format", "html", "--out", "out")
    assert ended.code == 2 and "'html' is not one of 'csv'" in ended.err


@needs_checkout
def test_reference_runs_as_model_cards(invoke: Invoke, tmp_path: Path) -> None:
    """A run of every method of two suites is a card that the Hub's own classes read."""
    frame = pd.concat([peftmark.load_results(REFERENCE / name) for name in ("embedded", "embedded-openvocab")])
    runs = frame.drop_duplicates("spec.method.name", keep="last").set_index("run_id", drop=False)
    ended = invoke("export", *runs["run_id"], "--results", REFERENCE, "--format", "hub", "--out", "cards")
    assert (ended.code, ended.err) == (0, "")
    assert len(ended.lines) == 3 * len(runs)
    for run in runs.itertuples():
        folder = tmp_path / "cards" / run.run_id
        found = ModelCard.load(folder / "README.md").data.eval_results
        [file] = (folder / ".eval_results").iterdir()
        entries = parse_eval_result_entries(yaml.safe_load(file.read_text()))
        test = runs.loc[run.run_id, "quality.test"]
        assert found[0].metric_value == entries[0].value == test
    one = runs["run_id"].iloc[0]
    ended = invoke("export", one, "--results", REFERENCE, "--format", "hub", "--out", "one")
    assert ended.lines == [f"one/{place}" for place in ("README.md", *list_of(tmp_path / "one"), f"{one}.json")]
    ended = invoke("export", "f" * 16, "--results", REFERENCE, "--format", "hub", "--out", "two")
    assert (ended.code, ended.out) == (2, "")
    assert ended.one_line().startswith(f"peftmark: no record of {'f' * 16} in ")


def list_of(folder: Path) -> list[str]:
    return [f".eval_results/{path.name}" for path in (folder / ".eval_results").iterdir()]

"""A third objective, in one file of a user's (`attributes.py`), runs from task to board."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import peftmark
from peftmark.results import Store

FILE = Path(__file__).with_name("attributes.py")
METHODS = ("linear", "lora", "fish_mask", "diff_pruning")  # a head, an insert, scores, a search with a loss of its own


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("attributes")


def test_from_task_to_board(command: Callable[..., Any], folder: Path) -> None:
    chosen = [flag for name in METHODS for flag in ("--method", name)]
    runs, board = folder / "runs", folder / "board"
    place = ("--task", "toy/quarters", "--backbone", "embedded/vit", "--results", runs, "--import", FILE)
    ended = command("run", *place, *chosen, "--set", "protocol.epochs=8", "--seed", 0)
    assert ended.code == 0, ended.err
    records = {record.spec.method.name: record for record in Store(runs).load()[0]}
    assert set(records) == set(METHODS)
    for record in records.values():
        quality = record.quality
        assert quality is not None
        assert (quality.metric, quality.unit, quality.higher_is_better) == ("wrong_attributes", "attributes", False)
        assert 0 <= quality.test < 1.5  # 2 by guessing
        assert quality.curve[-1]["train_loss"] < quality.curve[0]["train_loss"]
    card = json.loads((runs / "cards" / "tasks" / "toy__quarters.json").read_text())
    assert card["facts"]["metric"] == "wrong_attributes"
    assert "chance_percent" not in card["facts"]
    assert set(", ".join(card["facts"]["sample_labels"]).split(", ")) <= {
        "upper left", "upper right", "lower left", "lower right", ""
    }  # fmt: skip

    kept = peftmark.load_predictions(runs)
    assert set(kept) == {record.run_id for record in records.values()}
    for record in records.values():
        quality, found = record.quality, kept[record.run_id]["test"]
        assert quality is not None
        assert {name: values.shape for name, values in found.items()} == {
            "predicted": (32, 4),
            "target": (32, 4),
            "probability": (32, 4),
        }
        assert (found["predicted"] != found["target"]).sum() / 32 == quality.test  # the figure is in them
        assert ((found["probability"] > 0.5) == found["predicted"]).all()
    assert command("validate", runs).code == 0
    assert command("board", "--results", runs, "--out", board).code == 0
    page = (board / "index.html").read_text()
    assert "figures in attributes" in page
    assert "lower is better" in page
    assert "wrong attributes in attributes" in page
    of_runs = "".join(path.read_text() for path in (board / "data" / "runs").glob("*.js"))  # which run.html draws
    assert records["lora"].run_id in of_runs
    assert '"unit":"attributes"' in of_runs.replace(" ", "")


def test_predictions_are_kept_or_not(command: Callable[..., Any], folder: Path) -> None:
    """Kept by default; made anew without them, a record is not left with those of the run before."""
    runs = folder / "kept"
    run = ("run", "--task", "toy/quarters", "--backbone", "embedded/vit", "--results", runs, "--import", FILE)
    run = (*run, "--method", "linear", "--set", "protocol.epochs=1")
    assert command(*run).code == 0
    [before] = peftmark.load_predictions(runs).values()
    assert command(*run, "--existing", "overwrite").code == 0
    [again] = peftmark.load_predictions(runs).values()
    assert all((before["test"][name] == again["test"][name]).all() for name in before["test"])
    assert command(*run, "--existing", "overwrite", "--no-predictions").code == 0
    assert peftmark.load_predictions(runs) == {}
    assert command("validate", runs).code == 0

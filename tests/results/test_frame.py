"""Records as a pandas frame."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

import peftmark
from peftmark.errors import PeftmarkError
from peftmark.results import (
    MethodSpec,
    PhaseCost,
    RunRecord,
    RunSpec,
    Store,
    VariantFigure,
    decode_record,
    encode_record,
    to_frame,
)

Make = Callable[..., RunRecord]
replace = msgspec.structs.replace


def test_one_row_a_record_with_dotted_columns(tmp_path: Path, record: Make, spec: RunSpec) -> None:
    store = Store(tmp_path)
    store.write(record())
    frame = peftmark.load_results(str(tmp_path))
    assert len(frame) == 1
    row = frame.iloc[0]
    assert row["run_id"] == spec.run_id
    assert row["status"] == "ok"
    assert row["spec.method.name"] == "lora"
    assert row["spec.method.config"] == {"rank": 8, "targets": ["q", "v"], "alpha": 8.0}
    assert row["spec.protocol.overrides"] == {}
    assert row["spec.seed"] == 3
    assert row["quality.test"] == 87.5
    assert row["quality.tests"] == {"test": {"value": 87.5, "n": 8}}
    assert row["params.trainable_without_head"] == 10
    assert row["storage.adapter_bytes"] == 240
    assert row["time_s.train"] == 1.5
    assert row["env.packages"] == {"timm": "1.0"}


def test_lists_and_open_dictionaries_are_one_column_each(record: Make) -> None:
    made = record()
    figures = [VariantFigure(axis="rank", value=1, validation=50.0, test=40.0)]
    made = replace(
        made,
        quality=replace(made.quality, variants=figures),
        phases=[PhaseCost(name="search", epochs=0, steps=0, evaluations=5, seconds=1.5)],
        found={"architecture": {"rank": [1, 5]}},
    )
    frame = to_frame([made])
    row = frame.iloc[0]
    assert row["quality.variants"] == [{"axis": "rank", "value": 1, "validation": 50.0, "test": 40.0}]
    assert row["phases"] == [{"name": "search", "epochs": 0, "steps": 0, "evaluations": 5, "seconds": 1.5}]
    assert row["found"] == {"architecture": {"rank": [1, 5]}}
    assert not [name for name in frame.columns if name.startswith(("phases.", "found.", "quality.variants."))]
    assert decode_record(encode_record(made), "x") == made


def test_failures_have_the_same_columns(record: Make, spec: RunSpec) -> None:
    failed = record(replace(spec, seed=9), status="diverged", params=None, storage=None)
    columns = list(to_frame([record()]).columns)
    assert {"error.type", "quality.test", "params.total"} <= set(columns)
    assert {"error", "quality", "params", "storage"}.isdisjoint(columns)
    assert list(to_frame([failed]).columns) == columns
    frame = to_frame([record(), failed])
    assert list(frame.columns) == columns
    assert frame["error.type"].tolist()[1] == "Diverged"
    assert frame["quality.test"].isna().tolist() == [False, True]
    assert frame["quality.test"].mean() == 87.5


def test_the_same_records_give_the_same_frame(record: Make, spec: RunSpec) -> None:
    """Sorted by task, backbone, method and seed, in whatever order they come."""
    pairs = [(name, seed) for name in ("vpt", "lora") for seed in (10, 2)]
    specs = [replace(spec, seed=seed, method=MethodSpec(name=name, version=1)) for name, seed in pairs]
    records = [record(item) for item in specs]
    frame = to_frame(records)
    assert frame[["spec.method.name", "spec.seed"]].to_numpy().tolist() == [
        ["lora", 2],
        ["lora", 10],
        ["vpt", 2],
        ["vpt", 10],
    ]
    assert frame.equals(to_frame(records[::-1]))


def test_damaged_files_warn(tmp_path: Path, record: Make) -> None:
    Store(tmp_path).write(record())
    (tmp_path / "half.json").write_text("{")
    with pytest.warns(UserWarning, match=r"half\.json is not a record") as warned:
        frame = peftmark.load_results(tmp_path)
    assert (len(frame), len(warned)) == (1, 1)


def test_no_records(tmp_path: Path) -> None:
    empty = peftmark.load_results(tmp_path)
    assert len(empty) == 0
    assert empty["quality.test"].tolist() == []
    with pytest.raises(PeftmarkError, match="no results folder"):
        peftmark.load_results(tmp_path / "nowhere")

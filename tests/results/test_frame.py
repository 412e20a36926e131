"""Records as a pandas frame."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pandas
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

import peftmark
from peftmark.errors import PeftmarkError
from peftmark.results import (
    SCHEMA_VERSION,
    Compute,
    CostRecord,
    CostSpec,
    ErrorInfo,
    Memory,
    MemoryBreakdown,
    MemoryCost,
    MethodSpec,
    PhaseCost,
    RunRecord,
    RunSpec,
    Store,
    TrialFigure,
    TuningSpec,
    VariantFigure,
    costs_to_frame,
    decode_cost,
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


def test_trials_have_a_validation_figure_and_other_runs_no_search(record: Make, spec: RunSpec) -> None:
    tuning = TuningSpec(
        stage="trial", tuner="halton", trials=15, studies=3, space={"rank": "1 to 8"}, learning_rate=0.01
    )
    figure = TrialFigure(metric="accuracy", validation=61.5, predictions_sha256="ab" * 32)
    trials = [
        replace(record(of_trial), quality=None, trial=figure)
        for of_trial in (replace(spec, trial=trial, tuning=tuning) for trial in (10, 9))
    ]
    frame = to_frame([*trials, record()])
    assert frame["spec.trial"].tolist() == [0, 9, 10]
    assert frame["trial.validation"].fillna(0).tolist() == [0, 61.5, 61.5]
    assert frame["quality.test"].isna().tolist() == [False, True, True]
    assert frame["spec.tuning.stage"].isna().tolist() == [True, False, False]
    assert frame["spec.tuning.learning_rate"].tolist()[1:] == [0.01, 0.01]
    assert frame["spec.tuning.space"].tolist()[1] == {"rank": "1 to 8"}
    assert not [column for column in frame if column in ("spec.tuning", "trial")]
    assert list(to_frame([record()]).columns) == list(frame.columns)


def by_rows(records: list[RunRecord], columns: list[str]) -> pandas.DataFrame:
    """The plain way: each record becomes a flat dictionary, pandas finds the columns' types."""
    whole = {"spec.method.config", "spec.protocol.overrides", "quality.tests", "env.packages", "found"}

    def flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, item in value.items():
            name = prefix + key
            found |= flat(item, f"{name}.") if isinstance(item, dict) and name not in whole else {name: item}
        return found

    frame = pandas.DataFrame([flat(msgspec.to_builtins(each)) for each in records], columns=columns)
    order = ["spec.task.name", "spec.backbone.name", "spec.method.name", "spec.seed", "spec.trial", "run_id"]
    return frame.sort_values(order, ignore_index=True)


@given(st.lists(st.tuples(*[st.booleans()] * 5, st.integers(0, 9)), max_size=6))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_columns_have_the_types_that_rows_would_give_them(
    record: Make, spec: RunSpec, choices: list[tuple[bool, bool, bool, bool, bool, int]]
) -> None:
    """None where the record says so, NaN where a field or what it belongs to is left out."""
    records = []
    for failed, validated, listed, cloned, known, seed in choices:
        task = replace(spec.task, preprocessing="squash-bicubic-224" if listed else None)
        made = record(replace(spec, task=task, seed=seed))
        env = replace(made.env, git_sha="ab" if cloned else None, dirty=False if cloned else None)
        quality = replace(made.quality, validation=90.0 if validated else None)
        made = replace(made, env=env, quality=quality, params=made.params if known else None)
        if failed:
            made = replace(made, status="oom", quality=None, error=ErrorInfo(phase="train", type="X", message="y"))
        records.append(made)
    frame = to_frame(records)
    expected = by_rows(records, list(frame.columns))
    assert_frame_equal(frame, expected, check_exact=True)
    for name in frame.columns:  # which frames' equality does not tell apart: None, NaN; 1, 1.0, True
        assert [type(value) for value in frame[name]] == [type(value) for value in expected[name]]


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


class TestCosts:
    """`load_costs`: as `load_results`, of cost records."""

    @staticmethod
    def cost(run: RunRecord, batch_size: int = 64, **changes: object) -> CostRecord:
        spec = CostSpec(
            method=run.spec.method, backbone="timm/vit", input_shape=(3, 8, 8), num_classes=5, batch_size=batch_size
        )
        estimated = Memory(
            train_peak_allocated_bytes=15,
            train_peak_reserved_bytes=None,
            eval_peak_allocated_bytes=4,
            breakdown_bytes=MemoryBreakdown(weights=1, gradients=2, optimizer=3, activations=4, inputs=5),
        )
        made = CostRecord(
            schema_version=SCHEMA_VERSION,
            cost_id=spec.cost_id,
            spec=spec,
            status="ok",
            env=run.env,
            created=run.created,
            params=run.params,
            memory=MemoryCost(estimated=estimated, measured=None),
            compute=Compute(
                forward_flops_per_image=6,
                merged_forward_flops_per_image=None,
                train_step_flops=7,
                uncounted_ops=["add"],
            ),
        )
        return replace(made, **changes)

    def test_one_row_a_record_with_dotted_columns(self, tmp_path: Path, record: Make) -> None:
        store = Store(tmp_path)
        store.write(record())
        for batch_size in (64, 8):
            store.write_cost(self.cost(record(), batch_size))
        frame = peftmark.load_costs(tmp_path)
        assert frame["spec.batch_size"].tolist() == [8, 64]
        row = frame.iloc[1]
        assert row["spec.method.config"] == {"rank": 8, "targets": ["q", "v"], "alpha": 8.0}
        assert row["spec.backbone"] == "timm/vit"
        assert row["memory.estimated.train_peak_allocated_bytes"] == 15
        assert row["memory.estimated.breakdown_bytes.optimizer"] == 3
        assert row["compute.uncounted_ops"] == ["add"]
        assert frame["memory.measured.train_peak_allocated_bytes"].isna().all()
        assert frame["speed.train_step_ms.median"].isna().all()
        assert len(peftmark.load_results(tmp_path)) == 1  # runs only

    def test_failures_have_the_same_columns(self, record: Make) -> None:
        failed = self.cost(record(), 8, status="oom", params=None, memory=None, compute=None)
        frame = costs_to_frame([self.cost(record()), failed])
        assert list(frame.columns) == list(costs_to_frame([]).columns)
        assert frame["status"].tolist() == ["oom", "ok"]
        assert {"memory", "compute", "speed", "error"}.isdisjoint(frame.columns)

    def test_what_failed_later_keeps_what_was_known(self, record: Make) -> None:
        """Out of memory on a GPU says nothing against the estimate."""
        failed = self.cost(record(), status="oom")
        assert decode_cost(encode_record(failed), "x") == failed
        with pytest.raises(PeftmarkError, match="has memory and compute"):
            decode_cost(encode_record(self.cost(record(), memory=None)), "x")

    def test_damaged_files_warn(self, tmp_path: Path, record: Make) -> None:
        Store(tmp_path).write_cost(self.cost(record()))
        (tmp_path / "costs" / "half.json").write_text("{")
        with pytest.warns(UserWarning, match=r"half\.json is not a record"):
            assert len(peftmark.load_costs(tmp_path)) == 1
        with pytest.raises(PeftmarkError, match="no results folder"):
            peftmark.load_costs(tmp_path / "nowhere")

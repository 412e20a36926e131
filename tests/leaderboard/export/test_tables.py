"""The board's data as tables: values, types, and what becomes of hostile ones."""

from __future__ import annotations

import csv
import io
import json
import resource
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_origin

import msgspec
import pandas as pd
import pytest

from peftmark.errors import PeftmarkError
from peftmark.leaderboard.contents import read_contents
from peftmark.leaderboard.export import tables
from peftmark.leaderboard.export.places import new_file
from peftmark.leaderboard.export.tables import (
    COLUMNS,
    EXPORT,
    dictionary,
    make_table,
    write_csv,
    write_json,
    write_parquet,
)
from peftmark.leaderboard.site.folder import replacing
from peftmark.results import CostRecord, RunRecord, load_costs, load_results

if TYPE_CHECKING:
    from ..conftest import Results

HOSTILE = '<script>alert("x")</script>,\r\n\'=HYPERLINK("x")\u202e\r' + 5_000 * "x"

WRITERS = {".csv": write_csv, ".parquet": write_parquet, ".json": write_json}


def read(path: Path) -> pd.DataFrame:
    """As the README of an export says, with the dictionary's types."""
    if path.suffix == ".parquet":
        return pd.read_parquet(path)
    types = {"string": "string", "integer": "Int64", "float": "Float64", "boolean": "boolean", "json": "string"}
    kinds = {name: types[kind] for name, kind in dictionary()[path.stem].items()}
    if path.suffix == ".csv":
        return pd.read_csv(path, keep_default_na=False, na_values=[""], dtype=kinds)
    rows = json.loads(path.read_text())
    texts = [name for name, kind in dictionary()[path.stem].items() if kind == "json"]
    for row in rows:
        row |= {name: None if row[name] is None else json.dumps(row[name], ensure_ascii=False) for name in texts}
    return pd.DataFrame(rows, columns=list(kinds)).astype(kinds)


@pytest.fixture
def frame(results: Results, tmp_path: Path) -> Any:
    """One table of `results`, through a Parquet file."""

    def make(name: str) -> pd.DataFrame:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}" / f"{name}.parquet"
        write_parquet(results.root, (), path)
        return pd.read_parquet(path)

    return make


def test_results_are_the_boards_rows(results: Results, frame: Any) -> None:
    results.method("lora", "reparameterized", defaults={"rank": 8})
    results.task("embedded/digits", "natural")
    results.task("embedded/count", "structured")
    for seed, (digits, count) in enumerate(((70.0, 50.0), (72.0, 52.0))):
        results.run("lora", "embedded/digits", digits, seed=seed, config={"rank": 8})
        results.run("lora", "embedded/count", count, seed=seed, config={"rank": 8})
    results.run("lora", "embedded/digits", 80.0, config={"rank": 16})
    results.run("lora", "embedded/count", config={"rank": 16}, status="oom")
    table = frame("results")
    assert len(table) == 4
    ranked = table[table["rank"] == 1].set_index("task")
    assert list(ranked.index) == ["embedded/digits", "embedded/count"]
    assert ranked.loc["embedded/digits", ["mean", "n", "failures"]].tolist() == [71.0, 2, 0]
    assert ranked.loc["embedded/digits", "std"] == pytest.approx(2**0.5)
    assert ranked["row_mean"].tolist() == [61.0, 61.0] and ranked["row_n"].tolist() == [2, 2]
    assert ranked["group"].tolist() == ["natural", "structured"]
    assert ranked["metric"].tolist() == ["accuracy"] * 2 and ranked["unit"].tolist() == ["percent"] * 2
    assert (
        ranked["parameters"].tolist() == [1_000] * 2
        and ranked["parameters_share"].tolist() == [pytest.approx(1_000 / 1_001_000)] * 2
    )
    assert json.loads(ranked["statuses"].iloc[0]) == {"ok": 2}
    assert json.loads(ranked["runs"].iloc[0]) == [results.records[0].run_id, results.records[2].run_id]
    other = table[table["rank"].isna()].set_index("task")
    assert json.loads(other["config"].iloc[0]) == {"rank": 16}
    assert json.loads(other["differences"].iloc[0]) == ["rank=16"]
    assert other["state"].tolist() == ["partial"] * 2
    assert other["remark"].iloc[0].startswith("not ranked: covers 1 of 2 tasks")
    failed = other.loc["embedded/count"]
    assert pd.isna(failed["mean"]) and pd.isna(failed["std"]) and pd.isna(failed["row_mean"])
    assert (failed["n"], failed["failures"], json.loads(failed["statuses"])) == (0, 1, {"oom": 1})


def test_parts_and_what_is_left_out(results: Results, frame: Any) -> None:
    results.task("embedded/base2new", "open vocabulary", "openvocab")
    parts = {"base": 60.0, "new": 30.0, "H": 40.0}
    results.run("coop", "embedded/base2new", 40.0, tests=parts, metric="harmonic_mean")
    results.run("coop", "embedded/base2new", 90.0, tests=parts, seed=1, task_version=0)
    [row] = frame("results").to_dict("records")
    assert (row["metric"], row["mean"]) == ("harmonic_mean", 40.0)
    assert json.loads(row["parts"])["base"] == {"mean": 60.0, "std": None, "n": 1}
    runs = frame("runs").set_index("run_id")
    kept, old = (record.run_id for record in results.records)
    assert runs.loc[kept, "board.row"] == row["row"] and pd.isna(runs.loc[kept, "board.left_out"])
    assert pd.isna(runs.loc[old, "board.row"])
    assert runs.loc[old, "board.left_out"] == "version 0 of embedded/base2new, which is at version 1"


def test_tuned_rows(results: Results, frame: Any) -> None:
    """Studies of trials 0, 1, 2 and 0, 3, 4; the second one's choice failed."""
    results.search("lora", "embedded/digits", [60.0, 50.0, 70.0, 65.0, 50.0], {2: (71.0, 73.0), 3: (80.0, None)})
    results.search("coop", "embedded/digits", [60.0, 50.0, 70.0, 65.0, 50.0], {2: (71.0, 73.0), 3: (80.0, 82.0)})
    results.run("coop", "embedded/digits", 75.0, seed=1, config={"rank": 8})
    table = frame("results")
    tuned = table[table["trials"].notna()].set_index("method")
    assert tuned.loc["coop", ["tuner", "trials", "studies", "rank"]].tolist() == ["halton", 6, 2, 1]
    assert tuned.loc["coop", ["mean", "row_mean", "n", "gain"]].tolist() == [76.5, 76.5, 2, 1.5]
    assert json.loads(tuned.loc["coop", "study_means"]) == [72.0, 81.0]
    assert pd.isna(tuned.loc["lora", "mean"]), "the median of one of two is infinitely bad"
    assert tuned.loc["lora", "failures"] == 1 and not tuned.loc["lora", "complete"]
    finals = {2: (71.0, 73.0), 3: (80.0, None), 0: (60.0, 64.0)}
    results.search("dora", "embedded/digits", [60.0, 50.0, 70.0, 65.0], finals, studies=3)
    failed = frame("results").set_index("method").loc["dora"]
    assert (failed["mean"], json.loads(failed["study_means"])) == (62.0, [72.0, None, 62.0])
    runs = frame("runs")
    trials = runs["spec.tuning.stage"] == "trial"
    assert (
        trials.sum() == 14
        and runs.loc[trials, "board.row"].isna().all()
        and runs.loc[trials, "quality.test"].isna().all()
    )
    assert runs.loc[~trials, "board.row"].notna().all()


def test_costs_and_their_ratios(results: Results, frame: Any) -> None:
    results.cost("full", 8 * 10**8)
    lora = results.cost("lora", 4 * 10**8, flops=2**53 + 1, train_flops=10**12)
    timed = results.cost("lora", 4 * 10**8, hardware="cuda:x", measured=5 * 10**8, step_ms=134.0)
    results.cost("lora", status="oom", hardware="cuda:y")
    costs = frame("costs").set_index("cost_id")
    assert len(costs) == 4
    assert costs.loc[lora.cost_id, "board.memory_relative_to_full"] == 0.5
    assert costs.loc[lora.cost_id, "board.train_flops_relative_to_full"] == 0.25
    assert costs.loc[lora.cost_id, "compute.forward_flops_per_image"] == 2**53 + 1, "no float can hold it"
    assert costs.loc[timed.cost_id, "board.row"] == costs.loc[lora.cost_id, "board.row"]
    assert costs.loc[timed.cost_id, "speed.train_step_ms.median"] == 134.0
    assert pd.isna(costs.loc[timed.cost_id, "board.memory_relative_to_full"])
    assert json.loads(costs.loc[lora.cost_id, "spec.input_shape"]) == [3, 224, 224]


@pytest.mark.parametrize("suffix", WRITERS)
def test_everything_survives(full_results: Results, tmp_path: Path, suffix: str) -> None:
    full_results.run(HOSTILE, "embedded/digits", 1 / 3, config={HOSTILE: [HOSTILE, None, 0.1]}, deviation=HOSTILE)
    full_results.run("NA", "embedded/digits", status="error", message=HOSTILE)
    full_results.run("a\rb", "embedded/digits", 5.0)
    out = tmp_path / "out"
    with pytest.warns(UserWarning, match="2 files could not be read and are left out: `peftmark validate .*` says why"):
        paths = WRITERS[suffix](full_results.root, (), out)
    assert sorted(paths) == sorted(path for path in out.iterdir() if path.name[0] != ".")
    contents = read_contents(full_results.root)
    assert (len(contents.records), len(contents.costs)) == (len(full_results.records), len(full_results.costs))
    for name in ("runs", "results", "costs"):
        expected, found = make_table(contents, name), read(out / f"{name}{suffix}")
        assert list(found) == list(expected) == list(dictionary()[name])
        for column, values in expected.items():
            back = [None if value is pd.NA else value for value in found[column].astype(object)]
            if dictionary()[name][column] == "json":
                back = [None if value is None else json.loads(value) for value in back]
                values = json.loads(json.dumps(values))  # a tuple is a list
            assert back == values, (name, column)
    runs = read(out / f"runs{suffix}")
    assert {HOSTILE, "NA", "a\rb"} <= set(runs["spec.method.name"])
    with pytest.warns(UserWarning, match="2 files"):
        again = WRITERS[suffix](full_results.root, (), out)
    assert again == paths, "an earlier export is replaced"


def test_the_frames_of_results_have_the_same_values(full_results: Results, tmp_path: Path) -> None:
    for damaged in ("0000000000000000.json", "costs/0000000000000000.json"):
        (full_results.root / damaged).unlink()
    write_parquet(full_results.root, (), tmp_path / "out")
    runs, costs = load_results(full_results.root), load_costs(full_results.root)
    for name, expected in (("runs", runs), ("costs", costs)):
        found = pd.read_parquet(tmp_path / "out" / f"{name}.parquet")
        key = {"runs": "run_id", "costs": "cost_id"}[name]
        assert found[key].tolist() == expected[key].tolist(), "the same order"
        assert [column for column in found if not column.startswith("board.")] == list(expected)


def columns_of(struct: type[msgspec.Struct], prefix: str = "") -> dict[str, str]:
    """Names and types of a record's columns, as its fields say them."""
    kinds = {int: "integer", float: "float", bool: "boolean", str: "string"}
    found: dict[str, str] = {}
    for item in msgspec.structs.fields(struct):
        types = [t for t in (get_args(item.type) or (item.type,)) if t not in (type(None), msgspec.UnsetType)]
        if get_origin(item.type) in (list, dict, tuple):
            found[prefix + item.name] = "json"
        elif isinstance(types[0], type) and issubclass(types[0], msgspec.Struct):
            found |= columns_of(types[0], f"{prefix}{item.name}.")
        else:
            one = types[0] if isinstance(types[0], type) else str  # a literal
            found[prefix + item.name] = "json" if get_origin(types[0]) in (list, dict, tuple) else kinds[one]
    return found


@pytest.mark.parametrize(("name", "kind"), [("runs", RunRecord), ("costs", CostRecord)])
def test_the_dictionary_knows_every_field_of_a_record_and_its_type(name: str, kind: type[msgspec.Struct]) -> None:
    stated = {column: type_ for column, type_ in dictionary()[name].items() if not column.startswith("board.")}
    assert stated == columns_of(kind)


def test_the_dictionary_says_what_every_column_means() -> None:
    rows = list(csv.DictReader(io.StringIO(COLUMNS.read_text())))
    assert all(row["meaning"] and None not in row and row["type"] in tables._TYPES for row in rows)
    names = [(row["table"], row["column"]) for row in rows]
    assert len(set(names)) == len(names)
    units = {row["column"]: row["unit"] for row in rows if row["column"].rpartition(".")[2].endswith("bytes")}
    assert set(units.values()) == {"bytes"}


def test_costs_alone_and_runs_alone(results: Results, tmp_path: Path) -> None:
    results.cost("lora", 4 * 10**8)
    write_parquet(results.root, (), tmp_path / "out")
    assert len(pd.read_parquet(tmp_path / "out" / "runs.parquet")) == 0
    assert list(pd.read_parquet(tmp_path / "out" / "results.parquet")) == list(dictionary()["results"])
    write_csv(results.root, (), tmp_path / "csv")
    assert (tmp_path / "csv" / "runs.csv").read_text().startswith("schema_version,run_id,")
    [path] = write_json(results.root, (), tmp_path / "runs.json")
    assert json.loads(path.read_text()) == []


def test_numbers_that_no_table_holds(results: Results, tmp_path: Path) -> None:
    results.cost("lora", 4 * 10**8, train_flops=2**70)
    with pytest.raises(
        PeftmarkError, match=r"a number in compute.train_step_flops has more than 64 bits; --format json"
    ):
        write_parquet(results.root, (), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    write_json(results.root, (), tmp_path / "out")
    assert json.loads((tmp_path / "out" / "costs.json").read_text())[0]["compute.train_step_flops"] == 2**70


def test_what_is_there_is_never_overwritten(results: Results, tmp_path: Path) -> None:
    results.run("lora", "embedded/digits", 70.0)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("years of work")
    (tmp_path / "runs.csv").write_text("mine")
    (tmp_path / "results.csv").symlink_to("nowhere")
    board = results.build(tmp_path / "board")
    for out, message in (
        (mine, "mine is not empty and not an export: name another folder, or empty it"),
        (mine / "thesis.tex", "thesis.tex is a file: name a folder for the export"),
        (board, "board is not empty and not an export"),
        (tmp_path / "runs.csv", "runs.csv is there already, and is not overwritten: name another with --out"),
        (tmp_path / "results.csv", "results.csv is there already"),
        (tmp_path / "board.csv", "name a folder for all tables, or a file for one of them: costs.csv, results.csv, r"),
        (results.root, "the export's folder .* and the results folder .* must not lie in one another"),
        (results.root / "out", "must not lie in one another"),
    ):
        with pytest.raises(PeftmarkError, match=message):
            write_csv(results.root, (), out)
    assert (mine / "thesis.tex").read_text() == "years of work"
    assert (tmp_path / "runs.csv").read_text() == "mine"
    assert not (tmp_path / "board.csv").exists() and not list(tmp_path.glob(".*"))


def test_a_file_that_came_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    with pytest.raises(PeftmarkError, match=r"runs.csv is there already"), new_file(path):
        path.write_text("mine")
    assert path.read_text() == "mine" and list(tmp_path.iterdir()) == [path]
    with pytest.raises(PeftmarkError, match=r"runs.csv is there already"), new_file(path):
        pass


def test_mistakes(results: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PeftmarkError, match=r"no results folder .*: run `peftmark run` first"):
        write_csv(results.root, (), tmp_path / "out")
    results.root.mkdir()
    with pytest.raises(PeftmarkError, match="no records in "):
        write_csv(results.root, (), tmp_path / "out")
    results.run("lora", "embedded/digits", 70.0)
    with pytest.raises(PeftmarkError, match="tables are of all runs: leave RUN out"):
        write_csv(results.root, (results.records[0].run_id,), tmp_path / "out")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(PeftmarkError, match=r"pip install 'peftmark\[export\]', or take --format csv"):
        write_parquet(results.root, (), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_where_nothing_can_be_written(read_only: Path) -> None:
    refused = r"cannot write .*/{} \(Permission denied\): choose another"
    with pytest.raises(PeftmarkError, match=refused.format("runs.csv")), new_file(read_only / "runs.csv"):
        pass
    with pytest.raises(PeftmarkError, match=refused.format("out")), replacing(read_only / "out", EXPORT):
        pass


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize("one", [False, True])
def test_a_disk_that_is_full_after_some_bytes(results: Results, tmp_path: Path, suffix: str, one: bool) -> None:
    """What was there stays, and nothing half is left."""
    results.run("lora", "embedded/digits", 70.0)
    out = tmp_path / f"runs{suffix}" if one else tmp_path / "out"
    if not one:
        WRITERS[suffix](results.root, (), out)
    before = sorted(path.name for path in tmp_path.iterdir()), sorted(out.iterdir()) if out.exists() else None

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, limits[1]))
    try:
        with pytest.raises(PeftmarkError, match=r"cannot write .* \(File too large\): choose another"):
            WRITERS[suffix](results.root, (), out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (sorted(path.name for path in tmp_path.iterdir()), sorted(out.iterdir()) if out.exists() else None) == before

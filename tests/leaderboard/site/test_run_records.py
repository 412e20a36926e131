"""What `run.html` loads: every record to the last digit, with what the board knows of it."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from peftmark.leaderboard.site.run_records import digits_of_a_file, outcome, write_run_records
from peftmark.results import decode_record

if TYPE_CHECKING:
    from ..conftest import Results


def loaded(site: Path) -> Mapping[str, tuple[dict[str, Any], str, Path]]:
    """By run id: what is known besides, the record as text, and its file."""
    found = {}
    for path in sorted((site / "data" / "runs").iterdir()):
        head, *lines, tail = path.read_text("utf-8").splitlines()
        assert (head, tail) == ("peftmark.loaded({", "});")
        for line in lines:
            name, _, rest = line.partition(":")
            about, _, record = rest.strip(",")[1:-1].partition(",'")
            # such a text is one in Python, too
            found[json.loads(name)] = json.loads(about), ast.literal_eval(f"'{record}"), path
    return found


def test_every_record_is_there_as_it_is(full_results: Results, tmp_path: Path) -> None:
    site = full_results.build(tmp_path / "board")
    found = loaded(site)
    assert found.keys() == {record.run_id for record in full_results.records}
    for record in full_results.records:
        about, text, path = found[record.run_id]
        assert decode_record(text.encode(), "copy") == record
        assert path.stem == record.run_id[:1]
        assert about["command"].startswith("peftmark run --method")
    assert '"rank":16' in found[next(r.run_id for r in full_results.records if r.spec.method.config == {"rank": 16})][1]
    for path in (site / "data").rglob("*.js"):
        assert "<" not in path.read_text("utf-8"), path


@pytest.mark.parametrize(
    "message", ["it's", 'a "b" \\" c', "a\\", "line\nline\r\u2028\u2029", "<!--</script>", "\u202e"]
)
def test_any_text_comes_through(results: Results, tmp_path: Path, message: str) -> None:
    record = results.run("it's <b>", "vtab/a", status="oom", message=message)
    about, text, _ = loaded(results.build(tmp_path / "board"))[record.run_id]
    assert decode_record(text.encode(), "copy") == record
    assert about["command"].startswith("""peftmark run --method 'it'"'"'s <b>' --backbone""")


def test_numbers_are_written_as_in_the_record(results: Results, tmp_path: Path) -> None:
    """1.0 and 1 make two ids: what JavaScript makes of a number may not come into the file that is downloaded."""
    record = results.run("lora", "vtab/a", 50.0, config={"alpha": 8.0, "rank": 8})
    _, text, _ = loaded(results.build(tmp_path / "board"))[record.run_id]
    assert '"config":{"alpha":8.0,"rank":8}' in text


def test_where_a_run_stands(results: Results, tmp_path: Path) -> None:
    one = results.run("lora", "vtab/a", 50.0)
    two = results.run("lora", "vtab/a", status="oom", seed=1)
    other = results.run("lora", "vtab/a", 60.0, seed=2, overrides={"epochs": 2})
    results.run("lora", "vtab/a", 60.0, seed=1, split="most", method_version=2)
    results.run("full", "vtab/a", 60.0, seed=1, split="most")
    site = results.build(tmp_path / "board")
    found = loaded(site)
    row = row_of(site, found[one.run_id][0])
    page, _, anchor = row["table"].partition("#")
    assert f'id="{anchor}"' in (site / page).read_text("utf-8")
    assert (row["remark"], row["rank"], row["tuned"]) == ("not ranked: the method is at version 2", None, False)
    assert row["cells"] == [["vtab/a", {"figure": "50.0", "studies": 0, "runs": [[one.run_id, 0, "50.0"]]}]]
    assert "departs from the protocol" in row_of(site, found[other.run_id][0])["remark"]
    assert found[two.run_id][0]["left_out"] == "another split of vtab/a than most runs have"
    assert "row" not in found[two.run_id][0]


def row_of(site: Path, about: Mapping[str, Any]) -> dict[str, Any]:
    text = (site / "data" / "rows" / f"{about['row']}.js").read_text("utf-8")
    [(key, row)] = json.loads(text.removeprefix("peftmark.ranked(").removesuffix(");\n")).items()
    assert key == about["row"]
    return dict(row)


def test_what_the_runs_of_a_search_have_in_common(results: Results, tmp_path: Path) -> None:
    made = results.search("lora", "vtab/a", [60.0, None, 70.0], {2: (50.0, None)}, budget=3, studies=1)
    site = results.build(tmp_path / "board")
    found = loaded(site)
    [name] = {about["search"] for about, _, _ in found.values()}
    text = (site / "data" / "searches" / f"{name}.js").read_text("utf-8")
    [search] = json.loads(text.removeprefix("peftmark.searched(").removesuffix(");\n")).values()
    assert (search["words"], search["tuner"], search["studies"], search["missing"]) == ("3 trials", "halton", 1, [])
    assert [(each["trial"], each["figure"], each["chosen"]) for each in search["trials"]] == [
        *((0, "60.0", []), (1, "diverged", []), (2, "70.0", [1]))
    ]
    assert search["trials"][2]["settings"] == ["learning_rate=0.002", "rank=16"]
    assert search["trials"][2]["finals"] == [[made[3].run_id, 1, "50.0"], [made[4].run_id, 2, "diverged"]]
    trial, final = found[made[0].run_id][0], found[made[3].run_id][0]
    assert "row" not in trial and "left_out" not in trial
    row = row_of(site, final)
    assert row["tuned"] and row["cells"][0][1]["runs"] == []
    assert "--seed 1 --seed 2 --trials 3" in trial["command"]


def test_files_are_of_the_size_that_is_wanted(results: Results, tmp_path: Path) -> None:
    for seed in range(200):
        results.run("lora", "vtab/a", 50.0, seed=seed)
    records = sorted(results.records, key=lambda run: run.run_id)
    size = len(msgspec.json.encode(records[0]))
    assert digits_of_a_file(records, 10**6) == 1
    assert digits_of_a_file(records, 4 * size) == 2
    assert digits_of_a_file([], 4 * size) == 1
    digits = write_run_records(records, results.board(), results.subjects(), tmp_path, 4 * size)
    assert digits == 2
    found = loaded(tmp_path)
    assert list(found) == [record.run_id for record in records]
    assert all(path.stem == run_id[:2] for run_id, (_, _, path) in found.items())
    assert max(path.stat().st_size for path in (tmp_path / "data" / "runs").iterdir()) < 16 * size


def test_an_outcome_is_a_figure_or_why_there_is_none(results: Results) -> None:
    assert outcome(results.run("a", "vtab/a", 50.0)) == "50.0"
    assert outcome(results.run("a", "vtab/b", status="oom")) == "oom"
    assert [outcome(run) for run in results.search("a", "vtab/c", [61.26], {})] == ["61.3"]

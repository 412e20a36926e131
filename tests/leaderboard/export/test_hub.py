"""Runs as Hugging Face model cards: what the Hub's own classes read of them, and what a hostile text becomes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from huggingface_hub import EvalResultEntry, ModelCard, parse_eval_result_entries
from markdown_it import MarkdownIt

from peftmark.errors import PeftmarkError
from peftmark.leaderboard.export.hub import ADAPTER, write_model_cards
from peftmark.leaderboard.export.markdown import block, code, prose, table, text
from peftmark.results import RunRecord, decode_record

if TYPE_CHECKING:
    from ..conftest import Results

HOSTILE = (
    "\n---\nlicense: mit\n---\n# <script>alert(1)</script> | ``` `x` ![i](http://x.example/i.png) \u202e {{ 7 * 7 }}"
    "<!-- $$x$$ @{} | \\| [a](javascript:alert(1)) " + 5_000 * "x"
)


def entries(folder: Path) -> list[EvalResultEntry]:
    [file] = (folder / ".eval_results").iterdir()
    assert file.suffix == ".yaml"
    return parse_eval_result_entries(yaml.safe_load(file.read_text()))


def body(folder: Path) -> str:
    return ModelCard.load(folder / "README.md").text


@pytest.fixture
def lora(results: Results) -> RunRecord:
    results.method("lora", "reparameterized", "Low rank (Hu et al. 2022, arXiv:2106.09685).", defaults={"rank": 8})
    results.task("embedded/digits", "natural", num_classes=10, chance_percent=10.0, caution="It is small.")
    return results.run("lora", "embedded/digits", 71.25, config={"rank": 16}, seed=3, tests={"test": 71.25})


def test_what_the_hub_reads(results: Results, lora: RunRecord, tmp_path: Path) -> None:
    paths = write_model_cards(results.root, (lora.run_id,), tmp_path / "card")
    names = ["README.md", ".eval_results/embedded__digits.yaml", f"{lora.run_id}.json"]
    assert paths == [tmp_path / "card" / name for name in names]
    data = ModelCard.load(tmp_path / "card" / "README.md").data
    assert (data.library_name, data.pipeline_tag, data.metrics) == ("peftmark", "image-classification", ["accuracy"])
    assert data.tags == ["peftmark", "parameter-efficient-fine-tuning", "lora"]
    assert data.model_name == "lora on embedded/vit, embedded/digits"
    [result] = data.eval_results
    assert (result.task_type, result.dataset_type, result.dataset_split) == (
        "image-classification",
        "embedded/digits",
        "test",
    )
    assert (result.metric_type, result.metric_value, result.metric_name) == ("accuracy", 71.25, "accuracy (percent)")
    assert result.metric_args == {"unit": "percent", "n": 100, "higher_is_better": True}
    assert result.dataset_args == {"version": 1, "split_sha256": lora.spec.task.split_sha256}
    said = data.to_dict()["peftmark"]
    assert (said["run_id"], said["seed"], said["protocol"]) == (
        lora.run_id,
        3,
        {"name": "embedded-v1", "overrides": {}},
    )
    assert said["method"] == {"name": "lora", "version": 1, "config": {"rank": 16}}
    assert "license" not in data.to_dict() and "base_model" not in data.to_dict(), "nobody told"
    [entry] = entries(tmp_path / "card")
    assert (entry.dataset_id, entry.task_id, entry.value) == ("embedded/digits", "accuracy", 71.25)
    assert entry.date == "2026-11-24T03:00:00+00:00"
    assert entry.notes == (
        "lora on embedded/vit, protocol embedded-v1, seed 3; in percent, n = 100; peftmark run " + lora.run_id
    )
    kept = (tmp_path / "card" / f"{lora.run_id}.json").read_bytes()
    assert decode_record(kept, "kept") == lora


def test_what_a_reader_reads(results: Results, lora: RunRecord, tmp_path: Path) -> None:
    write_model_cards(results.root, (lora.run_id,), tmp_path / "card")
    said = body(tmp_path / "card")
    for sentence in (
        "# lora on embedded/vit, embedded/digits\n",
        "**accuracy 71.25%** on 100 test examples; chance is 10.0; higher is better.",
        "> It is small.",
        "Low rank (Hu et al. 2022, [arXiv:2106.09685](<https://arxiv.org/abs/2106.09685>)).",
        "| test | accuracy | 71.25 | percent | 100 |",
        "| validation | accuracy | 50.0 | percent |  |",
        "| trained, without the head | 1,000 |",
        "| `method.rank` | `16` |",
        "```sh\npeftmark run --method lora --backbone embedded/vit --task embedded/digits --seed 3 "
        "--protocol embedded-v1 --set method.rank=16\n```",
        "| hardware | cpu:two cores, cpu, threads: 1 |",
        "There are no weights",
        "@misc{peftmark,",
        "@misc{arXiv:2106.09685,",
    ):
        assert sentence in said, sentence
    assert "Departs" not in said


def test_several_test_splits(results: Results, tmp_path: Path) -> None:
    results.task("embedded/base2new", "open vocabulary", "openvocab", num_classes=40)
    parts = {"base": 60.0, "new": 30.0}
    run = results.run("coop", "embedded/base2new", 40.0, tests=parts, metric="harmonic_mean")
    write_model_cards(results.root, (run.run_id,), tmp_path / "card")
    found = ModelCard.load(tmp_path / "card" / "README.md").data.eval_results
    assert [(each.dataset_split, each.metric_type, each.metric_value, each.metric_args["n"]) for each in found] == [
        ("all tests", "harmonic_mean", 40.0, 100),
        ("base", "accuracy", 60.0, 50),
        ("new", "accuracy", 30.0, 50),
    ]
    assert {each.task_type for each in found} == {"zero-shot-image-classification"}
    assert [(entry.task_id, entry.value) for entry in entries(tmp_path / "card")] == [
        ("harmonic_mean", 40.0),
        ("base", 60.0),
        ("new", 30.0),
    ]


def test_another_kind_of_question_is_not_called_a_classification(results: Results, tmp_path: Path) -> None:
    results.task("mine/angles", "angles")
    made = {"metric": "mean_error", "unit": "radians", "higher_is_better": False}
    run = results.run("lora", "mine/angles", 0.25, **made)
    write_model_cards(results.root, (run.run_id,), tmp_path / "card")
    data = ModelCard.load(tmp_path / "card" / "README.md").data
    assert data.pipeline_tag is None
    [result] = data.eval_results
    assert (result.task_type, result.metric_type, result.metric_args["unit"]) == ("other", "mean_error", "radians")
    assert result.metric_args["higher_is_better"] is False
    assert "**mean error 0.25 radians** on 100 test examples; lower is better." in body(tmp_path / "card")


def test_a_departure_and_a_search_are_said(results: Results, tmp_path: Path) -> None:
    departed = results.run("lora", "embedded/digits", 80.0, overrides={"epochs": 2})
    search = results.search(
        "lora", "embedded/digits", [60.0, 50.0, 70.0, 65.0, 50.0], {2: (71.0, 73.0), 3: (80.0, 8.0)}
    )
    final = search[5]
    write_model_cards(results.root, (departed.run_id, final.run_id), tmp_path / "cards")
    assert sorted(path.name for path in (tmp_path / "cards").iterdir()) == sorted([departed.run_id, final.run_id])
    said = body(tmp_path / "cards" / departed.run_id)
    assert "**Departs from its protocol and is not ranked**: epochs=2." in said
    assert "--set protocol.epochs=2" in said
    [entry] = entries(tmp_path / "cards" / departed.run_id)
    assert entry.notes is not None and "seed 0; departs from the protocol; in percent" in entry.notes
    said = body(tmp_path / "cards" / final.run_id)
    assert "What a search of 6 trials chose on validation data: trial 2, learning rate 0.002." in said
    assert "--seed 1 --seed 2 --trials 6 --studies 2" in said, "a command repeats all of the search"


def test_the_adapter_goes_along_where_it_is_the_runs(results: Results, lora: RunRecord, tmp_path: Path) -> None:
    assert lora.storage is not None
    (results.root / "adapters").mkdir()
    file = results.root / "adapters" / f"{lora.run_id}.safetensors"
    file.write_bytes(b"x" * (lora.storage.adapter_bytes - 1))
    write_model_cards(results.root, (lora.run_id,), tmp_path / "short")
    assert not (tmp_path / "short" / ADAPTER).exists()
    file.write_bytes(b"x" * lora.storage.adapter_bytes)
    paths = write_model_cards(results.root, (lora.run_id,), tmp_path / "card")
    assert (tmp_path / "card" / ADAPTER) in paths
    assert (tmp_path / "card" / ADAPTER).read_bytes() == file.read_bytes()
    assert "`adapter.safetensors`: what was trained" in body(tmp_path / "card")


def test_runs_that_have_no_figure_and_runs_that_are_not_there(results: Results, tmp_path: Path) -> None:
    failed = results.run("lora", "embedded/digits", status="oom", message="no room\nat all " + 5_000 * "x")
    [trial, *_] = results.search("coop", "embedded/digits", [60.0], {})
    fine = results.run("lora", "embedded/digits", 70.0, seed=1)
    for runs, message in (
        ((), "--format hub: name the RUN, by the id that its record's file is named after"),
        (
            (fine.run_id, "0" * 16, "../x"),
            f"no record of {'0' * 16}, ../x in {re.escape(str(results.root))}: a record's",
        ),
        ((fine.run_id, failed.run_id), f"a run that was tested: {failed.run_id} ended as oom in adapt: no room"),
        ((trial.run_id,), f"{trial.run_id} is a search's trial, which sees no test split .export the final run"),
    ):
        with pytest.raises(PeftmarkError, match=message) as raised:
            write_model_cards(results.root, runs, tmp_path / "card")
        assert len(str(raised.value)) < 600
    assert not (tmp_path / "card").exists()
    (results.root / f"{fine.run_id}.json").write_text("{")
    with pytest.raises(PeftmarkError, match="is not a record"):
        write_model_cards(results.root, (fine.run_id,), tmp_path / "card")
    with pytest.raises(PeftmarkError, match="no results folder"):
        write_model_cards(tmp_path / "none", (fine.run_id,), tmp_path / "card")


def test_what_is_there_is_never_overwritten(results: Results, lora: RunRecord, tmp_path: Path) -> None:
    card = tmp_path / "card"
    card.mkdir()
    (card / "model.py").write_text("mine")
    first = write_model_cards(results.root, (lora.run_id,), card)
    stamps = {path: path.stat().st_mtime_ns for path in first}
    assert write_model_cards(results.root, (lora.run_id,), card) == first
    assert {path: path.stat().st_mtime_ns for path in first} == stamps, "the same is there already"
    (card / "README.md").write_text("my own words")
    (card / f"{lora.run_id}.json").unlink()
    with pytest.raises(PeftmarkError, match=r"card/README.md is there with other contents, and is not overwritten"):
        write_model_cards(results.root, (lora.run_id,), card)
    assert (card / "README.md").read_text() == "my own words" and (card / "model.py").read_text() == "mine"
    assert not (card / f"{lora.run_id}.json").exists(), "nothing is written where something is in the way"
    with pytest.raises(PeftmarkError, match=r"cannot write .*model.py/README.md \(.*\): choose another place"):
        write_model_cards(results.root, (lora.run_id,), card / "model.py")


def test_hostile_texts_are_text(results: Results, tmp_path: Path) -> None:
    name = f"m/{HOSTILE}"
    facts = {"track": "image", "num_classes": 2, "caution": HOSTILE}
    for kind, named in (("methods", name), ("tasks", HOSTILE), ("backbones", HOSTILE)):
        folder = results.root / "cards" / kind
        folder.mkdir(parents=True)
        card = {"name": named, "family": HOSTILE, "doc": HOSTILE, "origin": HOSTILE, "facts": facts}
        (folder / "card.json").write_text(json.dumps(card))
    made = {"metric": HOSTILE, "unit": HOSTILE, "deviation": HOSTILE, "backbone": HOSTILE}
    run = results.run(name, HOSTILE, 1.0, config={HOSTILE: HOSTILE}, tests={HOSTILE: 1.0, "b": 2.0}, **made)
    paths = write_model_cards(results.root, (run.run_id,), tmp_path / "card")
    assert {path.parent for path in paths} <= {tmp_path / "card", tmp_path / "card" / ".eval_results"}
    data = ModelCard.load(tmp_path / "card" / "README.md").data
    assert "license" not in data.to_dict()
    assert data.to_dict()["peftmark"]["method"]["name"] == name
    assert [each.dataset_split for each in data.eval_results] == ["all tests", HOSTILE, "b"]
    assert data.eval_results[0].dataset_type == HOSTILE
    assert [entry.task_id for entry in entries(tmp_path / "card")] == [HOSTILE, HOSTILE, "b"]
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(body(tmp_path / "card"))
    inner = [child for token in tokens for child in token.children or ()]
    assert {token.type for token in tokens + inner} & {"html_block", "html_inline", "image"} == set()
    assert {str(token.attrs["href"]) for token in inner if token.type == "link_open"} == {"http://x.example/i.png"}
    headings = [tokens[i + 1].content for i, token in enumerate(tokens) if token.type == "heading_open"]
    assert headings[1:] == [
        *("Method", "Backbone", "Task", "Results", "Parameters", "Settings", "Reproduce"),
        *("Environment", "Files", "Citation"),
    ]


def columns(markdown: str) -> list[list[str]]:
    """The cells of a table as they are shown."""
    rows: list[list[str]] = []
    tokens = MarkdownIt("commonmark").enable("table").parse(markdown)
    for place, token in enumerate(tokens):
        if token.type == "tr_open":
            rows.append([])
        if token.type in ("td_open", "th_open"):
            rows[-1].append("".join(child.content for child in tokens[place + 1].children or ()))
    return rows


@pytest.mark.parametrize(
    "words",
    ["a|b", "a\\|b", "|", "`", "a`|`b", "``|", "*a* _b_", "<b>&amp;", "\\", "[x](y)", "![x](y)", "1. # x", "~~x~~"],
)
def test_cells(words: str) -> None:
    [head, row] = columns(table(["x", "y"], [[text(words), "z"]]))
    assert (head, row) == (["x", "y"], [words, "z"])
    [_, row] = columns(table(["x", "y"], [[code(words), "z"]]))
    assert row[1:] == ["z"] and row[0].replace("\\", "") == words.replace("\\", "")


def test_prose_and_blocks() -> None:
    assert prose("A `b`\nflows (arXiv:2106.09685).\n\n``c`` d") == (
        "A `b` flows ([arXiv:2106.09685](<https://arxiv.org/abs/2106.09685>)).\n\n`c` d"
    )
    assert prose("Words\n---\n\n<b>") == "Words\n\\---\n\n\\<b\\>"
    assert block("a\n````\nb", "sh") == "`````sh\na\n````\nb\n`````"


def test_no_network(results: Results, lora: RunRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError("no network")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("socket.getaddrinfo", refuse)
    write_model_cards(results.root, (lora.run_id,), tmp_path / "card")
    assert json.loads((tmp_path / "card" / f"{lora.run_id}.json").read_text())["run_id"] == lora.run_id

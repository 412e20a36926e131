"""The site as files: complete, closed, escaped, deterministic, and put in place whole."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import pytest

from peftmark.errors import PeftmarkError
from peftmark.leaderboard import build_board
from peftmark.leaderboard.site.folder import BOARD
from peftmark.leaderboard.site.libraries import CHARTS, TABLES
from peftmark.results import Card, write_card

if TYPE_CHECKING:
    from ..conftest import Results

LOADING = {"img", "script", "link", "iframe", "source", "use", "image", "object", "embed", "video", "audio"}


class Page(HTMLParser):
    """A page's references, ids and elements."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.references: list[tuple[str, str]] = []
        self.ids: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        for name, value in attrs:
            if name in ("href", "src", "xlink:href", "action", "srcset", "data") and value is not None:
                self.references.append((tag, value))
            if name == "id" and value is not None:
                self.ids.append(value)


def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}


@pytest.fixture
def site(full_results: Results, tmp_path: Path) -> Path:
    return full_results.build(tmp_path / "board")


def test_every_reference_resolves_within_the_site(full_results: Results, site: Path) -> None:
    parsed = pages(site)
    runs = {record.run_id for record in full_results.records}
    assert len(parsed) > 20
    for path, page in parsed.items():
        for tag, reference in page.references:
            parts = urlsplit(reference)
            if parts.scheme:
                assert tag == "a" and parts.scheme == "https", f"{path}: {reference}"
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            assert target.is_relative_to(site.resolve()) and target.is_file(), f"{path}: {reference}"
            if target.name == "run.html" != path.name and parts.fragment:
                assert parts.fragment in runs, f"{path}: {reference}"
            elif parts.fragment and target.suffix == ".html":
                assert unquote(parts.fragment) in parsed[site / target.relative_to(site.resolve())].ids, (
                    f"{path}: {reference}"
                )


def test_nothing_is_loaded_from_the_network(site: Path) -> None:
    for path, page in pages(site).items():
        for tag, reference in page.references:
            assert not (tag in LOADING and re.match(r"(?i)(https?:)?//", reference)), f"{path}: {reference}"
    static = site / "static"
    own = {*static.rglob("*.css"), *static.rglob("*.js")} - {static / name for name in (TABLES, CHARTS)}
    for path in sorted(own):
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|@import|url\(", path.read_text(encoding="utf-8")), (
            path
        )


def test_texts_of_records_and_cards_are_escaped(site: Path) -> None:
    for path, page in pages(site).items():
        for tag, attributes in page.elements:
            assert tag not in ("b", "i", "u"), path
            assert tag != "script" or set(attributes) == {"src", "defer"}, path
        assert "<script>alert" not in path.read_text(encoding="utf-8"), path
    assert "&lt;script&gt;alert" in (site / "index.html").read_text(encoding="utf-8")


def test_ids_are_unique(site: Path) -> None:
    for path, page in pages(site).items():
        named = [name for name in page.ids if not re.fullmatch(r"[mp][0-9a-f]{10}", name)]  # the plots' own
        assert len(named) == len(set(named)), path


def test_damaged_files_are_told(site: Path) -> None:
    text = (site / "index.html").read_text(encoding="utf-8")
    assert "2 files in the results folder could not be read" in text
    assert "<li>0000000000000000.json is not a record" in text
    assert "<li>costs/0000000000000000.json is not a record" in text


def test_what_is_left_out_is_said_with_the_place_of_the_reasons(results: Results, tmp_path: Path) -> None:
    out, lines = tmp_path / "board", list[str]()
    results.run("lora", "vtab/a", 50.0)
    build_board(results.root, out, tell=lines.append)
    assert lines == [] and not (out / "left_out.html").exists()
    assert "Left out" not in (out / "index.html").read_text("utf-8")
    results.run("full", "vtab/a", 50.0)
    other = results.run("linear", "vtab/a", 50.0, split="another")
    newer = json.loads((results.root / f"{other.run_id}.json").read_text())
    (results.root / "0000000000000000.json").write_text(json.dumps({**newer, "schema_version": 2}))
    build_board(results.root, out, tell=lines.append)
    assert lines == [
        f"1 file could not be read and is left out; why: {out / 'left_out.html'}",
        f"1 run stands in no table; why: {out / 'left_out.html'}",
    ]
    for number in range(1, 1501):
        (results.root / f"{number:016x}.json").write_text("{")
    results.run("linear", "vtab/a", 50.0, split="another", seed=1)
    results.run("lora", "vtab/a", 50.0, seed=1)
    results.run("full", "vtab/a", 50.0, seed=1)
    lines.clear()
    build_board(results.root, out, tell=lines.append)
    assert lines == [
        f"1,501 files could not be read and are left out; why: {out / 'left_out.html'}",
        f"2 runs stand in no table; why: {out / 'left_out.html'}",
    ]
    text = words(out / "left_out.html")
    assert "0000000000000000.json has schema version 2; this peftmark reads 1" in text
    assert text.count("is not a record") == 1500
    assert "2 runs: another split of vtab/a than most runs have linear on vtab/a, seed 0" in text
    front = words(out / "index.html")
    assert front.count("is not a record") == 9 and "all of them" in front


def test_boards_of_little(results: Results, tmp_path: Path) -> None:
    """One method, one task, costs alone; and files none of which is a record."""
    (results.root).mkdir()
    (results.root / "0000000000000000.json").write_text("{")
    with pytest.raises(
        PeftmarkError, match=r"^no records in .* \(1 damaged or foreign files: `peftmark validate` says"
    ):
        results.build(tmp_path / "board")
    results.cost("full", 10**9)
    site = results.build(tmp_path / "board")
    assert "1 file in the results folder could not be read" in words(site / "index.html")
    assert not (site / "runs.html").exists() and not (site / "run.html").exists()
    assert "is not a record" in words(site / "left_out.html")
    results.run("lora", "vtab/a", 50.0)
    site = results.build(tmp_path / "board")
    assert "50.0" in words(site / "index.html")
    assert "lora" in words(site / "runs.html")


def test_numbers_link_to_their_runs(full_results: Results, site: Path) -> None:
    runs = {record.run_id for record in full_results.records}
    references = [reference for _, reference in Page((site / "index.html").read_text(encoding="utf-8")).references]
    named = {reference.partition("#")[2] for reference in references if reference.startswith("run.html#")}
    assert named and named <= runs


def test_failed_runs_are_cells_that_say_so(results: Results, tmp_path: Path) -> None:
    statuses = ("unsupported", "oom", "diverged", "timeout", "error")
    for status in statuses:
        results.run(f"{status}_method", "vtab/a", status=status, message=f"why {status}")
    text = (results.build(tmp_path / "board") / "index.html").read_text(encoding="utf-8")
    for status in statuses:
        link = rf'<a href="run\.html#\w+" title="seed 0: {status} in adapt: why {status}">'
        shown = f'<span class="status status-{status}">{status}</span></a>'
        cell = rf'<td class="number task[^"]*" data-order="">{link}{shown}'
        assert re.search(cell, text)


def test_the_same_records_give_the_same_site(full_results: Results, tmp_path: Path) -> None:
    one, two = full_results.build(tmp_path / "one"), full_results.build(tmp_path / "two")
    files = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(two) for path in two.rglob("*") if path.is_file())
    assert [path for path in files if (one / path).read_bytes() != (two / path).read_bytes()] == []


def test_cards_cannot_name_other_files(results: Results, tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"\x89PNG\r\n\x1a\nsecret")
    results.run("linear", "vtab/a", 50.0)
    for picture in ("../../../secret.png", str(secret), "vtab__a.json", "*"):
        write_card(results.root, "tasks", Card(name="vtab/a", family="natural", doc="", origin="", picture=picture))
        site = results.build(tmp_path / "board")
        assert not (site / "pictures").exists()


def test_names_of_any_length(results: Results, tmp_path: Path) -> None:
    """Of methods, backbones and tasks, which become names of pages; two that begin alike are two."""
    for end in "ab":
        results.run(f"lora{'x' * 300}{end}", f"vtab/{'y' * 300}{end}", 50.0, backbone=f"timm/{'z' * 300}{end}")
    results.run("linear", "vtab/a", 50.0)
    write_card(results.root, "tasks", Card(name="vtab/a", family="z", doc="", origin="", picture=f"{'x' * 300}.png"))
    site = results.build(tmp_path / "board")
    assert len(list((site / "methods").iterdir())) == 3


def test_what_is_no_file_is_no_picture(results: Results, tmp_path: Path, special: Any) -> None:
    results.run("linear", "vtab/a", 50.0)
    write_card(results.root, "tasks", Card(name="vtab/a", family="z", doc="", origin="", picture="x.png"))
    special.make(results.root / "cards" / "tasks" / "x.png")
    site = results.build(tmp_path / "board")
    assert not (site / "pictures").exists()


def test_odd_facts_on_a_card_do_no_harm(results: Results, tmp_path: Path) -> None:
    results.run("linear", "vtab/a", 50.0)
    results.task("vtab/a", "natural", chance_percent="<b>", n_train=None, tests={"a": [1, {"b": None}]})
    results.method("linear", "no such family", defaults="none")
    site = results.build(tmp_path / "board")
    assert "family-other" in (site / "index.html").read_text(encoding="utf-8")


class TestFolder:
    def test_no_records_is_one_clear_line(self, tmp_path: Path) -> None:
        for folder in (tmp_path / "absent", tmp_path):
            with pytest.raises(PeftmarkError, match="peftmark run") as caught:
                build_board(folder, tmp_path / "board")
            assert "\n" not in str(caught.value)
        assert not (tmp_path / "board").exists()

    def test_a_board_is_replaced_whole(self, results: Results, tmp_path: Path) -> None:
        first = results.run("linear", "vtab/a", 50.0)
        out = results.build(tmp_path / "board")
        (results.root / f"{first.run_id}.json").unlink()
        results.run("lora", "vtab/a", 50.0)
        assert results.build(out) == out
        assert not (out / "runs" / f"{first.run_id}.html").exists()
        assert [path.name for path in tmp_path.iterdir() if path.name not in ("board", "results")] == []

    def test_a_foreign_folder_is_left_alone(self, results: Results, tmp_path: Path) -> None:
        results.run("linear", "vtab/a", 50.0)
        out = tmp_path / "thesis"
        out.mkdir()
        results.build(out)  # empty: may be filled
        (out / BOARD.marker).unlink()
        with pytest.raises(PeftmarkError, match="not a board"):
            results.build(out)
        assert (out / "index.html").exists()
        with pytest.raises(PeftmarkError, match="is a file"):
            results.build(out / "index.html")

    def test_board_and_results_are_kept_apart(self, results: Results) -> None:
        results.run("linear", "vtab/a", 50.0)
        for out in (results.root, results.root / "board", results.root.parent):
            with pytest.raises(PeftmarkError, match="must not lie"):
                results.build(out)

    def test_a_failure_keeps_the_earlier_board(
        self, results: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        results.run("linear", "vtab/a", 50.0)
        out = results.build(tmp_path / "board")
        before = (out / "index.html").read_bytes()
        monkeypatch.setattr("peftmark.leaderboard.site.pages.write_run_records", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            results.build(out)
        assert (out / "index.html").read_bytes() == before
        assert {path.name for path in tmp_path.iterdir()} == {"board", "results"}


def words(path: Path) -> str:
    """What a page says, without its tags."""
    return " ".join(re.sub(r"<[^>]*>", " ", path.read_text(encoding="utf-8")).split())


def test_one_training_s_models_on_the_method_s_page(searched_results: Results, tmp_path: Path) -> None:
    site = searched_results.build(tmp_path / "board")
    method = words(site / "methods" / "dylora.html")
    assert "every rank: the mean of these runs" in method
    assert "1 50.0 40.5 2 61.2 60.5 4 55.0 64.5" in method

"""BibTeX entries: of peftmark, of methods' papers, and of hostile texts."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

import peftmark
from peftmark.leaderboard.citations import CITATION, _entry, _text, cite, cite_peftmark
from peftmark.leaderboard.subjects import Subject

ROOT = Path(peftmark.__file__).parent


def fields_of(entry: str) -> dict[str, str]:
    """Of one entry, read as BibTeX does: braces are counted, whether a backslash stands before them or not."""
    assert re.match(r"@misc\{[A-Za-z0-9:._-]+,\n", entry)
    depth, start, name, fields = 0, 0, "", {}
    for place, sign in enumerate(entry):
        depth += (sign == "{") - (sign == "}")
        assert depth > 0 or place < len("@misc") or place == len(entry) - 1, "it ends before its end"
        if sign == "{" and depth == 2:
            name, start = entry[:place].rstrip(" =").rpartition("\n")[2].strip(), place + 1
        if sign == "}" and depth == 1:
            fields[name] = entry[start:place]
    assert depth == 0
    return fields


def test_peftmark() -> None:
    assert cite_peftmark() == (
        "@misc{peftmark,\n"
        "  author = {{The peftmark authors}},\n"
        "  title = {{peftmark: a standardized benchmark suite for parameter-efficient fine-tuning in computer "
        "vision}},\n"
        f"  note = {{Version {peftmark.__version__}}},\n"
        "}"
    )
    assert list(fields_of(cite_peftmark())) == ["author", "title", "note"]


def test_a_release_with_people(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "CITATION.cff"
    monkeypatch.setattr("peftmark.leaderboard.citations.CITATION", file)
    people = [{"family-names": "Müller & Co", "given-names": "A."}, {"name": "Lab_1"}]
    more = {"date-released": "2027-01-31", "repository-code": "https://x.example/a_b}"}
    file.write_text(yaml.safe_dump({"title": "T", "version": "1", "authors": people, **more}))
    assert fields_of(cite_peftmark()) == {
        "author": r"Müller \& Co, A. and {Lab\_1}",
        "title": "{T}",
        "note": "Version 1",
        "year": "2027",
        "url": "https://x.example/a_b%7D",
    }


def test_the_citation_file_is_complete() -> None:
    """What the Citation File Format 1.2.0 requires, and what it knows."""
    cited = yaml.safe_load(CITATION.read_text())
    assert {"authors", "cff-version", "message", "title"} <= set(cited)
    assert set(cited) <= {
        "abstract", "authors", "cff-version", "commit", "contact", "date-released", "doi", "identifiers", "keywords",
        "license", "license-url", "message", "preferred-citation", "references", "repository", "repository-artifact",
        "repository-code", "title", "type", "url", "version",
    }  # fmt: skip
    assert (cited["cff-version"], cited["type"], cited["license"]) == ("1.2.0", "software", "Apache-2.0")
    assert cited["version"] == peftmark.__version__
    assert all(isinstance(keyword, str) for keyword in cited["keywords"])
    assert all(
        set(author) <= {"name", "family-names", "given-names", "orcid", "website"} for author in cited["authors"]
    )


@pytest.mark.parametrize(
    ("doc", "author", "year", "eprint"),
    [
        ("Updates (Hu et al. 2022, arXiv:2106.09685, section 4.1).", "{Hu} and others", "2022", "2106.09685"),
        ("Fused (Zhang et al. 2022,\nNOAH, arXiv:2206.04673, its part).", "{Zhang} and others", "2022", "2206.04673"),
        ("Both (Jie and Deng 2022, arXiv:2207.07039).", "{Jie} and {Deng}", "2022", "2207.07039"),
        ("Two (Zanella & Ben Ayed 2024, arXiv:2405.18541).", "{Zanella} and {Ben Ayed}", "2024", "2405.18541"),
        ("Biases (Ben Zaken et al. 2022, arXiv:2106.10199).", "{Ben Zaken} and others", "2022", "2106.10199"),
        ("Last (the Partial-k of Jia et al. 2022, arXiv:2203.12119).", "{Jia} and others", "2022", "2203.12119"),
        ("A paper without names, arXiv:2203.12119.", None, None, "2203.12119"),
    ],
)
def test_a_methods_paper(doc: str, author: str | None, year: str | None, eprint: str) -> None:
    entry = cite(Subject("m", "f", doc))
    assert entry is not None and entry.startswith(f"@misc{{arXiv:{eprint},\n")
    fields = fields_of(entry)
    assert (fields.get("author"), fields.get("year"), fields["eprint"]) == (author, year, eprint)
    assert fields["archivePrefix"] == "arXiv" and fields["url"] == f"https://arxiv.org/abs/{eprint}"


def test_no_paper_or_one_that_is_only_related() -> None:
    assert cite(Subject("full", "baseline", "Train every parameter.")) is None
    assert (
        cite(Subject("ivlp", "openvocab", "Prompts.\n\nThe baseline of MaPLe (Khattak et al. 2023, arXiv:2210.03117)"))
        is None
    )
    assert cite(Subject("unknown", "other")) is None


@pytest.mark.skipif(not (ROOT / "results" / "records").is_dir(), reason="records are not in the wheel")
def test_the_papers_of_the_zoo() -> None:
    """Every entry of a card that names a paper in its first paragraph has an author and a year."""
    entries = {}
    for path in sorted((ROOT / "results" / "records").glob("*/cards/methods/*.json")):
        card = json.loads(path.read_text())
        entries[card["name"]] = cite(Subject(card["name"], card["family"], card["doc"]))
    named = {name: fields_of(entry) for name, entry in entries.items() if entry}
    assert len(named) > 45
    assert [name for name, fields in named.items() if "author" not in fields] == []
    assert named["lora"]["eprint"] == "2106.09685" and named["lora"]["author"] == "{Hu} and others"
    assert entries["linear"] is None and entries["head_mask"] is None


def test_hostile_texts() -> None:
    hostile = 'x}}\n@misc{y, {\\ "%" #_&~^$ \u202e\0' + 5_000 * "{"
    assert fields_of(_entry("k", {"title": _text(hostile), "year": "1"})).keys() == {"title", "year"}
    assert "\n" not in _text(hostile) and "\u202e" not in _text(hostile)
    for doc in (
        hostile,
        f"A (Évil}}{{ et al. 2022, {hostile}, arXiv:2106.09685)",
        "(O'Neil et al. 2022, arXiv:2106.09685)",
    ):
        entry = cite(Subject(hostile, hostile, doc))
        assert entry is None or fields_of(entry)["eprint"] == "2106.09685"

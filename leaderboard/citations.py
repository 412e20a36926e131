"""BibTeX: the entry of peftmark, and those of the papers that methods' docstrings name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from .subjects import Subject

CITATION = Path(__file__).parent.parent / "CITATION.cff"

_NAME = r"[^\W\d_a-z][\w'’-]*(?: [^\W\d_a-z][\w'’-]*)*"
_PAPER = re.compile(
    rf"(?:(?P<first>{_NAME})(?: (?:and|&) (?P<second>{_NAME}))?(?P<others> et al\.)? (?P<year>\d{{4}}), "
    r"(?:[^()]*?, )?)?arXiv:(?P<eprint>\d{4}\.\d{4,5})"
)
"""``Hu et al. 2022, arXiv:2106.09685``: what a docstring says of a paper."""

_LONGEST = 2_000
"""Characters of a docstring that are looked through: a card may hold a text of any length."""

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\textbraceleft{}",  # \{ is one brace too many to BibTeX, which counts them
    "}": r"\textbraceright{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{sign: f"\\{sign}" for sign in "#$%&_"},
}


_OF_URLS = ":/?#[]@!$&'()*+,;=%"
"""Verbatim to BibTeX, as are letters, digits and ``-._~``; all else is percent-encoded."""


def cite_peftmark() -> str:
    """Of the version that is installed, by its ``CITATION.cff``."""
    import yaml

    cited = yaml.safe_load(CITATION.read_text(encoding="utf-8"))
    authors = [
        author.get("name") or f"{author['family-names']}, {author['given-names']}" for author in cited["authors"]
    ]
    fields = {
        "author": " and ".join(f"{{{_text(author)}}}" if "," not in author else _text(author) for author in authors),
        "title": f"{{{_text(cited['title'])}}}",
        "note": _text(f"Version {cited['version']}"),
    }
    fields |= {"year": str(cited["date-released"])[:4]} if "date-released" in cited else {}
    fields |= {"url": quote(cited["repository-code"], safe=_OF_URLS)} if "repository-code" in cited else {}
    return _entry("peftmark", fields)


def cite(subject: Subject) -> str | None:
    """Of the paper that the first paragraph of a subject's docstring names with its arXiv number; None without one.

    Docstrings say authors and year and no title, which is left out.
    """
    first_paragraph = " ".join(subject.doc[:_LONGEST].partition("\n\n")[0].split())
    paper = _PAPER.search(first_paragraph)
    if paper is None:
        return None
    fields = {}
    if paper["first"]:
        names = [f"{{{_text(name)}}}" for name in (paper["first"], paper["second"]) if name]
        fields = {"author": " and ".join([*names, *(["others"] if paper["others"] else [])]), "year": paper["year"]}
    eprint = paper["eprint"]
    fields |= {
        "eprint": eprint,
        "archivePrefix": "arXiv",
        "howpublished": f"arXiv:{eprint}",  # styles of old know no eprint
        "url": f"https://arxiv.org/abs/{eprint}",
    }
    return _entry(f"arXiv:{eprint}", fields)


def _entry(key: str, fields: Mapping[str, str]) -> str:
    """
    >>> print(_entry("a", {"year": "2022"}))
    @misc{a,
      year = {2022},
    }
    """
    return "\n".join([f"@misc{{{key},", *(f"  {name} = {{{value}}}," for name, value in fields.items()), "}"])


def _text(text: str) -> str:
    r"""Any text as one line of LaTeX.

    >>> _text("50% of {A}\n& B")
    '50\\% of \\textbraceleft{}A\\textbraceright{} \\& B'
    """
    visible = "".join(sign if sign.isprintable() else " " for sign in text)
    return "".join(_SPECIAL.get(sign, sign) for sign in " ".join(visible.split()))

"""Texts of anybody's as Markdown that shows them, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from ..formatting import Piece, marked

_MARKUP = re.compile(r"([\\`*_\[\]<>#|~$&!])")

_RULE = re.compile(r"(?m)^([-=+]+)$")
"""A line that would make a heading of the one before it, or a rule."""
_BAR = re.compile(r"(?<!\\)((?:\\\\)*)\|")
_ESCAPED_BAR = r"\1\\|"


def text(words: str) -> str:
    r"""One line of text.

    >>> text("a_b <script>\n| [x](y)")
    'a\\_b \\<script\\> \\| \\[x\\](y)'
    """
    return _MARKUP.sub(r"\\\1", " ".join(words.split()))


def code(words: str) -> str:
    """One line of code; by more backticks than there are in it.

    >>> code("rank"), code("a`b")
    ('`rank`', '`` a`b ``')
    """
    line = " ".join(words.split()) or " "
    ticks = "`" * (_longest_run(line) + 1)
    return f"{ticks}{line}{ticks}" if len(ticks) == 1 else f"{ticks} {line} {ticks}"


def block(words: str, language: str) -> str:
    """Code of several lines."""
    fence = "`" * max(3, _longest_run(words) + 1)
    return f"{fence}{language}\n{words}\n{fence}"


def prose(doc: str) -> str:
    """A docstring: its paragraphs and lists, code, papers and addresses."""
    paragraphs = ("".join(map(_piece, marked(part))) for part in doc.split("\n\n"))
    lines = (_RULE.sub(r"\\\1", "\n".join(map(str.strip, part.strip().split("\n")))) for part in paragraphs)
    return "\n\n".join(part for part in lines if part)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Of cells that are Markdown. A bar ends a cell even in code."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(_BAR.sub(_ESCAPED_BAR, cell) for cell in line)} |" for line in lines)


def _piece(piece: Piece) -> str:
    if piece.code:
        return code(piece.text)
    words = _MARKUP.sub(r"\\\1", re.sub(r"[^\S\n]+", " ", piece.text))
    return f"[{words}](<{piece.href}>)" if piece.href else words


def _longest_run(words: str) -> int:
    return max(map(len, re.findall("`+", words)), default=0)

"""How numbers and settings are written on the board: plain text, escaped by the templates."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any


def figure(value: float) -> str:
    """A percentage to one decimal.

    >>> figure(71.25), figure(100)
    ('71.2', '100.0')
    """
    return f"{value:.1f}"


def spread(std: float | None) -> str:
    """
    >>> spread(0.44), spread(None)
    ('±0.4', '')
    """
    return "" if std is None else f"±{std:.1f}"


def signed(value: float) -> str:
    """A difference in points.

    >>> signed(0.44), signed(-1.25), signed(-0.04)
    ('+0.4', '−1.2', '±0.0')
    """
    text = f"{abs(value):.1f}"
    return f"±{text}" if float(text) == 0 else f"{'+' if value > 0 else '−'}{text}"


def count(value: float) -> str:
    """A large count in three to four digits.

    >>> count(0), count(840), count(38_400), count(294_912), count(85_798_656)
    ('0', '840', '38.4 k', '294.9 k', '85.8 M')
    """
    for unit, name in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if round(value / unit, 1) >= 1:
            return f"{value / unit:.1f} {name}"
    return f"{value:.0f}"


def exact(value: float) -> str:
    """
    >>> exact(294912)
    '294,912'
    """
    return f"{value:,.0f}"


def tick(value: float) -> str:
    """A value on an axis.

    >>> tick(0.25), tick(0), tick(50), tick(10_000), tick(2.5e6)
    ('0.25', '0', '50', '10 k', '2.5 M')
    """
    for unit, name in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= unit:
            return f"{value / unit:.4g}{name}"
    return f"{value:.4g}"


def share(value: float) -> str:
    """A fraction as a percentage with as many decimals as it needs.

    >>> share(0.00344), share(0.0712), share(1), share(0), share(1e-7)
    ('0.34%', '7.1%', '100%', '0%', '<0.01%')
    """
    percent = 100 * value
    if 0 < percent < 0.01:
        return "<0.01%"
    if percent in (0, 100):
        return f"{percent:.0f}%"
    return f"{percent:.2f}%" if percent < 1 else f"{percent:.1f}%"


def duration(seconds: float) -> str:
    """
    >>> duration(0.25), duration(42.3), duration(125), duration(7300)
    ('0.25 s', '42 s', '2 min 5 s', '2 h 1 min')
    """
    if seconds < 10:
        return f"{seconds:.2f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def size(value: int) -> str:
    """
    >>> size(512), size(1_200_000)
    ('512 B', '1.2 MB')
    """
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= unit:
            return f"{value / unit:.1f} {name}"
    return f"{value} B"


def ratio(value: float) -> str:
    """
    >>> ratio(0.668), ratio(1), ratio(0.0041)
    ('0.67×', '1.00×', '0.004×')
    """
    return f"{value:.{2 if value >= 0.01 else 3}f}×"


def digits(value: float) -> str:
    """Three significant digits, or all before the point.

    >>> digits(37), digits(3.456), digits(0.00234), digits(999.7), digits(1712.3)
    ('37.0', '3.46', '0.00234', '1,000', '1,712')
    """
    return f"{value:,.0f}" if value >= 999.5 else f"{value:#.3g}".rstrip(".")


def giga(value: float) -> str:
    """
    >>> giga(35_126_274_048), giga(1_234_567_000_000), giga(0)
    ('35.1', '1,235', '0.00')
    """
    return digits(value / 1e9)


def memory(value: float) -> str:
    """Bytes, closer than `size` has them.

    >>> memory(847_434_424), memory(8_718_639_784), memory(900)
    ('847 MB', '8.72 GB', '900 B')
    """
    if value < 999.5:
        return f"{value:.0f} B"
    for unit, name in ((1e9, "GB"), (1e6, "MB")):
        if value >= unit * 0.9995:
            return f"{digits(value / unit)} {name}"
    return f"{digits(value / 1e3)} kB"


def plain(value: Any) -> str:
    """A setting or fact as a person writes it: text bare, everything else as JSON.

    >>> plain("q,v"), plain(8), plain(None), plain(["q", "v"])
    ('q,v', '8', 'null', '["q", "v"]')
    """
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)


@dataclass(frozen=True)
class Piece:
    """A stretch of text, with the address it leads to if there is one."""

    text: str
    href: str | None = None
    code: bool = False


_MARK = re.compile(
    r"``(?P<formula>[^`]+)``|`(?P<name>[^`\n]+)`|arXiv:(?P<arxiv>\d{4}\.\d{4,5})|https?://[^\s<>\"'`)\]]*[\w/]"
)
_LINE_BREAK = re.compile(r"(?<=\S)\n(?=[^\s*-])")


def marked(text: str) -> list[Piece]:
    """Split a docstring at its code, and at the papers and addresses it names; its paragraphs flow.

    >>> marked("LoRA (arXiv:2106.09685).")[1]
    Piece(text='arXiv:2106.09685', href='https://arxiv.org/abs/2106.09685', code=False)
    >>> [piece.text for piece in marked("``W x +\\n b`` of `rank`\\nrows.\\n\\nNext")]
    ['W x + b', ' of ', 'rank', ' rows.\\n\\nNext']
    """
    text = _LINE_BREAK.sub(" ", text)
    pieces: list[Piece] = []
    end = 0
    for match in _MARK.finditer(text):
        pieces.append(Piece(text[end : match.start()]))
        code, arxiv = match["formula"] or match["name"], match["arxiv"]
        if code:
            pieces.append(Piece(" ".join(code.split()), code=True))
        else:
            pieces.append(Piece(match[0], f"https://arxiv.org/abs/{arxiv}" if arxiv else match[0]))
        end = match.end()
    pieces.append(Piece(text[end:]))
    return [piece for piece in pieces if piece.text]

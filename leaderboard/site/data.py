"""What pages' scripts read: JSON as a script, for nothing else can be loaded by a page that is opened from a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec


def write_data(path: Path, value: Any, call: str = "peftmark.data") -> int:
    """Write a script that sets `call` to `value`, or passes it to the function of that name where it ends in ``()``.

    Returns:
        Its bytes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    text = as_script(value, call)
    path.write_bytes(text)
    return len(text)


def as_script(value: Any, call: str = "peftmark.data") -> bytes:
    r"""
    >>> as_script({"name": "</script>"})
    b'(globalThis.peftmark??={});peftmark.data={"name":"\\u003c/script>"};\n'
    >>> as_script([1], "peftmark.loaded()")
    b'peftmark.loaded([1]);\n'
    """
    json = as_json(value)
    if call.endswith("()"):
        return b"%b(%b);\n" % (call[:-2].encode(), json)
    return b"(globalThis.peftmark??={});%b=%b;\n" % (call.encode(), json)


def as_json(value: Any) -> bytes:
    r"""JSON that ends no script.

    >>> as_json(["<"])
    b'["\\u003c"]'
    """
    json = msgspec.json.encode(value).replace(b"<", b"\\u003c")
    # JSON is JavaScript, but for two ends of lines that were none before 2019; files' names may be no text
    return json.replace("\u2028".encode(), b"\\u2028").replace("\u2029".encode(), b"\\u2029")


def quoted(text: bytes) -> bytes:
    r"""JSON as a text in a script, which is read as it was written, to the last digit.

    >>> quoted(b'{"it\'s": 1.0, "n": "\\n</script>"}')
    b'\'{"it\\\'s": 1.0, "n": "\\\\n\\u003c/script>"}\''
    """
    text = text.replace(b"\\", b"\\\\").replace(b"'", b"\\'").replace(b"<", b"\\u003c")
    return b"'%b'" % text.replace("\u2028".encode(), b"\\u2028").replace("\u2029".encode(), b"\\u2029")

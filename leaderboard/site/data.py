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
    json = msgspec.json.encode(value).replace(b"<", b"\\u003c")
    # JSON is JavaScript, but for two ends of lines that were none before 2019; files' names may be no text
    json = json.replace("\u2028".encode(), b"\\u2028").replace("\u2029".encode(), b"\\u2029")
    if call.endswith("()"):
        return b"%b(%b);\n" % (call[:-2].encode(), json)
    return b"(globalThis.peftmark??={});%b=%b;\n" % (call.encode(), json)

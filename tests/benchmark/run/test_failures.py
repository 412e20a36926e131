"""What an exception becomes in a record."""

from __future__ import annotations

import os

from peftmark.benchmark.run.failures import error_info
from peftmark.errors import PeftmarkError
from peftmark.results import ErrorInfo
from peftmark.results.record import encode_record


def test_a_message_that_is_no_text_can_be_recorded() -> None:
    """As of a file that cannot be read, whose name has bytes that are not UTF-8."""
    info = error_info(PeftmarkError("cannot read " + os.fsdecode(b"a\xff.png")), "data")
    assert info == ErrorInfo(phase="data", type="PeftmarkError", message=r"cannot read a\udcff.png")
    assert b"udcff.png" in encode_record(info)


def test_a_message_of_any_length_can_be_read_again() -> None:
    info = error_info(PeftmarkError("x" * 10**8), "data")
    assert info.message == "x" * 10_000 + " …"

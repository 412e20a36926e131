"""What the docstrings of methods must not say."""

from __future__ import annotations

import re

import pytest
from invariants import CASES

from peftmark import METHODS


@pytest.mark.parametrize("method", sorted({case.method for case in CASES}))
def test_no_docstring_has_a_measured_figure(method: str) -> None:
    """Accuracies are what the board shows, of records; in a docstring no command would print them anew."""
    text = METHODS[method].__doc__ or ""
    assert re.findall(r"\d+\.\d+ ?%|\bseed \d+", text) == []

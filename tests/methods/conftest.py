"""Fixtures of the method tests."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "bridge"))
sys.path.insert(0, str(Path(__file__).parent))

from invariants import CASES, Case


@pytest.fixture(params=CASES, ids=lambda case: f"{case.method}-{case.track}")
def case(request: pytest.FixtureRequest) -> Case:
    """Every registered method on every track that it declares."""
    return request.param

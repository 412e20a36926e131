"""Start-up: what every command pays before it does anything. Against an empty Python program."""

from __future__ import annotations

import subprocess
import sys

import pytest


def python(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("arguments", "target"),
    [(("-c", "import peftmark"), 5), (("-m", "peftmark", "list", "methods"), 40)],
    ids=["import peftmark", "peftmark list methods"],
)
def test_startup(compare, arguments: tuple[str, ...], target: float) -> None:
    compare(lambda: python(*arguments), lambda: python("-c", ""), target=target, pairs=15)

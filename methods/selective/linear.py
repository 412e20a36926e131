"""Linear probing."""

from __future__ import annotations

from dataclasses import dataclass

from ...registry import METHODS
from ..method import Method


@METHODS.register("linear", family="selective", tracks=("image", "video"))
@dataclass
class Linear(Method):
    """Train the linear head only; the backbone stays as it is (0 parameters on ViT-B/16)."""

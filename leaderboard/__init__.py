"""Records in, static site out. Reads `results` and nothing else of peftmark; imports no torch."""

from .board import build_board

__all__ = ["build_board"]

"""Records in, static site or figures out. Reads `results` and nothing else of peftmark; imports no torch."""

from .board import build_board
from .figures import write_figures

__all__ = ["build_board", "write_figures"]

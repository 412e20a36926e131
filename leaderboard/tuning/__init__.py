"""Searches on the board: what they chose, how much a method depends on its tuning, and how much of a rank is luck."""

"""The plot of accuracy and parameters: its geometry."""

from __future__ import annotations

import pytest

from peftmark.leaderboard.drawings.scatter import Point, scatter


@pytest.mark.parametrize(
    "parameters", [(0, 0), (0, 1_000), (1, 100_000_000), (5_000, 6_000), (0, 85_800_000, 300_000)], ids=str
)
def test_plot_of_any_counts(parameters: tuple[int, ...]) -> None:
    points = [Point(f"m{i} $", "other", count, 50.0 + i, 1.0 if i else None) for i, count in enumerate(parameters)]
    svg = scatter(points, "mean <b>")
    assert svg.startswith("<svg") and "<b>" not in svg
    assert all(f"m{i} $" in svg for i in range(len(parameters)))
    assert scatter(points, "mean <b>") == svg

"""Small drawings of a method: accuracy by rank."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftmark.leaderboard.drawings.line_plots import chosen_variant, line_plot, mean_variants, variant_plot
from peftmark.results import VariantFigure

if TYPE_CHECKING:
    from ..conftest import Results


def test_what_cannot_be_drawn_is_left_out() -> None:
    plot = line_plot("epoch", "loss", [(1.0, 3.0), (2.0, float("inf")), (3.0, 1.0)])
    assert plot is not None and len(plot.points) == 2
    assert (plot.low, plot.high) == (1.0, 3.0)
    assert line_plot("epoch", "loss", [(1.0, 3.0), (2.0, float("inf"))]) is None
    assert line_plot("epoch", "loss", [(1.0, 2.0), (2.0, 2.0)]) is not None


def rank(value: int, validation: float | None, test: float) -> VariantFigure:
    return VariantFigure(axis="rank", value=value, validation=validation, test=test)


def test_variants_are_drawn_by_their_value() -> None:
    plot = variant_plot([rank(4, 1.0, 50.0), rank(1, 1.0, 40.0), rank(2, 1.0, 60.0)])
    assert plot is not None
    assert (plot.x, plot.first, plot.last, plot.low, plot.high) == ("rank", 1, 4, 40.0, 60.0)
    assert plot.points == ((0.0, 150.0), (173.3, 0.0), (520.0, 75.0))
    assert variant_plot([]) is None


def test_the_variant_that_validation_chooses() -> None:
    """Not the one that is best on the test split; of equals the smallest."""
    figures = [rank(1, 50.0, 90.0), rank(4, 60.0, 70.0), rank(2, 60.0, 80.0)]
    assert chosen_variant(figures) == figures[2]
    assert chosen_variant([rank(1, None, 1.0)]) is None


def test_mean_variants_over_runs(results: Results) -> None:
    runs = [
        results.run("dylora", "embedded/digits", 1.0, seed=0, ranks={1: (10.0, 20.0), 2: (30.0, 40.0), 3: (1.0, 1.0)}),
        results.run("dylora", "embedded/digits", 1.0, seed=1, ranks={1: (20.0, 30.0), 2: (50.0, 60.0)}),
        results.run("dylora", "embedded/digits", seed=2, status="diverged"),
    ]
    assert mean_variants(runs) == [rank(1, 15.0, 25.0), rank(2, 40.0, 50.0)]
    assert mean_variants(runs[2:]) == []

"""The small modules: the command line, curves, the plot's geometry, and the examples in docstrings."""

from __future__ import annotations

import doctest
import importlib
from typing import TYPE_CHECKING

import pytest

from peftmark.leaderboard.drawings.line_plots import chosen_variant, loss_plot, mean_variants, variant_plot
from peftmark.leaderboard.drawings.scatter import Point, scatter
from peftmark.leaderboard.site.command import reproduce
from peftmark.results import VariantFigure

if TYPE_CHECKING:
    from .conftest import Results


@pytest.mark.parametrize(
    "name",
    [
        "summary",
        "formatting",
        "subjects",
        "configurations",
        "accuracy.build",
        "costs.scaling",
        "drawings.scatter",
        "drawings.line_plots",
        "drawings.scaling",
        "site.command",
    ],
)
def test_examples_in_docstrings(name: str) -> None:
    assert doctest.testmod(importlib.import_module(f"peftmark.leaderboard.{name}")).failed == 0


def test_command_says_only_what_is_needed(results: Results) -> None:
    config = {"rank": 16, "targets": "q v", "alpha": 8}
    spec = results.run("lora", "vtab/a", 50.0, seed=3, config=config, overrides={"epochs": 2}).spec
    start = "peftmark run --method lora --backbone embedded/vit --task vtab/a --seed 3 --protocol embedded-v1"
    end = "--set protocol.epochs=2"
    assert reproduce(spec, {"rank": 8, "targets": "q v", "alpha": 8}) == f"{start} --set method.rank=16 {end}"
    assert reproduce(spec, None) == (
        f"{start} --set method.alpha=8 --set method.rank=16 --set 'method.targets=q v' {end}"
    )


def test_curve_leaves_out_what_cannot_be_drawn() -> None:
    entries = [
        {"epoch": 1.0, "train_loss": 3.0},
        {"epoch": 2.0, "train_loss": float("inf")},
        {"epoch": 3.0, "train_loss": 1.0},
    ]
    curve = loss_plot(entries)
    assert curve is not None and len(curve.points) == 2
    assert (curve.low, curve.high) == (1.0, 3.0)
    assert loss_plot(entries[:2]) is None
    assert loss_plot([{"epoch": 1.0, "train_loss": 2.0}, {"epoch": 2.0, "train_loss": 2.0}]) is not None


@pytest.mark.parametrize(
    "parameters", [(0, 0), (0, 1_000), (1, 100_000_000), (5_000, 6_000), (0, 85_800_000, 300_000)], ids=str
)
def test_plot_of_any_counts(parameters: tuple[int, ...]) -> None:
    points = [Point(f"m{i} $", "other", count, 50.0 + i, 1.0 if i else None) for i, count in enumerate(parameters)]
    svg = scatter(points, "mean <b>")
    assert svg.startswith("<svg") and "<b>" not in svg
    assert all(f"m{i} $" in svg for i in range(len(parameters)))
    assert scatter(points, "mean <b>") == svg


def rank(value: int, validation: float | None, test: float) -> VariantFigure:
    return VariantFigure(axis="rank", value=value, validation=validation, test=test)


def test_variants_are_drawn_by_their_value() -> None:
    curve = variant_plot([rank(4, 1.0, 50.0), rank(1, 1.0, 40.0), rank(2, 1.0, 60.0)])
    assert curve is not None
    assert (curve.x, curve.first, curve.last, curve.low, curve.high) == ("rank", 1, 4, 40.0, 60.0)
    assert curve.points == ((0.0, 150.0), (173.3, 0.0), (520.0, 75.0))
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

"""The committed points: what they are, and what a trial makes of one."""

from __future__ import annotations

import itertools

import pytest

from peftmark.benchmark.tuning.points import points, points_sha256, values
from peftmark.errors import PeftmarkError
from peftmark.methods.search_space import LogUniform, Uniform


def test_the_list_is_the_one_that_records_name() -> None:
    assert points_sha256() == "d8b9bbd37eabf5fb7d4141501f0f425c22418c0f1405229c2afce8e19f4c688e"
    assert (len(points()), {len(point) for point in points()}) == (64, {6})


@pytest.mark.parametrize("axis", range(6))
@pytest.mark.parametrize("n", [16, 64])
def test_points_are_spread(axis: int, n: int) -> None:
    """Any first n leave no gap as wide as chance would: half of random lists have one of ln(n) / n or more."""
    shares = sorted([0.0, *(point[axis] for point in points()[:n]), 1.0])
    assert shares[1] >= 0
    assert shares[-2] < 1
    assert max(b - a for a, b in itertools.pairwise(shares)) < 3 / n


def test_a_trial_s_values() -> None:
    space = {"learning_rate": LogUniform(1e-4, 1e-1), "scale": Uniform(0.0, 10.0)}
    first, second = points()[0][:2]
    assert values(space, 1) == {
        "learning_rate": float(f"{1e-4 * 1000**first:.3g}"),
        "scale": float(f"{10 * second:.3g}"),
    }
    assert values({"learning_rate": space["learning_rate"]}, 1) == {"learning_rate": values(space, 1)["learning_rate"]}


@pytest.mark.parametrize("trial", [0, 65])
def test_there_are_no_more(trial: int) -> None:
    with pytest.raises(PeftmarkError, match="64 trials beside the default"):
        values({"learning_rate": Uniform(0, 1)}, trial)


def test_not_more_is_searched_than_points_have_coordinates() -> None:
    with pytest.raises(PeftmarkError, match="7 things are searched"):
        values({str(index): Uniform(0, 1) for index in range(7)}, 1)

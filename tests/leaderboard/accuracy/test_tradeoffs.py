"""Trade-offs: which rows are points of which ranking, and which of them no other beats."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftmark.leaderboard.accuracy.measures import MEASURES
from peftmark.leaderboard.accuracy.tradeoffs import front, main_tradeoffs, rankings, tradeoff

if TYPE_CHECKING:
    from ..conftest import Results

PARAMETERS, STORED, MEMORY, _ = MEASURES


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        ([], []),
        ([(0, 5)], [0]),
        ([(0, 5), (0, 6), (1, 6)], [1]),  # as good for more is beaten
        ([(1, 5), (1, 5), (1, 4)], [0, 1]),  # equal in both is not
        ([(3, 9), (2, 8), (1, 7)], [0, 1, 2]),
        ([(0, -3), (10, -1), (100, -2)], [0, 1]),
    ],
    ids=str,
)
def test_front(places: list[tuple[float, float]], expected: list[int]) -> None:
    assert front(places) == expected


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(-6, 6)), max_size=12))
def test_the_front_is_what_nothing_beats(places: list[tuple[int, int]]) -> None:
    def beats(one: tuple[int, int], other: tuple[int, int]) -> bool:
        return one != other and one[0] <= other[0] and one[1] >= other[1]

    unbeaten = [index for index, each in enumerate(places) if not any(beats(other, each) for other in places)]
    assert front(places) == unbeaten


def points(results: Results, **more: object) -> dict[str, tuple[float, float, int, bool]]:
    [chart] = main_tradeoffs(results.table())
    return {point.label: (point.x, point.figure.mean, point.rank, point.on_front) for point in chart.points}


def test_points_by_measure_with_ranks_and_front(results: Results) -> None:
    for name, params, figure in (("free", 0, 40.0), ("small", 10, 60.0), ("wasteful", 10, 50.0), ("large", 99, 60.0)):
        for task in ("vtab/a", "vtab/b"):
            results.run(name, task, figure, params=params)
    assert points(results) == {
        "free": (0, 40.0, 4, True),
        "small": (10, 60.0, 1, True),
        "wasteful": (10, 50.0, 3, False),
        "large": (99, 60.0, 1, False),  # the best, for more than need be
    }


def test_lower_is_better(results: Results) -> None:
    for name, params, figure in (("free", 0, 3.0), ("small", 10, 1.0), ("large", 99, 2.0)):
        results.run(name, "vtab/a", figure, params=params, unit="radians", higher_is_better=False)
    assert {name: front for name, (*_, front) in points(results).items()} == {
        "free": True,
        "small": True,
        "large": False,
    }
    [chart] = main_tradeoffs(results.table())
    assert chart.figure_words == "vtab/a, radians, lower is better"


def test_what_has_no_measure_is_told_and_keeps_its_rank(results: Results) -> None:
    results.run("lora", "vtab/a", 50.0, backbone="timm/vit_base_patch16_224")
    results.run("odd", "vtab/a", 60.0, backbone="timm/vit_base_patch16_224")
    results.cost("full", 8 * 10**8)
    results.cost("lora", 4 * 10**8)
    table = results.table()
    chart = tradeoff(table, None, table.tasks[0].headline, MEMORY)
    assert [(point.label, point.x, point.rank, point.on_front) for point in chart.points] == [("lora", 0.5, 2, True)]
    assert [row.label for row in chart.without] == ["odd"]


def test_budgets_and_the_unranked_stand_apart(results: Results) -> None:
    for task in ("vtab/a", "vtab/b"):
        results.search("lora", task, [50.0] * 6, {0: [70.0, 70.0]}, studies=1)
        results.run("lora", task, 60.0, config={"rank": 8})
        results.run("deviating", task, 99.0, overrides={"epochs": 1})
    results.run("partial", "vtab/a", 98.0)
    table = results.table()
    default, tuned = main_tradeoffs(table)
    assert [(point.label, point.figure.mean) for point in default.points] == [("lora", 60.0)]
    assert [(point.label, point.figure.mean, point.rank) for point in tuned.points] == [("lora", 70.0, 1)]
    assert (default.ranking_words, tuned.ranking_words) == ("default", "tuned, 6 trials")
    assert default.key != tuned.key
    assert list(rankings(table)) == [None, tuned.budget]


def test_an_axis_is_logarithmic_over_a_decade_of_what_is_not_zero(results: Results) -> None:
    for name, params in (("free", 0), ("a", 10), ("b", 99)):
        results.run(name, "vtab/a", 50.0, params=params)
    assert not main_tradeoffs(results.table())[0].logarithmic
    results.run("c", "vtab/a", 50.0, params=100)
    assert main_tradeoffs(results.table())[0].logarithmic

"""Means, spreads and ranks, against values worked out by hand."""

from __future__ import annotations

import pytest

from peftmark.leaderboard.summary import Summary, mean_over_tasks, ranks, summarize


def test_mean_and_sample_standard_deviation() -> None:
    summary = summarize([60.0, 62.0, 67.0])  # mean 63, squares 9 + 1 + 16 = 26, / 2 = 13
    assert summary.mean == 63.0
    assert summary.std == pytest.approx(13**0.5)
    assert summary.n == 3


def test_one_value_has_no_spread() -> None:
    assert summarize([60.0]) == Summary(60.0, None, 1)


def test_mean_over_tasks_weighs_tasks_equally_and_spreads_over_seeds() -> None:
    summary = mean_over_tasks([{0: 50.0, 1: 54.0}, {0: 90.0, 1: 90.0}])  # seeds' means: 70 and 72
    assert summary.mean == 71.0
    assert summary.std == pytest.approx(2**0.5)
    assert summary.n == 2


def test_mean_over_tasks_with_other_seeds_has_no_spread() -> None:
    assert mean_over_tasks([{0: 50.0, 1: 54.0}, {0: 90.0}]) == Summary(71.0, None, 1)


def test_ties_share_a_rank_and_rounding_makes_none() -> None:
    assert ranks([70.0, 0.1 + 0.2, 0.3, 80.0]) == [2, 3, 3, 1]
    assert ranks([]) == []

"""Scores, and what compared methods have in common."""

from __future__ import annotations

import numpy as np
from numpy.testing import assert_array_equal

from peftmark.results.statistics import Size, in_common, scores_of

FIGURES = {
    "lora": {"count": {0: 50.0, 1: 52.0}, "digits": {0: 90.0, 1: 94.0}, "motion": {0: 30.0, 1: 31.0}},
    "ssf": {"digits": {0: 80.0, 1: None}, "count": {0: 40.0, 1: 44.0}, "motion": {1: 20.0}},
    "full": {"count": {0: 45.0}, "digits": {0: 91.0}, "textures": {0: None}},
    "coop": {"base2new": {0: 40.0}},
}


def test_figures_become_an_array_of_sorted_tasks_and_seeds() -> None:
    scores = scores_of(FIGURES)
    assert scores.methods == ("lora", "ssf", "full", "coop")
    assert scores.tasks == ("base2new", "count", "digits", "motion", "textures")
    assert scores.seeds == (0, 1)
    assert_array_equal(scores.values[1, 1], [40.0, 44.0])
    assert_array_equal(scores.values[1, 3], [np.nan, 20.0])


def test_a_seed_that_failed_leaves_its_cell_without_a_figure() -> None:
    scores = scores_of(FIGURES)
    assert_array_equal(scores.values[1, 2], [np.nan, np.nan])
    assert_array_equal(scores.cells[1], [np.nan, 42.0, np.nan, 20.0, np.nan])
    assert not scores.complete


def test_only_tasks_that_all_compared_methods_finished_are_in_common() -> None:
    common = in_common(scores_of(FIGURES))
    assert common.scores.methods == ("lora", "ssf", "full")
    assert common.scores.tasks == ("count",)
    assert common.scores.complete
    assert common.left_out_methods == {"coop": "finished 1 of 4 tasks"}
    assert common.left_out_tasks == {
        "base2new": "not finished by lora, ssf, full",
        "digits": "not finished by ssf",
        "motion": "not finished by full",
        "textures": "no method finished it",
    }


def test_how_much_a_method_must_have_finished_can_be_said() -> None:
    common = in_common(scores_of(FIGURES), least=0.6)
    assert common.scores.methods == ("lora",)
    assert common.scores.tasks == ("count", "digits", "motion")
    assert common.left_out_methods["ssf"] == "finished 2 of 4 tasks"


def test_many_that_lack_a_task_are_counted() -> None:
    figures = {f"m{n}": {"a": {0: 1.0}, "b": {0: None if n else 1.0}} for n in range(6)}
    assert in_common(scores_of(figures)).left_out_tasks == {"b": "not finished by m1, m2, m3 and 2 more"}


def test_nothing_in_common_is_no_error() -> None:
    common = in_common(scores_of({"a": {"x": {0: None}}}))
    assert common.scores.methods == () and common.scores.tasks == ()
    assert in_common(scores_of({})).scores.size == Size(0, 0, 0)


def test_methods_are_paired_on_the_seeds_that_every_cell_has() -> None:
    scores = scores_of({"a": {"x": {0: 1.0, 1: 2.0, 2: 3.0}}, "b": {"x": {1: 5.0, 2: 6.0, 3: 7.0}}})
    assert_array_equal(scores.paired, [[[2.0, 3.0]], [[5.0, 6.0]]])
    assert scores.size == Size(methods=2, tasks=1, seeds=3)


def test_a_size_is_words() -> None:
    assert str(Size(methods=2, tasks=1, seeds=3, examples=12345)) == "2 methods, 1 task, 3 seeds, 12,345 test examples"

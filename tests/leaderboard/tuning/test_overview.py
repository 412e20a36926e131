"""What the page on tuning shows, from searches whose figures are worked out by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from peftmark.leaderboard.tuning.overview import Tuned, make_overview

if TYPE_CHECKING:
    from ..conftest import Results

DIGITS, COUNT = "embedded/digits", "embedded/count"


def overview(results: Results) -> list[Tuned]:
    return make_overview(results.board(), results.subjects())


def only(results: Results) -> Tuned:
    [tuned] = overview(results)
    return tuned


def test_figures_of_a_method_are_means_over_its_tasks(results: Results) -> None:
    for task in (DIGITS, COUNT):
        results.task(task, "natural", chance_percent=10.0)
    # in two studies trials 0, 1, 2 and 0, 3, 4
    results.search("lora", DIGITS, [60.0, 70.0, 69.5, None, 40.0], {1: (71.0,), 0: (63.0,)}, seconds=10.0)
    results.search("lora", COUNT, [30.0, 50.0, 20.0, 20.0, 20.0], {1: (52.0,), 0: (32.0,)}, seconds=20.0)
    results.run("lora", DIGITS, 61.0, config={"rank": 8})
    results.run("lora", COUNT, 40.0, config={"rank": 8})
    [lora] = only(results).methods
    assert [task.values for task in lora.tasks] == [(30, 50, 20, 20, 20), (60, 70, 69.5, 10, 40)]  # by name of the task
    assert lora.best == 60.0 and lora.worst == 30.0
    assert lora.needed == (6 / 2 + 6 / 3) / 2
    assert lora.failed == 0.1
    assert lora.deviation == pytest.approx(((680 / 4) ** 0.5 + (590.1875 / 3) ** 0.5) / 2)
    # digits: (10 + 40 + 60 + 69.5 + 70) / 5 = 49.9, count: 28; of 25 pairs the i-th is the best in 2i - 1
    digits = (10 + 3 * 40 + 5 * 60 + 7 * 69.5 + 9 * 70) / 25
    count = (1 * 20 + 3 * 20 + 5 * 20 + 7 * 30 + 9 * 50) / 25
    assert lora.curve == pytest.approx([(49.9 + 28) / 2, (digits + count) / 2])  # no further than half of five
    low, high = lora.band
    assert all(a < b < c for a, b, c in zip(low, lora.curve, high, strict=True))
    assert [task.gain for task in lora.tasks] == [2.0, 6.0] and lora.gain == 4.0  # 42 - 40, 67 - 61
    assert lora.seconds == 5 * (10.5 + 20.5)
    assert lora.times_default == 5.0


def test_time_of_trials_beside_the_default_leaves_setting_up_out(results: Results) -> None:
    results.search("lora", DIGITS, [60.0], {}, budget=3, studies=1, seconds=10.0)
    results.search("lora", DIGITS, [60.0, 50.0, 50.0], {}, budget=3, studies=1, seconds=10.0)
    [lora] = only(results).methods
    assert lora.times_default == 3.0
    results.search("other", DIGITS, [None, 50.0, 50.0], {}, budget=3, studies=1)
    assert {method.label: method.times_default for method in only(results).methods} == {"lora": 3.0, "other": None}


def test_where_lower_is_better(results: Results) -> None:
    results.search(
        "lora", DIGITS, [6.0, 2.0, None, 4.0], {}, budget=4, studies=1, unit="pixels", higher_is_better=False
    )
    [lora] = only(results).methods
    [task] = lora.tasks
    assert task.values == (6.0, 2.0, 6.0, 4.0)
    assert (lora.best, lora.worst, lora.needed) == (2.0, 6.0, None)  # pixels have no points
    assert lora.curve == pytest.approx([4.5, (1 * 6 + 3 * 6 + 5 * 4 + 7 * 2) / 16])
    assert lora.band[0][0] > lora.curve[0] > lora.band[1][0]  # the better end comes last


def test_all_trials_failed(results: Results) -> None:
    results.search("lora", DIGITS, [None, None], {0: (None,)}, budget=2, studies=1)
    tuned = only(results)
    [lora] = tuned.methods
    assert (lora.measured, lora.failed, lora.gain, tuned.comparable) == ([], 1.0, None, [])


def test_searches_under_way_are_counted_and_not_measured(results: Results) -> None:
    results.search("lora", DIGITS, [60.0, 50.0], {}, budget=2, studies=1)
    results.search("lora", COUNT, [60.0], {}, budget=2, studies=1)
    results.search("bitfit", COUNT, [60.0, 50.0], {}, budget=2, studies=1)
    tuned = only(results)
    assert tuned.under_way == 1 and tuned.tasks == [COUNT, DIGITS]
    assert [(method.label, len(method.tasks), method.under_way) for method in tuned.methods] == [
        ("bitfit", 1, 0),
        ("lora", 1, 1),
    ]
    assert tuned.comparable == []


def test_budgets_protocols_and_backbones_are_apart(results: Results) -> None:
    results.search("lora", DIGITS, [60.0, 50.0], {}, budget=2, studies=1)
    results.search("lora", DIGITS, [60.0], {}, budget=1, studies=1)
    results.search("lora", DIGITS, [60.0], {}, budget=1, studies=1, overrides={"epochs": 2})
    results.search("lora", DIGITS, [60.0], {}, budget=1, studies=1, backbone="embedded/other")
    found = [(tuned.backbone.name, tuned.protocol, tuned.budget.trials) for tuned in overview(results)]
    assert found == [
        ("embedded/other", "embedded, version 1", 1),
        ("embedded/vit", "embedded, version 1", 1),
        ("embedded/vit", "embedded, version 1", 2),
        ("embedded/vit", "embedded, version 1, epochs=2", 1),
    ]
    assert len({tuned.key for tuned in overview(results)}) == 4


def three_studies(results: Results, method: str, default: float, studies: tuple[float | None, ...]) -> None:
    """They choose trials 2, 3 and 1."""
    results.run(method, DIGITS, default, config={"rank": 8})
    finals = dict(zip((2, 3, 1), ((figure,) for figure in studies), strict=True))
    results.search(method, DIGITS, [60.0, 61.0, 62.0, 63.0], finals, studies=3)


def test_luck_of_tuning(results: Results) -> None:
    three_studies(results, "a", 50.0, (70.0, 62.0, 64.0))  # median 64
    three_studies(results, "b", 55.0, (60.0, 63.0, 66.0))  # 63
    three_studies(results, "c", 40.0, (50.0, 90.0, None))  # 50
    luck = only(results).luck
    assert luck is not None and luck.default is not None
    assert [ranking.name for ranking in luck.rankings] == ["default", "study 1", "study 2", "study 3", "median"]
    assert [ranking.first for ranking in luck.rankings] == [["b"], ["a"], ["c"], ["b"], ["a"]]
    assert luck.tuned.ranks == {"a": 1, "b": 2, "c": 3}
    assert [ranking.changed for ranking in luck.rankings] == [(1, 3), (0, 3), (3, 3), (1, 3), (0, 3)]
    assert luck.studies[2].values["c"] == float("-inf") and luck.studies[2].ranks == {"a": 2, "b": 1}
    assert luck.other_firsts == 2
    assert luck.changed == pytest.approx(4 / 9)
    assert [label for label, _ in luck.methods] == ["a", "b", "c"]


def test_luck_with_one_study_compares_default_and_tuned(results: Results) -> None:
    for method, default, tuned in (("a", 50.0, 60.0), ("b", 55.0, 58.0), ("c", None, 99.0)):
        if default:
            results.run(method, DIGITS, default, config={"rank": 8})
        results.search(method, DIGITS, [60.0], {0: (tuned,)}, budget=1, studies=1)
    luck = only(results).luck
    assert luck is not None and luck.default is not None
    assert [ranking.name for ranking in luck.rankings] == ["default", "tuned"]
    assert luck.default.ranks == {"b": 1, "a": 2} and luck.default.changed == (1, 1)
    assert luck.tuned.first == ["c"]


def test_one_method_has_no_ranking(results: Results) -> None:
    three_studies(results, "a", 50.0, (70.0, 62.0, 64.0))
    assert only(results).luck is None


def test_what_defaults_were_trained_on_is_known(results: Results) -> None:
    three_studies(results, "a", 50.0, (70.0, 62.0, 64.0))
    assert only(results).other_data  # they have validation figures

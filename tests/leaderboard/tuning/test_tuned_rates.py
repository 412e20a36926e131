"""A protocol's rates are those of the trials that are best over all tasks."""

from __future__ import annotations

from pathlib import Path

import pytest

from peftmark.tools.tuned_rates import chosen, trials_of

from ..conftest import Results

TASKS = ("embedded/digits", "embedded/count")


def test_the_trial_with_the_best_mean_over_all_tasks_is_chosen(tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.search("lora", TASKS[0], [50.0, 90.0, 60.0, None], {}, budget=4, studies=1)
    results.search("lora", TASKS[1], [50.0, 20.0, 60.0, 99.0], {}, budget=4, studies=1)
    results.search("bitfit", TASKS[0], [50.0, 40.0, 45.0, 41.0], {}, budget=4, studies=1)
    results.search("bitfit", TASKS[1], [50.0, 99.0], {}, budget=4, studies=1)  # its other trials are not all there
    best = chosen(trials_of(tmp_path))
    lora, bitfit = best.loc["lora"], best.loc["bitfit"]
    assert (lora["spec.trial"], lora["validation"], lora["default"]) == (2, 60.0, 50.0)
    assert (lora["learning_rate"], lora["searched"]) == (pytest.approx(0.002), "rank=16")
    assert (bitfit["spec.trial"], bitfit["validation"]) == (1, 69.5)

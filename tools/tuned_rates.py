"""A protocol's learning rates out of a tuned suite's trials, each method's from equal trials.

    peftmark run --suite embedded-tuned --results runs/tuned
    python -m tools.tuned_rates runs/tuned

Points are the same on all tasks, so that a trial is one configuration tried everywhere: a method's is the one with the
highest mean validation figure over its tasks. Test figures are not looked at.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftmark.results import load_results

if TYPE_CHECKING:
    import pandas

METHOD, TASK = "spec.method.name", "spec.task.name"


def trials_of(results: Path) -> pandas.DataFrame:
    """Mean validation over tasks of every trial that was made on all of a method's tasks; one that failed counts as 0.

    A row a method and trial, with its ``learning_rate``, the other settings that were ``searched``, the mean
    ``validation`` and the number of ``tasks``.
    """
    frame = load_results(results)
    frame = frame[frame["spec.tuning.stage"] == "trial"]
    frame = frame.assign(
        learning_rate=frame["spec.tuning.learning_rate"],
        searched=[
            _searched(space, config)
            for space, config in zip(frame["spec.tuning.space"], frame["spec.method.config"], strict=True)
        ],
        validation=frame["trial.validation"].fillna(0.0),
    )
    keys = [METHOD, "spec.trial"]
    trials = frame.groupby(keys).agg(
        learning_rate=("learning_rate", "first"),
        searched=("searched", "first"),
        validation=("validation", "mean"),
        tasks=(TASK, "nunique"),
    )
    most = trials.groupby(level=METHOD)["tasks"].transform("max")
    return trials[trials["tasks"] == most]


def chosen(trials: pandas.DataFrame) -> pandas.DataFrame:
    """The best trial of every method, beside trial 0, its default."""
    by_method = trials.groupby(level=METHOD)["validation"]
    best = trials.loc[by_method.idxmax()].reset_index("spec.trial")
    default = trials.xs(0, level="spec.trial")["validation"].rename("default")
    return best.join(default)


def _searched(space: Any, config: dict[str, Any]) -> str:
    names = sorted(set(space) - {"learning_rate"}) if isinstance(space, dict) else []
    return ", ".join(f"{name}={config[name]:.3g}" for name in names)


def main() -> None:
    """Print all trials and, below, each method's best."""
    trials = trials_of(Path(sys.argv[1]))
    sys.stdout.write(trials.round(4).to_string() + "\n\n" + chosen(trials).round(4).to_string() + "\n")


if __name__ == "__main__":
    main()

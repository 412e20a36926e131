"""Searches made up for the board: a part of `conftest.Results`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from peftmark.results import RunRecord, TuningSpec


class Searching:
    """Writes the records of whole searches."""

    run: Callable[..., RunRecord]

    def search(
        self,
        method: str,
        task: str,
        trials: Sequence[float | None],
        finals: Mapping[int, Sequence[float | None]],
        *,
        budget: int = 6,
        studies: int = 2,
        **more: Any,
    ) -> list[RunRecord]:
        """Write a search: validation figures of its trials, test figures of the trials that were chosen, from seed 1.

        None failed. Six trials in two studies are trials 0, 1, 2 and 0, 3, 4; in three they are 0, 2 and 0, 3 and 0, 1.
        """
        made = []

        def tuning(stage: Any, trial: int) -> TuningSpec:
            return TuningSpec(
                stage=stage,
                tuner="halton",
                trials=budget,
                studies=studies,
                space={"learning_rate": "log-uniform from 0.0003 to 0.1", "rank": "one of 4, 8, 16"},
                learning_rate=0.008 if trial == 0 else 0.001 * trial,
                points_sha256="a" * 64,
            )

        def run(trial: int, stage: Any, seed: int, **figures: Any) -> None:
            config = {"rank": 8 if trial == 0 else 16}
            of_search = {"trial": trial, "seed": seed, "tuning": tuning(stage, trial), "status": "diverged"}
            made.append(self.run(method, task, config=config, **of_search, **figures, **more))

        for trial, validation in enumerate(trials):
            run(trial, "trial", 0, validation=validation)
        for trial, tests in finals.items():
            for seed, test in enumerate(tests, 1):
                run(trial, "final", seed, test=test)
        return made

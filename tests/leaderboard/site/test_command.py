"""The command that repeats a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from peftmark.leaderboard.site.command import reproduce

if TYPE_CHECKING:
    from ..conftest import Results


def test_command_says_only_what_is_needed(results: Results) -> None:
    config = {"rank": 16, "targets": "q v", "alpha": 8}
    spec = results.run("lora", "vtab/a", 50.0, seed=3, config=config, overrides={"epochs": 2}).spec
    start = "peftmark run --method lora --backbone embedded/vit --task vtab/a --seed 3 --protocol embedded-v1"
    end = "--set protocol.epochs=2"
    assert reproduce(spec, {"rank": 8, "targets": "q v", "alpha": 8}) == f"{start} --set method.rank=16 {end}"
    assert reproduce(spec, None) == (
        f"{start} --set method.alpha=8 --set method.rank=16 --set 'method.targets=q v' {end}"
    )


def test_command_of_a_run_of_a_search_is_that_of_the_search(results: Results) -> None:
    made = results.search("lora", "vtab/a", [60.0, 70.0], {1: (50.0, 50.0, 50.0)}, budget=4, studies=2)
    start = "peftmark run --method lora --backbone embedded/vit --task vtab/a"
    trial, final = made[1].spec, made[-1].spec
    expected = f"{start} --seed 1 --seed 2 --seed 3 --trials 4 --studies 2 --protocol embedded-v1"
    assert reproduce(trial, None, (1, 2, 3)) == reproduce(final, {"rank": 8}, (1, 2, 3)) == expected  # rank is searched
    assert reproduce(trial, None) == f"{start} --trials 4 --studies 2 --protocol embedded-v1"
    fixed = msgspec.structs.replace(trial.method, config={**trial.method.config, "words": "a b"})
    tuning = msgspec.structs.replace(trial.tuning, tuner="optuna")
    other = msgspec.structs.replace(trial, method=fixed, tuning=tuning)
    assert reproduce(other, {"rank": 8, "words": "c"}) == (
        f"{start} --trials 4 --studies 2 --tuner optuna --protocol embedded-v1 --set 'method.words=a b'"
    )

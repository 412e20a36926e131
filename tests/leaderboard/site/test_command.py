"""The command that repeats a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

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

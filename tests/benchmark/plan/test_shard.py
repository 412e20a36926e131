"""Slices of a plan: disjoint, together the whole, and a search's runs in one of them."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest

from peftmark.benchmark.plan.runs import Request, Spec, plan
from peftmark.benchmark.plan.shard import Shard
from peftmark.errors import PeftmarkError
from peftmark.results import CostSpec, RunSpec, TuningSpec


@pytest.fixture(scope="module")
def specs() -> list[Spec]:
    return plan(Request(suite="embedded-full", seeds=range(10))).specs


@pytest.mark.parametrize("count", [1, 2, 16])
def test_slices_are_the_plan(specs: list[Spec], count: int) -> None:
    slices = [Shard(index, count).of(specs) for index in range(1, count + 1)]
    assert Counter(spec.id for part in slices for spec in part) == Counter(spec.id for spec in specs)
    order = {spec.id: number for number, spec in enumerate(specs)}
    assert all(part == sorted(part, key=lambda spec: order[spec.id]) for part in slices)
    fair = len(specs) / count
    assert all(abs(len(part) - fair) < 5 * fair**0.5 + 1 for part in slices)


def test_a_slice_does_not_depend_on_what_else_is_planned(specs: list[Spec]) -> None:
    first, part = specs[: len(specs) // 3], Shard(2, 5)
    assert part.of(first) == [spec for spec in part.of(specs) if spec in first]


def test_the_slice_of_a_run_and_of_a_profile(specs: list[Spec]) -> None:
    """Machines of different versions must agree: it is the number that the id is, modulo N."""
    for kind in (RunSpec, CostSpec):
        spec = next(spec for spec in specs if isinstance(spec, kind))
        assert Shard(int(spec.id, 16) % 7 + 1, 7).holds(spec)


def searched(spec: RunSpec, **changes: object) -> RunSpec:
    """A run of a search, whose trials, studies and final runs differ in `changes` alone."""
    space = {"learning_rate": "…", "made_up": "…"}
    tuning = TuningSpec(
        stage="trial", tuner="halton", trials=15, studies=3, space=space, learning_rate=0.1, points_sha256="0" * 64
    )
    of_tuning = {key: value for key, value in changes.items() if key in TuningSpec.__struct_fields__}
    others = {key: value for key, value in changes.items() if key not in of_tuning}
    return msgspec.structs.replace(spec, tuning=msgspec.structs.replace(tuning, **of_tuning), **others)


def test_a_search_is_in_one_slice(specs: list[Spec]) -> None:
    """So that the shard can choose by itself: whatever the trial, the study, the stage, the seed, the configuration."""
    runs = [spec for spec in specs if isinstance(spec, RunSpec)]
    base = runs[0]
    other_config = msgspec.structs.replace(base.method, config={**base.method.config, "made_up": 1})
    search = [
        searched(base),
        searched(base, trial=3, learning_rate=0.5, method=other_config),
        searched(base, study=2),
        searched(base, stage="final", seed=7),
        searched(base, task=msgspec.structs.replace(base.task, split_sha256="1" * 64)),
    ]
    [found] = {next(i for i in range(1, 1001) if Shard(i, 1000).holds(spec)) for spec in search}
    others = [
        searched(spec) for spec in runs if (spec.task.name, spec.method.name) != (base.task.name, base.method.name)
    ]
    assert len({next(i for i in range(1, 1001) if Shard(i, 1000).holds(spec)) for spec in others[:20]}) > 1
    assert not Shard(found, 1000).holds(searched(base, trials=5))


@pytest.mark.parametrize("text", ["1/1", "3/16", "16/16"])
def test_what_is_a_shard(text: str) -> None:
    shard = Shard.parse(text)
    assert f"{shard.index}/{shard.count}" == text


@pytest.mark.parametrize(
    "text", ["3", "0/4", "5/4", "a/b", "/", "1/", "-1/4", "1/4/4", "1.0/4", "٣/٤", " 1/4", "1/0", "1/" + "9" * 5000]
)
def test_what_is_none(text: str) -> None:
    with pytest.raises(PeftmarkError, match=r"write I/N with I from 1 to N, e\.g\. --shard 3/16"):
        Shard.parse(text)

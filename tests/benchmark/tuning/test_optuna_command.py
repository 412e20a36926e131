"""``peftmark run --tuner optuna``: rounds of trials, what they choose, and going on after a stop."""

from __future__ import annotations

from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
import torch

from peftmark.benchmark.launch.outcome import Options, Outcome
from peftmark.benchmark.run.run import run
from peftmark.results import RunSpec, Store
from peftmark.results.tuning import chosen

pytest.importorskip("optuna")

CPU = torch.device("cpu")


def test_the_command(invoke: Callable[..., Any], toys: Path, tmp_path: Path) -> None:
    asked = ("--method", "toy_full", "--task", "toy/bright", "--backbone", "toy/pixels", "--import", toys)
    tuned = ("run", *asked, "--trials", 4, "--studies", 2, "--tuner", "optuna", "--set", "protocol.epochs=2")
    planned = invoke(*tuned, "--dry-run")
    assert planned.lines[-2:] == [
        "1 to run, 0 finished, in runs",
        "and what 1 searches propose and choose, when their trials are done",
    ]
    assert not (tmp_path / "runs").exists()
    ended = invoke(*tuned, "--jobs", 1)
    assert ended.code == 0, ended.err
    records, problems = Store(tmp_path / "runs").load()
    assert problems == []
    trials = {record.spec.trial: record for record in records if record.trial}
    assert sorted(trials) == [0, 1, 2]  # 2 of full length in each study, the default in both
    best = {record.spec.trial for record in chosen(trials)}
    final = {(record.spec.trial, record.spec.seed) for record in records if record.quality}
    assert final == {(trial, seed) for trial in best for seed in (1, 2, 3)}
    assert invoke(*tuned).lines[-1].startswith("nothing to run; ")
    assert invoke("validate", "runs").code == 0


@pytest.mark.parametrize("after", [0, 1, 2, 4, 7])
def test_a_command_that_was_stopped_goes_on(
    invoke: Callable[..., Any], toys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """To the records, bit for bit, that one has which nothing disturbed."""
    left = [after]

    def launch(specs: list[RunSpec], options: Options) -> Generator[Outcome, None, None]:
        for spec in specs:
            if left[0] == 0:
                raise KeyboardInterrupt
            left[0] -= 1
            record = run(spec, CPU)
            Store(options.results).write(record, options.place(spec))
            yield Outcome.of(record, 0.0)

    monkeypatch.setattr("peftmark.benchmark.launch.local.launch", launch)
    words = ["run", "--method", "toy_full", "--task", "toy/dim", "--backbone", "toy/pixels", "--import", toys]
    words += ["--trials", 16, "--studies", 2, "--tuner", "optuna", "--set", "protocol.epochs=4", "--device", "cpu"]
    words += ["--set", "protocol.batch_size=8", "--results"]
    assert invoke(*words, "stopped").code == 130
    dry = invoke(*words, "stopped", "--dry-run").lines
    assert f"{2 if after else 1} to run, {after} finished, in stopped" in dry  # the default, then one in each study
    left[0] = -1
    for folder in ("stopped", "undisturbed"):
        assert invoke(*words, folder).code == 0
    one, other = (
        {record.run_id: (record.trial, record.quality) for record in Store(tmp_path / folder).load()[0]}
        for folder in ("stopped", "undisturbed")
    )
    assert one == other
    trials = [trial for trial, _ in one.values() if trial]
    assert len(trials) >= 15
    assert any(trial.pruned for trial in trials)
    assert invoke(*words, "stopped").lines[-1] == f"nothing to run; {len(one)} were finished before; records in stopped"
    assert invoke("validate", "stopped").code == 0

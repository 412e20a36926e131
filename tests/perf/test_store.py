"""10,000 records: planned, looked for and loaded. Against importing torch, which every such command does once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

import peftmark
from peftmark import SUITES
from peftmark.benchmark.plan.runs import Plan, Request, plan
from peftmark.benchmark.plan.state import plan_state
from peftmark.results import RunSpec, Store, encode_record

SUITE = SUITES["embedded-full"]
RECORDS = Path(__file__).parents[2] / "results" / "records" / "embedded-full"
REQUEST = Request(suite="embedded-full", seeds=range(-(-10_000 // len(SUITE.pairs()))))


def import_torch() -> None:
    subprocess.run([sys.executable, "-c", "import torch"], check=True)


@pytest.fixture(scope="module")
def planned() -> Plan:
    return plan(REQUEST)


@pytest.fixture(scope="module")
def results(planned: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which all of the plan is finished: figures of the committed records, over and over."""
    folder = tmp_path_factory.mktemp("results")
    runs, costs = Store(RECORDS).load()[0], Store(RECORDS).load_costs()[0]
    (folder / "costs").mkdir()
    for number, spec in enumerate(planned.specs):
        if isinstance(spec, RunSpec):
            record = msgspec.structs.replace(runs[number % len(runs)], spec=spec, run_id=spec.id)
            (folder / f"{spec.id}.json").write_bytes(encode_record(record))
        else:
            cost = msgspec.structs.replace(costs[number % len(costs)], spec=spec, cost_id=spec.id)
            (folder / "costs" / f"{spec.id}.json").write_bytes(encode_record(cost))
    return folder


def test_planning_10_000_runs(compare, planned: Plan) -> None:
    assert sum(isinstance(spec, RunSpec) for spec in planned.specs) >= 10_000
    compare(lambda: plan(REQUEST), import_torch, target=0.3, pairs=5)


def test_looking_for_10_000_records(compare, planned: Plan, results: Path) -> None:
    assert not plan_state(planned.specs, Store(results), "skip").todo
    compare(lambda: plan_state(planned.specs, Store(results), "skip"), import_torch, target=0.4, pairs=5)


def test_loading_10_000_records(compare, results: Path) -> None:
    assert len(peftmark.load_results(results)) >= 10_000
    compare(lambda: peftmark.load_results(results), import_torch, target=1, pairs=5)


def test_a_command_with_nothing_to_run(compare, results: Path) -> None:
    """From the start of Python to its end."""
    command = [sys.executable, "-m", "peftmark", "run", "--suite", "embedded-full", "--results", str(results)]
    command += [word for seed in REQUEST.seeds for word in ("--seed", str(seed))]

    def nothing_to_run() -> None:
        ended = subprocess.run(command, capture_output=True, text=True, check=True)
        assert ended.stdout.startswith("nothing to run")

    compare(nothing_to_run, import_torch, target=2, pairs=5)

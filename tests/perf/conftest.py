"""`compare`: what is timed takes turns with what it is held against; a run ends in a table of ratios, and never fails.

pytest-benchmark times and stores the rounds; the ratio of a benchmark, its quartiles and its target are in the
`extra_info` of what it stores.
"""

from __future__ import annotations

import gc
import itertools
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
for _threads in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):  # before torch is imported
    os.environ.setdefault(_threads, "1")

REFERENCE = Path(__file__).parents[2] / "results" / "records" / "perf"
"""The committed run: what a benchmark is compared with that has not run here before."""

Call = Callable[[], object]
Compare = Callable[..., None]
_FOUND = pytest.StashKey[dict[str, dict[str, Any]]]()
_BEFORE = pytest.StashKey[dict[str, float]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--pairs", type=int, help="Timed pairs of every benchmark, in place of its own number.")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_FOUND] = {}
    folder = Path(config.getoption("benchmark_storage").removeprefix("file://"))
    config.stash[_BEFORE] = _ratios(REFERENCE) | _ratios(folder)  # now: this run's own are stored before the table


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    """What says which machine it was, without the flags of its CPU and its name in the network."""
    machine_info.get("cpu", {}).pop("flags", None)
    machine_info.pop("node", None)


@pytest.fixture
def compare(benchmark: Any, request: pytest.FixtureRequest) -> Compare:
    """Time a call in turns with a reference."""

    def compare(candidate: Call, reference: Call, *, target: float | None, pairs: int, warmup: int = 1) -> None:
        """
        Args:
            target: what the median of the ratios, pair by pair, should not exceed; None where there is no such figure.
            pairs: how many are timed, after `warmup` others.
        """
        from peftmark.benchmark.measure.speed import ratio

        seconds: list[float] = []
        turns = itertools.count()

        def turn() -> None:
            """Before the candidate in one pair, after it in the next: to be first may be an advantage."""
            if next(turns) % 4 in (0, 3):
                start = time.perf_counter()
                reference()
                seconds.append(time.perf_counter() - start)

        pairs = request.config.getoption("pairs") or pairs
        gc.collect()
        gc.disable()  # pytest-benchmark's own switch is for the candidate alone: the reference would collect for both
        try:
            benchmark.pedantic(candidate, setup=turn, teardown=turn, rounds=pairs, warmup_rounds=warmup)
        finally:
            gc.enable()
        found = ratio(benchmark.stats.stats.data, seconds[warmup:])
        benchmark.extra_info.update(ratio=found.median, q1=found.low, q3=found.high, target=target, pairs=pairs)
        request.config.stash[_FOUND][benchmark.name] = dict(benchmark.extra_info)

    return compare


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    found = config.stash[_FOUND]
    if not found:
        return
    terminalreporter.ensure_newline()
    terminalreporter.section("medians of ratios, pair by pair; before: of the last stored run", sep="-")
    for line in table(found, config.stash[_BEFORE]):
        terminalreporter.write_line(line)


def table(found: Mapping[str, Mapping[str, Any]], before: Mapping[str, float]) -> list[str]:
    """One line a benchmark: ratio, quartiles, target, and the ratio held against the one before."""
    width = max(map(len, found))
    lines = [f"{'':{width}}  {'ratio':>8}  {'quartiles':>19}  {'target':>15}  {'before':>8}  {'now/before':>10}"]
    for name, each in found.items():
        verdict = "-"
        if each["target"] is not None:
            verdict = f"{each['target']:g} {'met' if each['ratio'] <= each['target'] else 'NOT MET'}"
        earlier = before.get(name)
        past = f"{earlier:8.3f}  {each['ratio'] / earlier:10.3f}" if earlier else f"{'-':>8}  {'-':>10}"
        quartiles = f"{each['q1']:.3f} … {each['q3']:.3f}"
        lines.append(f"{name:{width}}  {each['ratio']:8.3f}  {quartiles:>19}  {verdict:>15}  {past}")
    return lines


def _ratios(folder: Path) -> dict[str, float]:
    """Of each benchmark in the last run that has it; pytest-benchmark stores ``<platform>/<number>_….json``."""
    return {
        each["name"]: each["extra_info"]["ratio"]
        for path in sorted(folder.glob("*/[0-9]*.json"), key=lambda path: path.name)
        for each in json.loads(path.read_text())["benchmarks"]
        if "ratio" in each["extra_info"]
    }

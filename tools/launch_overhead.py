"""``python -m tools.launch_overhead``: what a run costs that does nothing, under any launcher, and the driver's memory.

A run's seconds are those of one worker: between the ends of two runs, times the workers. They are held against what
the worker itself says it took, which leaves what the launcher adds.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from peftmark.benchmark.launch.launchers import LAUNCHERS, find_launcher
from peftmark.benchmark.launch.outcome import Options
from peftmark.benchmark.plan.runs import Request, Spec, plan
from peftmark.commands.settings import parse_settings
from peftmark.registry import import_file

PLUGIN = Path(__file__).with_name("noop.py")


def noop_specs(
    runs: int, epochs: int = 0, methods: Sequence[str] = (), backbone: str = "noop/pixels", **config: Any
) -> list[Spec]:
    """Runs of no training (by default) on a made-up task, of one seed after another."""
    import_file(PLUGIN)
    request = Request(
        methods=methods or ["noop"],
        tasks=["noop/noise"],
        backbones=[backbone],
        seeds=range(-(-runs // max(len(methods), 1))),
        method_settings=config,
        protocol_settings={"epochs": epochs},
    )
    return plan(request).specs[:runs]


def noop_options(results: Path, jobs: int, launcher: Mapping[str, Any], **others: Any) -> Options:
    """How they are run: without predictions, whose files a user may leave out."""
    fixed = {"device": "cpu", "timeout_s": None, "save_adapters": False, "predictions": False, **others}
    return Options(results=results, jobs=jobs, plugins=(str(PLUGIN),), launcher=dict(launcher), **fixed)


def resident_mib(process: int | str = "self") -> float:
    """Memory of a process; 0 where it is gone."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
    return 0.0


def largest_child_mib() -> float:
    """Memory of the largest process that this one has started: a local worker."""
    with contextlib.suppress(OSError):
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        return max(map(resident_mib, children), default=0.0)
    return 0.0


@click.command()
@click.option("--launcher", type=click.Choice(LAUNCHERS), default="local", show_default=True)
@click.option("--runs", type=click.IntRange(min=10), default=1000, show_default=True)
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--set", "settings", multiple=True, metavar="launcher.KEY=VALUE", help="The launcher's settings.")
@click.option("--predictions/--no-predictions", default=False, show_default=True)
@click.option("--every", type=int, default=1000, show_default=True, help="Runs between looks at memory.")
@click.option("--method", "methods", multiple=True, metavar="M", help="In place of one that does nothing.")
@click.option("--backbone", default="noop/pixels", show_default=True, metavar="B")
@click.option("--epochs", type=int, default=0, show_default=True, help="Of one step each.")
@click.option("--results", type=click.Path(path_type=Path), help="By default a temporary folder.")
def main(
    launcher: str,
    runs: int,
    jobs: int,
    settings: tuple[str, ...],
    predictions: bool,
    every: int,
    methods: tuple[str, ...],
    backbone: str,
    epochs: int,
    results: Path | None,
) -> None:
    """Time runs that do nothing."""
    specs = noop_specs(runs, epochs, methods, backbone)
    with tempfile.TemporaryDirectory(prefix="peftmark-noop-") as folder:
        options = noop_options(
            results or Path(folder), jobs, parse_settings(settings)["launcher"], predictions=predictions
        )
        options.results.mkdir(parents=True, exist_ok=True)
        begin = time.perf_counter()
        ends, own, statuses = [], [], Counter[str]()
        for outcome in find_launcher(launcher)(specs, options):
            ends.append(time.perf_counter())
            own.append(outcome.seconds)
            statuses[outcome.status] += 1
            if len(ends) % every == 0:
                memory = f"driver {resident_mib():6.1f} MiB, largest worker {largest_child_mib():6.1f} MiB"
                click.echo(f"{len(ends):6} runs, {ends[-1] - begin:7.1f} s, {memory}")
        records = len(list(options.results.glob("*.json")))
    later = ends[len(ends) // 10 :]  # the first ones wait for the workers' start
    between = sorted(1000 * jobs * (after - before) for before, after in itertools.pairwise(later))
    whole, within = 1000 * jobs * (later[-1] - later[0]) / (len(later) - 1), 1000 * statistics.median(own)
    click.echo(f"{launcher}, {jobs} workers: {dict(statuses)}, {records} records, first after {ends[0] - begin:.1f} s")
    click.echo(
        f"a run: mean {whole:.1f} ms, median {statistics.median(between):.1f} ms "
        f"(of it in the worker {within:.1f} ms), 99% {between[len(between) * 99 // 100]:.1f} ms"
    )
    sys.exit(statuses["ok"] != runs)


if __name__ == "__main__":
    main()

"""``python -m tools.launch_overhead``: what a run costs that does nothing, under any launcher, and the driver's memory.

A run's seconds are those of one worker: between the ends of two runs, times the workers. They are held against what
the worker itself says it took, which leaves what the launcher adds.
"""

from __future__ import annotations

import itertools
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from peftmark.benchmark.launch.launchers import LAUNCHERS, find_launcher
from peftmark.benchmark.launch.outcome import Options
from peftmark.benchmark.plan.runs import Request, Spec, plan
from peftmark.commands.settings import parse_settings
from peftmark.registry import import_file

PLUGIN = Path(__file__).with_name("noop.py")


def noop_specs(runs: int, seconds: float = 0.0, epochs: int = 0) -> list[Spec]:
    """Runs of no training (by default) on a made-up task, one a seed."""
    import_file(PLUGIN)
    request = Request(
        methods=["noop"],
        tasks=["noop/noise"],
        backbones=["noop/pixels"],
        seeds=range(runs),
        method_settings={"seconds": seconds},
        protocol_settings={"epochs": epochs},
    )
    return plan(request).specs


def noop_options(results: Path, jobs: int, launcher: Mapping[str, Any], **others: Any) -> Options:
    """How they are run: without predictions, whose files a user may leave out."""
    fixed = {"device": "cpu", "timeout_s": None, "save_adapters": False, "predictions": False, **others}
    return Options(results=results, jobs=jobs, plugins=(str(PLUGIN),), launcher=dict(launcher), **fixed)


def resident_mib() -> float:
    """Memory of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return float("nan")


@click.command()
@click.option("--launcher", type=click.Choice(LAUNCHERS), default="local", show_default=True)
@click.option("--runs", type=click.IntRange(min=10), default=1000, show_default=True)
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--set", "settings", multiple=True, metavar="launcher.KEY=VALUE", help="The launcher's settings.")
@click.option("--predictions/--no-predictions", default=False, show_default=True)
@click.option("--every", type=int, default=1000, show_default=True, help="Runs between looks at the driver's memory.")
@click.option("--results", type=click.Path(path_type=Path), help="By default a temporary folder.")
def main(
    launcher: str,
    runs: int,
    jobs: int,
    settings: tuple[str, ...],
    predictions: bool,
    every: int,
    results: Path | None,
) -> None:
    """Time runs that do nothing."""
    specs = noop_specs(runs)
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
                click.echo(f"{len(ends):6} runs, {ends[-1] - begin:7.1f} s, driver {resident_mib():6.1f} MiB")
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

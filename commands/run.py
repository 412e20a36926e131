"""``peftmark run``."""

from __future__ import annotations

import os
import sys
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import PeftmarkError
from ..registry import load_plugins
from .labels import label
from .progress import Patience, carry_out, is_terminal, say, summarize
from .settings import import_option, parse_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..benchmark.launch.outcome import Options
    from ..benchmark.plan.runs import Plan, Spec
    from ..results import Store
    from ..tasks import Fingerprint


@click.command("run")
@click.option("--suite", help="A suite's name, or a TOML file.")
@click.option("--method", "methods", multiple=True, metavar="M", help="A method, or a wildcard (additive/*).")
@click.option(
    "--backbone", "backbones", multiple=True, metavar="B", help="timm/…, open_clip/…, a bare name, NAME@FILE."
)
@click.option("--task", "tasks", multiple=True, metavar="T", help="A task, or a wildcard (embedded/*).")
@click.option("--seed", "seeds", multiple=True, type=click.IntRange(0, 2**63 - 1), metavar="N", help="May be repeated.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="method.rank=8, protocol.epochs=2, …")
@click.option("--results", type=click.Path(path_type=Path), default=Path("runs"), show_default=True, metavar="DIR")
@click.option("--existing", type=click.Choice(["skip", "retry", "overwrite"]), default="skip", show_default=True)
@click.option(
    "--protocol", default="embedded-v1", show_default=True, metavar="P", help="Without --suite, which has its own."
)
@click.option(
    "--preset",
    type=click.Choice(["faithful"]),
    help="Run methods as their own repositories do, where these say how: badged, never ranked.",
)
@click.option(
    "--trials",
    type=click.IntRange(1, 1000),
    metavar="K",
    help="Tune every method with K trials each; what they choose trains on training and validation data and is tested.",
)
@click.option(
    "--studies",
    type=click.IntRange(1),
    metavar="S",
    help="Deal the trials into S studies that choose apart; by default 3 where each has 5 or more.",
)
@click.option(
    "--tuner",
    type=click.Choice(["halton", "optuna"]),
    help="Where trials come from: a committed list of points, or what earlier trials gave (TPE, with pruning).",
)
@click.option("--launcher", type=click.Choice(["local", "ray", "slurm"]), default="local", show_default=True)
@click.option("--jobs", type=click.IntRange(min=1), metavar="N", help="Workers; by default one a core, one with a GPU.")
@click.option("--device", metavar="D", help="cpu, cuda, cuda:1; by default the GPU where there is one.")
@click.option("--precision", type=click.Choice(["float32", "bfloat16"]), help="Short for --set protocol.precision=P.")
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), metavar="S", help="Seconds a run may take.")
@click.option(
    "--cache/--no-cache", default=True, help="Compute what comes before a method's first change once, not every step."
)
@click.option(
    "--predictions/--no-predictions",
    default=True,
    show_default=True,
    help="Keep what is predicted of every test example, beside the records.",
)
@click.option("--save-adapters", is_flag=True, help="Keep what was trained, as safetensors beside the records.")
@click.option("--available", is_flag=True, help="Leave out what has no data or weights here, and run the rest.")
@click.option(
    "--shard",
    metavar="I/N",
    help="The I-th of N slices of the runs, each for a machine and a results folder of its own; "
    "`peftmark validate DIR --into RESULTS` merges these.",
)
@click.option("--dry-run", is_flag=True, help="Print what would be run, what is missing, and what it would take.")
@click.option(
    "--throughput",
    type=click.FloatRange(min=0, min_open=True),
    metavar="N",
    help="With --dry-run: training images a second, for an estimate in hours (`peftmark profile --speed` measures it).",
)
@import_option
def run_command(
    suite: str | None,
    methods: tuple[str, ...],
    backbones: tuple[str, ...],
    tasks: tuple[str, ...],
    seeds: tuple[int, ...],
    settings: tuple[str, ...],
    results: Path,
    existing: str,
    protocol: str,
    preset: str | None,
    trials: int | None,
    studies: int | None,
    tuner: str | None,
    launcher: str,
    jobs: int | None,
    device: str | None,
    precision: str | None,
    timeout: float | None,
    cache: bool,
    predictions: bool,
    save_adapters: bool,
    available: bool,
    shard: str | None,
    dry_run: bool,
    throughput: float | None,
    plugins: tuple[str, ...],
) -> None:
    """Run methods on backbones and tasks, and write a record of each run; profile what a suite says to profile.

    With --suite, the other selections narrow or extend the suite. Finished runs are not run again.
    """
    load_plugins(plugins)
    parsed = parse_settings(settings)
    if precision:
        parsed["protocol"]["precision"] = precision

    from ..benchmark.environment import find_device, hardware_class
    from ..benchmark.plan.runs import Request, plan
    from ..benchmark.plan.shard import Shard
    from ..results import Store

    slice_ = Shard.parse(shard) if shard else None
    found = find_device(device)
    with Patience("planning") as patience:
        planned = plan(
            Request(
                suite=suite,
                methods=methods,
                backbones=backbones,
                tasks=tasks,
                seeds=seeds,
                method_settings=parsed["method"],
                protocol_settings=parsed["protocol"],
                protocol=protocol,
                preset=preset or "",
                hardware_class=hardware_class(found) if found.type == "cuda" else None,
                partial=dry_run or available,
                trials=trials,
                studies=studies,
                tuner=tuner,
                progress=patience,
            )
        )
    for note in planned.notes:
        say(note, err=True)
    if slice_ is not None:
        whole = len(planned.specs)
        searches = [search for search in planned.searches if slice_.holds(search.trials[0])]
        planned = replace(planned, specs=slice_.of(planned.specs), searches=searches)
        say(f"shard {shard}: {len(planned.specs):,} of {whole:,} runs", err=True)
    store = Store(results)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = jobs or (cores if found.type == "cpu" else 1)
    if dry_run:
        _say_plan(planned, store, existing, throughput, workers)
        return
    from ..benchmark.launch.outcome import Options

    options = Options(
        results=results,
        device=str(found),
        jobs=workers,
        timeout_s=timeout,
        save_adapters=save_adapters,
        predictions=predictions,
        plugins=tuple(os.path.realpath(file) for file in plugins),
        checkpoints=planned.checkpoints,
        cache=cache,
        launcher=parsed["launcher"],
    )
    if planned.searches:
        _say_estimate(planned, store, throughput, workers)
    with store.lock():
        store.remove_temporary_files()
        absent = dict(planned.absent)
        for reason in absent.values():
            say(f"left out: {reason}", err=True)
        carry = partial(
            _carry_out,
            store=store,
            existing=existing,
            options=options,
            launcher=launcher,
            absent=absent,
            available=available,
        )
        counts, done = carry(planned.specs)
        if planned.searches:
            of_searches, done_before = _search(planned, store, existing, carry)
            counts, done = counts + of_searches, done + done_before
    summarize(counts, done, results)
    if absent:
        raise SystemExit(1)


def _search(
    planned: Plan, store: Store, existing: str, carry: Callable[[list[Spec]], tuple[Counter[str], Counter[str]]]
) -> tuple[Counter[str], Counter[str]]:
    """What follows from the trials that were known beforehand: others, in rounds, and what is chosen.

    Statuses as of `_carry_out`.
    """
    from ..benchmark.tuning.search import Found, finals, forget, next_trials

    if existing == "overwrite":
        forget(planned.searches, store)
    counts, done = Counter[str](), Counter[str]()
    found = Found(store, existing, write=True, made=(spec.id for spec in planned.specs))
    while more := [spec for spec in next_trials(planned.searches, found) if spec.id not in found.made]:
        counts += carry([*more])[0]
        found.add(spec.id for spec in more)
    done.update(str(record.status) for name, record in found.known.items() if name not in found.made)
    chosen, without = finals(planned.searches, found)
    if without:
        say(f"{without} searches have trials without a record: the same command goes on with them", err=True)
    of_finals, done_before = carry([*chosen])
    return counts + of_finals, done + done_before


def _carry_out(
    specs: Sequence[Spec],
    *,
    store: Store,
    existing: str,
    options: Options,
    launcher: str,
    absent: dict[str, str],
    available: bool,
) -> tuple[Counter[str], Counter[str]]:
    """Run what has no finished record yet. Statuses of what was run, and of what was finished before.

    What cannot be run is added to `absent`, with the reason.
    """
    from ..benchmark.plan.state import plan_state

    with Patience("looking for records") as patience:  # under the lock: another command may just have ended
        state = plan_state(specs, store, existing, patience)
    for path in state.damaged:
        say(f"{path} is damaged: set aside as {store.set_aside(path)}, run again", err=True)
    todo, data = _prepare(state.todo, absent, available)
    return carry_out(todo, replace(options, places=state.places, data=data), launcher), state.done


def _say_plan(planned: Plan, store: Store, existing: str, throughput: float | None, jobs: int) -> None:
    """What would be run, what is missing, and what it would take."""
    from ..benchmark.plan.state import plan_state
    from ..benchmark.tuning.search import Found, finals, next_trials

    specs = list(planned.specs)
    open_searches = earlier = 0
    if planned.searches:
        found = Found(store, existing)
        chosen, open_searches = finals(planned.searches, found)
        known = {spec.id for spec in specs}
        specs += [spec for spec in next_trials(planned.searches, found) if spec.id not in known] + chosen
        earlier = len(found.known.keys() - known)  # of trials that others have led to
    with Patience("looking for records") as patience:
        state = plan_state(specs, store, existing, patience)
    for spec in state.todo:
        click.echo(f"{spec.id}  {label(spec)}")
    for reason in planned.absent.values():
        click.echo(f"missing: {reason}")
    click.echo(f"{len(state.todo)} to run, {sum(state.done.values()) + earlier} finished, in {store.root}")
    if open_searches:
        what = "propose and choose" if any(search.proposals for search in planned.searches) else "choose"
        click.echo(f"and what {open_searches} searches {what}, when their trials are done")
    _say_estimate(planned, store, throughput, jobs)


def _say_estimate(planned: Plan, store: Store, throughput: float | None, jobs: int) -> None:
    """How much there is to do; how long that takes where the throughput is given, or finished runs tell it."""
    from ..benchmark.plan.estimate import estimate, images_per_second

    found = estimate(planned)
    if not found.runs:
        return
    hours = f": {found.hours(throughput):,.1f} hours at {throughput:g} images a second" if throughput else ""
    if not throughput and (measured := images_per_second(store.load()[0])):
        hours = f": {found.hours(measured * jobs):,.1f} hours on {jobs} workers as fast as the runs in {store.root}"
    others = f" ({found.unknown:,} other runs are not counted)" if found.unknown else ""
    trials = sum(count for wanted, count in planned.wanted.items() if wanted.stage == "trial")
    whole = " of full length, or more that end early" if any(wanted.watched for wanted in planned.wanted) else ""
    kinds = (
        f" ({trials:,} trials{whole}, at most {planned.wanted.total() - trials:,} of what they choose)"
        if trials
        else ""
    )
    say(
        f"at most {found.trained / 1e6:,.1f} million training and {found.evaluated / 1e6:,.1f} million test images in "
        f"all {found.runs:,} runs{kinds}{hours}{others}"
    )


def _prepare(
    todo: list[Spec], absent: dict[str, str], available: bool
) -> tuple[list[Spec], dict[tuple[str, int], Fingerprint]]:
    """Decode what the runs need, once, before they start.

    Returns:
        What can be run, and what its data are. What cannot, for something is not there, is added to `absent` and said
        on stderr.

    Raises:
        PeftmarkError: where data cannot be read, unless what is `available` is to be run.
    """
    from ..results import RunSpec
    from ..tasks import draw_of, make_task

    found: dict[tuple[str, int], Fingerprint] = {}
    runs = [spec for spec in todo if isinstance(spec, RunSpec)]
    for name, draw in dict.fromkeys((run.task.name, draw_of(run.task.name, run.seed)) for run in runs):
        try:
            data = make_task(name, draw).prepare(_Decoding(name))
        except PeftmarkError as error:
            if not available:
                raise
            if f"task {name}" not in absent:
                absent[f"task {name}"] = str(error)
                say(f"left out: {error}", err=True)
            continue
        if data is not None:
            found[name, draw] = data.fingerprint()
            for warning in data.warnings:
                say(f"warning: task {name}: {warning}", err=True)
    return [spec for spec in todo if not (isinstance(spec, RunSpec) and f"task {spec.task.name}" in absent)], found


class _Decoding:
    """Progress of a task's data: a line on a terminal that counts; elsewhere one for every list that is done."""

    def __init__(self, task: str) -> None:
        self.task = task

    def __call__(self, what: str, done: int, total: int) -> None:
        line = f"{self.task}: {what}: {done:,} of {total:,} images decoded"
        if is_terminal(sys.stdout):
            click.echo(f"\r{line}", nl=done == total)
        elif done == total:
            say(line)

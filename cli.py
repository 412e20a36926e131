"""The command line. Heavy modules are imported by the commands that need them."""

from __future__ import annotations

import json
import os
import signal
import sys
import tomllib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .errors import PeftmarkError
from .registry import BACKBONES, METHODS, SUITES, TASKS, Registry, load_plugins

if TYPE_CHECKING:
    from .benchmark.launch.outcome import Options, Outcome
    from .benchmark.plan import Plan, Spec
    from .results import CostRecord, CostSpec, Memory

KINDS: dict[str, Registry[Any]] = {"methods": METHODS, "backbones": BACKBONES, "tasks": TASKS, "suites": SUITES}
INTERRUPTED = 130
import_option = click.option(
    "--import",
    "plugins",
    multiple=True,
    metavar="FILE",
    help="A Python file that registers methods, backbones or tasks.",
)


class _Group(click.Group):
    """Errors that a user can mend are one line; Ctrl-C exits with 130."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except PeftmarkError as error:
            click.echo(f"peftmark: {' '.join(str(error).splitlines())}", err=True)
            context.exit(2)
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            context.exit(INTERRUPTED)
        except BrokenPipeError:  # `peftmark list … | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            context.exit(0)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="peftmark")
def main() -> None:
    """Fair, measured comparison of parameter-efficient fine-tuning in computer vision."""


@main.command("list")
@click.argument("kind", type=click.Choice(list(KINDS)))
@click.argument("pattern", default="*")
@click.option("--json", "as_json", is_flag=True, help="A JSON list of objects.")
@click.option("--all", "everything", is_flag=True, help="Backbones: timm's and open_clip's names too.")
@import_option
def list_command(kind: str, pattern: str, as_json: bool, everything: bool, plugins: tuple[str, ...]) -> None:
    """List what is registered; PATTERN matches NAME and FAMILY/NAME."""
    load_plugins(plugins)
    registry = KINDS[kind]
    members = registry.members(pattern)
    names = [name for name in registry.names(pattern) if not (members and name.endswith("/*"))]
    rows = [registry.entry(name).describe() | {"name": name} for name in names + members]
    if everything and kind == "backbones":
        rows += _library_backbones(pattern)
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    if not rows:
        raise PeftmarkError(f"no {registry.kind} matches {pattern!r}: `peftmark list {kind}` shows all")
    width = max(len(row["name"]) for row in rows)
    for row in rows:
        label = row.get("family") or row.get("group") or row.get("protocol") or ""
        click.echo(f"{row['name']:{width}}  {label:16}  {row['summary']}")


def _library_backbones(pattern: str) -> list[dict[str, Any]]:
    from fnmatch import fnmatchcase

    import open_clip
    import timm

    names = [("timm", f"timm/{name}") for name in timm.list_models()]
    names += [("open_clip", f"open_clip/{name}") for name in open_clip.list_models()]
    return [
        {"name": name, "family": family, "summary": "", "origin": family}
        for family, name in names
        if fnmatchcase(name, pattern) or fnmatchcase(name.partition("/")[2], pattern)
    ]


@main.command()
@click.argument("kind", type=click.Choice([kind.removesuffix("s") for kind in KINDS]))
@click.argument("name")
@import_option
def show(kind: str, name: str, plugins: tuple[str, ...]) -> None:
    """Show one entry: its description, its origin, and a method's hyper-parameters with their defaults."""
    load_plugins(plugins)
    registry = KINDS[f"{kind}s"]
    entry, name = registry.entry(name), registry.canonical(name)
    click.echo(f"{name}\n")
    click.echo(entry.doc.strip() + "\n")
    for key, value in entry.metadata.items():
        click.echo(f"{key}: {', '.join(value) if isinstance(value, tuple) else value}")
    click.echo(f"origin: {entry.origin}")
    if kind == "method" and not name.endswith("/*"):
        from .methods import make_method

        method = make_method(name)
        click.echo(f"version: {method.version}")
        for key, value in method.config().items():
            click.echo(f"--set method.{key}={value}")


@main.command("run")
@click.option("--suite", help="A suite's name, or a TOML file.")
@click.option("--method", "methods", multiple=True, metavar="M", help="A method, or a wildcard (additive/*).")
@click.option(
    "--backbone", "backbones", multiple=True, metavar="B", help="timm/…, open_clip/…, a bare name, NAME@FILE."
)
@click.option("--task", "tasks", multiple=True, metavar="T", help="A task, or a wildcard (embedded/*).")
@click.option("--seed", "seeds", multiple=True, type=click.IntRange(min=0), metavar="N", help="May be repeated.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="method.rank=8, protocol.epochs=2, …")
@click.option("--results", type=click.Path(path_type=Path), default=Path("runs"), show_default=True, metavar="DIR")
@click.option("--existing", type=click.Choice(["skip", "retry", "overwrite"]), default="skip", show_default=True)
@click.option(
    "--protocol", default="embedded-v1", show_default=True, metavar="P", help="Without --suite, which has its own."
)
@click.option("--launcher", type=click.Choice(["local"]), default="local", show_default=True)
@click.option("--jobs", type=click.IntRange(min=1), metavar="N", help="Workers; by default one a core, one with a GPU.")
@click.option("--device", metavar="D", help="cpu, cuda, cuda:1; by default the GPU where there is one.")
@click.option("--precision", type=click.Choice(["float32", "bfloat16"]), help="Short for --set protocol.precision=P.")
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), metavar="S", help="Seconds a run may take.")
@click.option(
    "--cache/--no-cache", default=True, help="Compute what comes before a method's first change once, not every step."
)
@click.option("--save-adapters", is_flag=True, help="Keep what was trained, as safetensors beside the records.")
@click.option("--available", is_flag=True, help="Leave out what has no data or weights here, and run the rest.")
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
    launcher: str,
    jobs: int | None,
    device: str | None,
    precision: str | None,
    timeout: float | None,
    cache: bool,
    save_adapters: bool,
    available: bool,
    dry_run: bool,
    throughput: float | None,
    plugins: tuple[str, ...],
) -> None:
    """Run methods on backbones and tasks, and write a record of each run; profile what a suite says to profile.

    With --suite, the other selections narrow or extend the suite. Finished runs are not run again.
    """
    load_plugins(plugins)
    parsed = _parse_settings(settings)
    if precision:
        parsed["protocol"]["precision"] = precision

    from .benchmark.environment import find_device, hardware_class
    from .benchmark.plan import Request, pending, plan
    from .results import Store

    found = find_device(device)
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
            hardware_class=hardware_class(found) if found.type == "cuda" else None,
            partial=dry_run or available,
        )
    )
    store = Store(results)
    if dry_run:
        work = pending(planned.specs, store, existing)
        for spec in work.todo:
            click.echo(f"{spec.id}  {_label(spec)}")
        for reason in planned.absent.values():
            click.echo(f"missing: {reason}")
        click.echo(f"{len(work.todo)} to run, {sum(work.done.values())} finished, in {results}")
        _say_estimate(planned, throughput)
        return
    from .benchmark.launch.outcome import Options

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    options = Options(
        results=results,
        device=str(found),
        jobs=jobs or (cores if found.type == "cpu" else 1),
        timeout_s=timeout,
        save_adapters=save_adapters,
        plugins=tuple(str(Path(file).resolve()) for file in plugins),
        checkpoints=planned.checkpoints,
        cache=cache,
    )
    with store.lock():
        store.remove_temporary_files()
        work = pending(planned.specs, store, existing)  # under the lock: another command may just have ended
        for path in work.damaged:
            click.echo(f"{path} is damaged: set aside as {store.set_aside(path)}, run again", err=True)
        todo, absent = _prepare(work.todo, planned.absent, available)
        counts = _carry_out(todo, options)
    _summarize(counts, work.done, results)
    if absent:
        raise SystemExit(1)


def _say_estimate(planned: Plan, throughput: float | None) -> None:
    from .benchmark.estimate import estimate

    found = estimate(planned)
    if not found.runs:
        return
    hours = f": {found.hours(throughput):,.1f} hours at {throughput:g} images a second" if throughput else ""
    others = f" ({found.unknown:,} other runs are not counted)" if found.unknown else ""
    click.echo(
        f"at most {found.trained / 1e6:,.1f} million training and {found.evaluated / 1e6:,.1f} million test images in "
        f"all {found.runs:,} runs{hours}{others}"
    )


def _prepare(todo: list[Spec], absent: dict[str, str], available: bool) -> tuple[list[Spec], dict[str, str]]:
    """Decode what the runs need, once, before they start.

    Returns:
        What can be run, and what is not there, with the reason, each said on stderr.

    Raises:
        PeftmarkError: where data cannot be read, unless what is `available` is to be run.
    """
    from .results import RunSpec
    from .tasks import draw_of, make_task

    absent = dict(absent)
    runs = [spec for spec in todo if isinstance(spec, RunSpec)]
    for name, draw in dict.fromkeys((run.task.name, draw_of(run.task.name, run.seed)) for run in runs):
        try:
            for warning in make_task(name, draw).prepare(_Decoding(name)):
                click.echo(f"warning: task {name}: {warning}", err=True)
        except PeftmarkError as error:
            if not available:
                raise
            absent[f"task {name}"] = str(error)
    for reason in absent.values():
        click.echo(f"left out: {reason}", err=True)
    return [spec for spec in todo if not (isinstance(spec, RunSpec) and f"task {spec.task.name}" in absent)], absent


class _Decoding:
    """Progress of a task's data: a line on a terminal that counts; elsewhere one for every list that is done."""

    def __init__(self, task: str) -> None:
        self.task = task

    def __call__(self, what: str, done: int, total: int) -> None:
        line = f"{self.task}: {what}: {done:,} of {total:,} images decoded"
        if sys.stdout.isatty():
            click.echo(f"\r{line}", nl=done == total)
        elif done == total:
            click.echo(line)


@main.command("profile")
@click.option("--method", required=True, metavar="M")
@click.option("--backbone", required=True, metavar="B", help="timm/…, open_clip/…, a bare name. Weights are drawn.")
@click.option("--batch-size", type=click.IntRange(min=1), default=64, show_default=True, metavar="N")
@click.option("--classes", type=click.IntRange(min=1), default=100, show_default=True, metavar="N", help="Of the head.")
@click.option("--precision", type=click.Choice(["float32", "bfloat16"]), default="float32", show_default=True)
@click.option(
    "--frozen-dtype",
    type=click.Choice(["float32", "bfloat16", "int8", "nf4"]),
    default="float32",
    show_default=True,
    help="What frozen matrices are held in.",
)
@click.option(
    "--gradient-checkpointing", is_flag=True, help="Compute a block's activations again in the backward pass."
)
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="method.rank=8, …")
@click.option("--speed", is_flag=True, help="Time steps, in rounds with full fine-tuning and the bare backbone.")
@click.option("--device", metavar="D", help="As of `run`. On a GPU memory is measured, too.")
@click.option("--results", type=click.Path(path_type=Path), metavar="DIR", help="Also write the record there.")
@click.option("--json", "as_json", is_flag=True, help="Print the cost record.")
@import_option
def profile_command(
    method: str,
    backbone: str,
    batch_size: int,
    classes: int,
    precision: str,
    frozen_dtype: str,
    gradient_checkpointing: bool,
    settings: tuple[str, ...],
    speed: bool,
    device: str | None,
    results: Path | None,
    as_json: bool,
    plugins: tuple[str, ...],
) -> None:
    """What a method costs on a backbone: parameters, storage, memory, operations, and with --speed time.

    Memory is estimated without computing anything, so it needs neither a GPU nor the memory.
    """
    load_plugins(plugins)
    parsed = _parse_settings(settings)
    if parsed["protocol"]:
        raise PeftmarkError("a profile has no protocol: --set takes method.NAME=VALUE here")

    from .benchmark.environment import find_device, hardware_class
    from .benchmark.launch.worker import prepare_process
    from .benchmark.measure.profile import profile
    from .benchmark.plan import cost_specs
    from .benchmark.suite import ProfileBlock
    from .results import Store, encode_record

    found = find_device(device)
    prepare_process(found)
    measured = speed or found.type == "cuda"
    variant = {
        "precision": precision,
        "frozen_dtype": frozen_dtype,
        "gradient_checkpointing": gradient_checkpointing,
    }
    block = ProfileBlock(
        backbones=[backbone], methods=[method], batch_size=batch_size, num_classes=classes, variants=[variant]
    )
    hardware = hardware_class(found) if measured else None
    (spec,) = cost_specs(backbone, [(method, parsed["method"])], block, {}, hardware)
    record = profile(spec, found if measured else None, speed)
    if results is not None:
        store = Store(results)
        with store.lock():
            store.write_cost(record)
    click.echo(encode_record(record).decode() if as_json else _describe_cost(record), nl=not as_json)
    if record.status not in ("ok", "unsupported"):
        raise SystemExit(1)


def _describe_cost(record: CostRecord) -> str:
    """A table for people."""
    lines = [f"{_label(record.spec)}  {record.status}"]
    if record.error:
        lines.append(f"{record.error.phase}: {record.error.message}")
    if record.params and record.storage:
        own, added = record.params.trainable_without_head, record.params.added_at_inference
        lines.append(f"parameters  {own:,} trainable without the head, {added:,} added at inference")
        lines.append(f"storage     {record.storage.adapter_bytes:,} bytes with the head")
    if record.memory:
        lines.append(f"memory      {_memory(record.memory.estimated)} (estimated)")
        if record.memory.measured:
            lines.append(f"            {_memory(record.memory.measured)} (measured, {record.spec.hardware_class})")
        parts = record.memory.estimated.breakdown_bytes
        if parts:
            by_part = ", ".join(f"{name} {getattr(parts, name) / 2**20:,.0f}" for name in parts.__struct_fields__)
            lines.append(f"            of training, MiB: {by_part}")
    if record.compute:
        forward, merged = record.compute.forward_flops_per_image, record.compute.merged_forward_flops_per_image
        after = f", {merged / 1e9:,.2f} merged" if merged is not None else ""
        train = record.compute.train_step_flops / record.spec.batch_size
        lines.append(f"GFLOP       {forward / 1e9:,.2f} an image forward{after}; {train / 1e9:,.2f} a training step")
    if record.speed:
        speed = record.speed
        lines.append(
            f"training    {speed.train_step_ms.median:,.1f} ms a step, {speed.train_images_per_s:,.1f} images/s, "
            f"{speed.train_step_relative_to_full:.3f} of full fine-tuning's step"
        )
        lines.append(
            f"inference   {speed.inference.images_per_s:,.1f} images/s, {speed.inference.batch1_ms.median:,.1f} ms for "
            f"one, {speed.inference_relative_to_bare:.3f} of the bare backbone's time"
        )
        if speed.merged:
            lines.append(
                f"            merged {speed.merged.images_per_s:,.1f} images/s, "
                f"{speed.merged.batch1_ms.median:,.1f} ms for one"
            )
    return "\n".join(lines)


def _memory(memory: Memory) -> str:
    peaks = (memory.train_peak_allocated_bytes, memory.eval_peak_allocated_bytes)
    training, inference = (f"{peak / 2**20:,.0f} MiB" for peak in peaks)
    return f"{training} training, {inference} inference"


def _parse_settings(settings: Iterable[str]) -> dict[str, dict[str, Any]]:
    """``method.rank=8`` -> {"method": {"rank": 8}}; a value is read as TOML where it is TOML, else as text."""
    parsed: dict[str, dict[str, Any]] = {"method": {}, "protocol": {}}
    for setting in settings:
        key, equals, text = setting.partition("=")
        scope, dot, name = key.strip().partition(".")
        if not equals or not dot or scope not in parsed or not name:
            raise PeftmarkError(f"--set {setting}: write method.NAME=VALUE or protocol.NAME=VALUE")
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text
        parsed[scope][name] = value
    return parsed


def _carry_out(todo: list[Spec], options: Options) -> Counter[str]:
    """Launch the runs, print a line for each that ends, and keep a progress bar below on a terminal."""
    counts: Counter[str] = Counter()
    if not todo:
        return counts
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from .benchmark.launch.local import launch

    console = Console(highlight=False, soft_wrap=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: stop the workers, keep the records
    outcomes = launch(todo, options)
    try:
        with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
            bar = progress.add_task(f"{min(options.jobs, len(todo))} workers", total=len(todo))
            for outcome in outcomes:
                counts[outcome.status] += 1
                number = f"[{sum(counts.values())}/{len(todo)}]"
                console.print(f"{number} {_line(outcome)}", markup=False)
                progress.advance(bar)
    except KeyboardInterrupt:
        outcomes.close()
        click.echo(
            f"interrupted: {sum(counts.values())} records are kept in {options.results}; "
            f"the same command goes on with the rest",
            err=True,
        )
        raise SystemExit(INTERRUPTED) from None
    return counts


def _label(spec: Spec) -> str:
    from .results import RunSpec

    changed = "".join(f" {key}={value}" for key, value in _not_default(spec).items())
    if isinstance(spec, RunSpec):
        return f"{spec.method.name}{changed}  {spec.backbone.name}  {spec.task.name}  seed {spec.seed}"
    return f"{spec.method.name}{changed}  {spec.backbone}  {_setting(spec)}"


def _setting(spec: CostSpec) -> str:
    words = [f"batch {spec.batch_size}", spec.precision]
    words += [f"frozen in {spec.frozen_dtype}"] if spec.frozen_dtype != "float32" else []
    words += ["gradient checkpointing"] if spec.gradient_checkpointing else []
    return ", ".join(words)


def _not_default(spec: Spec) -> dict[str, Any]:
    from .methods import make_method

    default = make_method(spec.method.name).config()
    return {key: value for key, value in spec.method.config.items() if default.get(key) != value}


def _line(outcome: Outcome) -> str:
    reason = f"  ({outcome.message})" if outcome.message else ""
    return f"{_label(outcome.spec)}  {outcome.figure or outcome.status}  {outcome.seconds:.1f} s{reason}"


def _summarize(counts: Counter[str], done: Counter[str], results: Path) -> None:
    ran = ", ".join(f"{number} {status}" for status, number in sorted(counts.items())) or "nothing to run"
    before = f"; {sum(done.values())} were finished before" if done else ""
    click.echo(f"{ran}{before}; records in {results}")
    if any(status not in ("ok", "unsupported") for status in counts):
        raise SystemExit(1)


@main.command()
@click.option("--results", type=click.Path(path_type=Path), default=Path("runs"), show_default=True, metavar="DIR")
@click.option("--out", type=click.Path(path_type=Path), default=Path("board"), show_default=True, metavar="DIR")
def board(results: Path, out: Path) -> None:
    """Build the leaderboard from a folder of records and print its path."""
    from .leaderboard import build_board

    click.echo(build_board(results, out).resolve())

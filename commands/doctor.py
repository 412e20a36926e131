"""``peftmark doctor``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from ..registry import load_plugins
from .settings import import_option

if TYPE_CHECKING:
    from ..benchmark.doctor import Report, TaskState


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="All of it, every task's problems included.")
@import_option
def doctor_command(as_json: bool, plugins: tuple[str, ...]) -> None:
    """What is installed, which data sets and weights are here, and what to do about the rest. Downloads nothing."""
    load_plugins(plugins)
    import msgspec

    from ..benchmark.doctor import examine

    report = examine()
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(report), indent=1).decode())
        return
    for line in report_lines(report):
        click.echo(line)


def report_lines(report: Report) -> Iterator[str]:
    """A report for people: what is fine in a word, what is not with what to do."""
    machine = report.machine
    yield "Packages"
    versions = [f"{name} {found}" if found else f"{name} not installed" for name, found in report.packages.items()]
    yield f"  python {machine.python}, {', '.join(versions)}"
    for extra in report.extras:
        here = ", ".join(f"{name} {found}" for name, found in extra.installed.items())
        if extra.command is None:
            yield f"  extra {extra.name}: {here}"
        else:
            yield f"  extra {extra.name}: without {', '.join(extra.missing)}: {extra.command}"
    yield "Device"
    memory = f", {machine.memory_bytes / 2**30:.0f} GiB" if machine.memory_bytes else ""
    yield f"  {machine.device} ({machine.hardware_class}{memory}), {machine.cores} cores, {machine.threads} threads"
    yield "Data"
    yield f"  {report.data_problem or f'PEFTMARK_DATA is {report.data_folder}'}"
    groups: dict[str, list[TaskState]] = {}
    for task in report.tasks:
        groups.setdefault(task.name.partition("/")[0], []).append(task)
    for group, tasks in groups.items():
        ready = sum(not task.problems for task in tasks)
        yield f"  {group}: {ready} of {len(tasks)} tasks ready"
        said = Counter(problem for task in tasks for problem in task.problems)
        said.pop(report.data_problem or "", None)  # stands above
        for problem, times in said.items():  # what ails several tasks alike is said once
            names = [task.name for task in tasks if problem in task.problems]
            yield f"    {f'{times} tasks' if times > 3 else ', '.join(names)}: {problem}"
    yield "Weights"
    yield f"  {report.weights_folder} holds {', '.join(report.weights_files) or 'none'}"
    for weights in report.weights:
        used = f" (suite {', '.join(weights.suites)})"
        yield f"  {weights.backbone}{used}: {weights.file or f'not here: {weights.remedy}'}"

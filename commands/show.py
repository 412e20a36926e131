"""``peftmark show``."""

from __future__ import annotations

import click

from ..registry import load_plugins
from .catalogues import KINDS
from .settings import import_option


@click.command("show")
@click.argument("kind", type=click.Choice([kind.removesuffix("s") for kind in KINDS]))
@click.argument("name")
@import_option
def show_command(kind: str, name: str, plugins: tuple[str, ...]) -> None:
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
        from ..methods import make_method
        from ..methods.ranges import hyperparameters, range_of
        from ..methods.search_space import search_space

        method = make_method(name)
        click.echo(f"version: {method.version}")
        hints = hyperparameters(type(method))
        for key, value in method.config().items():
            allowed = range_of(hints[key]) if key in hints else ""
            click.echo(f"--set method.{key}={value}{f'  # {allowed}' if allowed else ''}")
        searched = [f"{key} {dimension}" for key, dimension in search_space(name, method).items()]
        click.echo(f"--trials K searches {', '.join(searched)}")
        from ..benchmark.plan.preset import load_presets

        preset = load_presets().get(name)
        if preset is not None:
            tasks = ", ".join(pattern for recipe in preset.recipes for pattern in recipe.tasks)
            click.echo(f"--preset faithful, on {tasks}: {preset.summary()}")

"""``peftmark list``."""

from __future__ import annotations

import json
from typing import Any

import click

from ..errors import PeftmarkError
from ..registry import load_plugins
from .catalogues import KINDS
from .settings import import_option


@click.command("list")
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
    rows = [registry.entry(name).as_row() | {"name": name} for name in names + members]
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

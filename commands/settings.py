"""Options that several commands have."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from typing import Any

import click

from ..errors import PeftmarkError

import_option = click.option(
    "--import",
    "plugins",
    multiple=True,
    metavar="FILE",
    help="A Python file that registers methods, backbones or tasks.",
)


def parse_settings(settings: Iterable[str]) -> dict[str, dict[str, Any]]:
    """``method.rank=8`` -> {"method": {"rank": 8}}; a value is read as TOML where it is TOML, else as text."""
    parsed: dict[str, dict[str, Any]] = {"method": {}, "protocol": {}, "launcher": {}}
    for setting in settings:
        if any("\ud800" <= character <= "\udfff" for character in setting):
            raise PeftmarkError(f"--set {setting!r}: it is not UTF-8, which a record needs")
        key, equals, text = setting.partition("=")
        scope, dot, name = key.strip().partition(".")
        if not equals or not dot or scope not in parsed or not name:
            raise PeftmarkError(f"--set {setting}: write method.NAME=VALUE, protocol.NAME=VALUE or launcher.NAME=VALUE")
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except (ValueError, RecursionError):  # not TOML; a number of 5,000 digits; nested too deep
            value = text
        parsed[scope][name] = value
    return parsed

"""The command line: its group, and how errors are shown. Heavy modules are imported by the commands that need them."""

from __future__ import annotations

import io
import os
import sys
from typing import Any

import click

from .commands.board import board_command
from .commands.doctor import doctor_command
from .commands.export import export_command
from .commands.figures import figures_command
from .commands.list import list_command
from .commands.profile import profile_command
from .commands.progress import INTERRUPTED
from .commands.run import run_command
from .commands.show import show_command
from .commands.validate import validate_command
from .errors import PeftmarkError


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
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr has it: a file's name may be no text


for command in (
    list_command,
    show_command,
    run_command,
    board_command,
    export_command,
    figures_command,
    profile_command,
    validate_command,
    doctor_command,
):
    main.add_command(command)

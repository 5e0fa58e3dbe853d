"""Parses command lines of manifests and units as kgate would, without running them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from kgate_cli.main import group

if TYPE_CHECKING:
    from collections.abc import Sequence


def check_command(arguments: Sequence[str]) -> None:
    """Parse `kgate ARGUMENTS…`; raises click.UsageError, or AssertionError for no such command."""
    command: click.Command | None = group
    context: click.Context | None = None
    rest = list(arguments)
    while isinstance(command, click.Group):
        context = click.Context(command, parent=context, info_name=command.name)
        command = command.get_command(context, rest[0])
        assert command is not None, f"kgate has no command {rest[0]!r}: {arguments}"
        rest = rest[1:]
    assert command is not None
    with command.make_context(arguments[0], rest, parent=context):
        pass

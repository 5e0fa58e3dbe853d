"""`kgate cache`: the pod's own command, the same with and without the full command line."""

from __future__ import annotations

import click


@click.command(
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def command(arguments: tuple[str, ...]) -> int:
    """Check the caches of this pod, or clean them.

    Takes --json like every command; `kgate cache --help` lists the rest.

    \b
    Examples:
      kgate cache verify
      kgate cache purge
    """
    from kgate_client.entry import run

    return run(["cache", *arguments])

"""`kgate warm`: the pod's own command, the same with and without the full command line."""

from __future__ import annotations

import click


@click.command(
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def command(arguments: tuple[str, ...]) -> int:
    """Fill a client cache from the mirror, verified, so that it works with the network off.

    Takes --json like every command; `kgate warm --help` lists the rest.

    \b
    Example:
      kgate warm kernels-community/activation@v1
    """
    from kgate_client.entry import run

    return run(["warm", *arguments])

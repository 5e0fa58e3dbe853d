"""`kgate sign`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from kgate_cli import exits
from kgate_cli.options import config_option, json_option, now, open_mirror
from kgate_cli.syncreport import render, to_json

if TYPE_CHECKING:
    from pathlib import Path

    from kgate_cli.output import Output


@click.command()
@config_option
@json_option
def command(config_path: Path, output: Output) -> int:
    """Sign and publish what `kgate sync --no-sign` brought in, without reaching an upstream.

    For sites that keep the keys away from whoever parses foreign files: one user fetches and scans,
    another signs. The policy is asked again about the stored evidence. Exit code 1 means that
    something was denied, or that a pin was not brought in yet.

    \b
    Example:
      kgate sign
    """
    from kgate_mirror_server.events import sync_events
    from kgate_mirror_server.ingest.resolve import read_lock, require_lock
    from kgate_mirror_server.ingest.signing import sign

    with open_mirror(config_path, acts=True) as mirror:
        lock = require_lock(read_lock(mirror.config.folder), mirror.config)
        with output.progress("sign") as (_count, tell):
            result = sign(mirror, lock, now(), tell=tell)
        if complaint := mirror.announce(sync_events(result, now()), now()):
            output.note(complaint)
        errors = [failure.error for failure in result.failed]
        code = exits.worst(errors, refused=bool(result.denied))
        output.result("sign", to_json(mirror, result, now()), ok=code == exits.YES)
        render(output, mirror, result, now())
    return code

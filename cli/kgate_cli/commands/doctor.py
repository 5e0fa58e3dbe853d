"""`kgate doctor`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from kgate_cli import exits
from kgate_cli.options import json_option

if TYPE_CHECKING:
    from kgate_cli.output import Output


@click.command()
@json_option
def command(output: Output) -> int:
    """Check this host or pod: endpoint, trust, cache, versions, hook, and what would load.

    \b
    Example:
      HF_ENDPOINT=http://127.0.0.1:8800 KGATE_TRUST_ROOT=trust/root.json kgate doctor
    """
    from kgate_client.doctor import examine

    report = examine(os.environ)
    output.result("doctor", report.to_json(), ok=report.healthy)
    for line in report.lines():
        output.plain(line)
    return exits.YES if report.healthy else exits.NO

"""`kgate doctor`."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import click

from kgate_cli import exits
from kgate_cli.options import json_option

if TYPE_CHECKING:
    from kgate_cli.output import Output


@click.command()
@click.option(
    "--runtime-sbom", type=int, metavar="PID", help="Instead: what that process has mapped."
)
@json_option
def command(output: Output, runtime_sbom: int | None) -> int:
    """Check this host or pod: endpoint, trust, cache, versions, hook, and what would load.

    \b
    Example:
      HF_ENDPOINT=http://127.0.0.1:8800 KGATE_TRUST_ROOT=trust/root.json kgate doctor
      kgate doctor --runtime-sbom 4711 > worker.cdx.json
    """
    if runtime_sbom is not None:
        return _print_sbom(runtime_sbom)
    from kgate_client.doctor import examine

    report = examine(os.environ)
    output.result("doctor", report.to_json(), ok=report.healthy)
    for line in report.lines():
        output.plain(line)
    return exits.YES if report.healthy else exits.NO


def _print_sbom(pid: int) -> int:
    """Print CycloneDX JSON about a process, with or without --json."""
    from kgate_client.inventory import sbom_of

    click.echo(json.dumps(sbom_of(os.environ, pid), indent=2, ensure_ascii=False))
    return exits.YES

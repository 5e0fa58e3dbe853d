"""`kgate revoke`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from kgate_cli.options import config_option, json_option, now, open_mirror

if TYPE_CHECKING:
    from pathlib import Path

    from kgate_cli.output import Output


@click.command()
@click.argument("reference", metavar="REF")
@click.option("--reason", required=True, help="Why; pods and reports repeat it.")
@config_option
@json_option
def command(reference: str, reason: str, config_path: Path, output: Output) -> int:
    """Pull a kernel back: nothing loads it from now on, wherever it is cached.

    REF is org/name, org/name@v1, org/name@<commit> or the digest of a manifest or of a file. Needs
    the root key. Running pods learn of it within their lane's windows; what is loaded stays in
    memory until a restart.

    \b
    Examples:
      kgate revoke kernels-community/activation@v1 --reason CVE-2026-31337
      kgate revoke sha256:6cdd… --reason "miscompiled for sm_90"
    """
    from kgate_mirror_server.events import revoked_events
    from kgate_mirror_server.trust.revocation import revoke

    with open_mirror(config_path, acts=True) as mirror:
        done = revoke(mirror, reference, reason, now())
        if complaint := mirror.announce(revoked_events(done, reason), now()):
            output.note(complaint)
    output.result(
        "revoke",
        {"reason": reason, "revoked": [{"digest": str(d.digest), "name": d.name} for d in done]},
    )
    for item in done:
        output.say(f"revoked  {item.name}  {item.digest.short}…")
    output.say(
        "Signed. No new load from now on, and the mirror serves it no more. What is loaded stays "
        "in memory: restart those workloads."
    )
    return 0

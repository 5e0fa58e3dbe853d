"""`kgate rebuild`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from kgate_cli import exits
from kgate_cli.commands.oci import open_registry, registry_options
from kgate_cli.options import config_option, json_option, now, open_mirror

if TYPE_CHECKING:
    from pathlib import Path

    from kgate_cli.output import Output


@click.command()
@click.option("--from", "source", required=True, metavar="oci://HOST[/NAMESPACE]")
@registry_options
@config_option
@json_option
def command(
    source: str,
    config_path: Path,
    output: Output,
    **access: Any,  # noqa: ANN401  # the options of `registry_options`
) -> int:
    """Fill an empty site again from the registry to which it pushed.

    Needs the site's own kgate.yaml, policy, trust folder and keys. Only what this site signed
    itself comes back; scanner and policy are asked again.

    \b
    Example:
      kgate rebuild --from oci://registry.bank.internal/kernels
    """
    from kgate_mirror_server.oci.rebuild import rebuild

    with open_mirror(config_path, acts=True) as mirror, output.progress("rebuild") as (count, tell):
        done = rebuild(mirror, open_registry(source, access), now(), progress=count, tell=tell)
    result = done.result
    refused = bool(result.denied) or bool(done.left_out)
    code = exits.worst([failure.error for failure in result.failures], refused=refused)
    output.result(
        "rebuild",
        {
            "approved": result.approved,
            "denied": result.denied,
            "fetched_bytes": result.fetched_bytes,
            "left_out": [{"what": left.what, "reason": left.reason} for left in done.left_out],
            "failures": [
                {"pin": str(item.pin), "message": item.error.message} for item in result.failures
            ],
        },
        ok=code == exits.YES,
    )
    for left in done.left_out:
        output.say(f"left out: {left.what}: {left.reason}")
    for failure in result.failures:
        output.say(f"{failure.pin}: {failure.error.message}")
    output.say(f"{result.approved} variants are published again, {result.denied} were denied.")
    return code

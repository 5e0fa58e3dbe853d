"""`kgate rebuild`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kgate_cli import exits
from kgate_cli.commands.oci import open_registry, registry_options
from kgate_cli.options import config_option, json_option, now, open_mirror

if TYPE_CHECKING:
    from kgate_cli.output import Output


@click.command()
@click.option("--from", "source", required=True, metavar="DIR|s3://BUCKET/PREFIX|oci://HOST[/NS]")
@registry_options
@config_option
@json_option
def command(
    source: str,
    config_path: Path,
    output: Output,
    **access: Any,  # noqa: ANN401  # the options of `registry_options`
) -> int:
    """Fill an empty catalog again: from the blob store, or from the registry to which it pushed.

    Needs the site's own kgate.yaml, policy, trust folder and keys. Only what this site signed
    itself comes back. From a registry, scanner and policy are asked again; from a store's folder,
    the signed publication log says what was published, and the same digests are served.

    \b
    Examples:
      kgate rebuild --from kgate-data
      kgate rebuild --from s3://kernels/site
      kgate rebuild --from oci://registry.bank.internal/kernels
    """
    if not source.startswith("oci://"):
        return _from_store(source, config_path, output)
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


def _from_store(source: str, config_path: Path, output: Output) -> int:
    from kgate_mirror_server.store.opening import open_other
    from kgate_mirror_server.upkeep.refill import refill

    if "://" not in source and not (Path(source) / "blobs").is_dir():
        raise click.UsageError(f"{source} is no store: it has no folder blobs/")
    with open_mirror(config_path, acts=True) as mirror:
        done = refill(mirror, open_other(mirror.config, source), now(), tell=output.note)
    output.result(
        "rebuild",
        {
            "publications": done.publications,
            "variants": done.variants,
            "left_out": [{"what": what, "reason": reason} for what, reason in done.left_out],
        },
        ok=not done.left_out,
    )
    for what, reason in done.left_out:
        output.plain(f"left out: {what}: {reason}")
    output.say(f"{done.publications} publications ({done.variants} variants) are served again.")
    return exits.NO if done.left_out else exits.YES

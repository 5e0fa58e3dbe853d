"""`kgate policy except`: grant an exception, with a key that is not the pipeline's."""

from __future__ import annotations

import getpass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from kgate_cli.options import config_option, json_option, now, open_mirror

if TYPE_CHECKING:
    from pathlib import Path

    from kgate_cli.output import Output
    from kgate_core.evidence import Evidence
    from kgate_mirror_server.app import Mirror
    from kgate_policy import KernelException


@click.command(name="except")
@click.argument("reference", metavar="REF")
@click.option("--rule", "rules", multiple=True, required=True, help="A rule that denies.")
@click.option(
    "--until",
    type=click.DateTime(["%Y-%m-%d"]),
    required=True,
    help="The day from which it counts no more, UTC.",
)
@click.option("--reason", required=True, help="Why the rule may be passed over.")
@click.option("--requested-by", required=True, metavar="NAME", help="Who asked for it.")
@click.option("--approved-by", metavar="NAME", help="Who grants it; your login name if left out.")
@click.option("--key", metavar="URI", help="The key that grants it; keys.root if left out.")
@config_option
@json_option
def command(  # noqa: PLR0913, PLR0917  # one argument for each option
    reference: str,
    rules: tuple[str, ...],
    until: datetime,
    reason: str,
    requested_by: str,
    approved_by: str | None,
    key: str | None,
    config_path: Path,
    output: Output,
) -> int:
    """Let certain bytes through although a rule denies them, until a day, signed.

    REF is org/name, org/name@v1 or a manifest digest, of a kernel that was synced and denied. Needs
    the root key, or another human-held key of the trust metadata: never the admit key. Commit the
    two files that it writes, then run `kgate sync`.

    \b
    Example:
      kgate policy except acme/relu@v1 --rule no-dirty-build --until 2027-01-31 \\
        --requested-by alice --reason "Reviewed; a clean build is announced for January."
    """
    from kgate_mirror_server.trust.exceptions import grant

    terms = (until.replace(tzinfo=UTC), reason, requested_by, approved_by or getpass.getuser())
    with open_mirror(config_path, acts=True) as mirror:
        wanted = [_exception(item, rules, *terms) for item in _denied(mirror, reference, rules)]
        signer = mirror.key(key or mirror.config.keys.root)
        paths = [grant(mirror, item, signer, now()) for item in wanted]
    output.result(
        "policy-except",
        {"exceptions": [item.to_json() for item in wanted], "files": [str(p) for p in paths]},
    )
    for item, path in zip(wanted, paths, strict=True):
        output.plain(f"{path}: {item.kernel} {item.digest.short}… until {until:%Y-%m-%d}")
    output.say("Signed. Commit the files, then run `kgate sync`.")
    return 0


def _denied(mirror: Mirror, reference: str, rules: tuple[str, ...]) -> list[Evidence]:
    """Return the variants that one of the rules denies; raises Conflict if there is none."""
    from kgate_core.errors import Conflict
    from kgate_mirror_server.ingest.review import inventory_evidence

    found = {}
    for item in inventory_evidence(mirror, reference):
        denials = {result.rule for result in mirror.decide(item, now()).denials}
        if any(rule in denials or rule in {d.partition("/")[0] for d in denials} for rule in rules):
            found[item.manifest.digest] = item
    if not found:
        raise Conflict(
            f"{reference} is not denied by {', '.join(rules)}",
            hint=f"`kgate policy explain {reference}` says what denies it",
        )
    return list(found.values())


def _exception(  # one argument for each term
    evidence: Evidence,
    rules: tuple[str, ...],
    until: datetime,
    reason: str,
    requested_by: str,
    approved_by: str,
) -> KernelException:
    from kgate_policy import KernelException

    digest = evidence.manifest.digest
    return KernelException(
        name=f"{evidence.kernel.repo.name}-{digest.hex[:12]}-{until:%Y-%m-%d}",
        kernel=evidence.kernel.repo,
        digest=digest,
        rules=rules,
        reason=reason,
        granted=now(),
        until=until,
        requested_by=requested_by,
        approved_by=approved_by,
    )

"""`kgate break-glass ask|approve|list`."""

from __future__ import annotations

import sys
from datetime import timedelta
from typing import TYPE_CHECKING

import click

from kgate_cli.options import config_option, json_option, now, open_mirror
from kgate_core.clock import write_time

if TYPE_CHECKING:
    from pathlib import Path

    from kgate_cli.output import Output
    from kgate_mirror_server.app import Mirror
    from kgate_mirror_server.trust.breakglass import Request

_MAX_HOURS = 72


@click.group()
def command() -> None:
    """Let one kernel in for hours although the decision is no: one asks, two others sign."""


@command.command()
@click.argument("reference", metavar="REF")
@click.option(
    "--hours",
    type=click.IntRange(1, _MAX_HOURS),
    required=True,
    help="How long it lasts, from now on.",
)
@click.option("--reason", required=True, help="Why it cannot wait; pods and reports repeat it.")
@click.option("--requested-by", required=True, metavar="NAME", help="Who asks.")
@click.option("--key", metavar="URI", help="The key that asks; keys.admit if left out.")
@config_option
@json_option
def ask(  # one argument for each option
    reference: str,
    hours: int,
    reason: str,
    requested_by: str,
    key: str | None,
    config_path: Path,
    output: Output,
) -> int:
    """Ask to let in what is denied or waits for an approval.

    Writes and signs one file for each variant into the folder break_glass of kgate.yaml; it lets
    nothing in by itself. REF is org/name, org/name@v1, org/name@<commit> or a manifest's digest.
    What is revoked cannot be asked for.

    \b
    Example:
      kgate break-glass ask acme/relu@v1 --hours 8 --requested-by carol \\
        --reason "Inference is down without it; a fix is in review."
    """
    from kgate_mirror_server.trust.breakglass import Terms
    from kgate_mirror_server.trust.breakglass import ask as ask_for

    terms = Terms(reason, requested_by, timedelta(hours=hours))
    with open_mirror(config_path, acts=True) as mirror:
        made = ask_for(mirror, reference, terms, mirror.key(key or mirror.config.keys.admit), now())
    output.result("break-glass", {"requests": [_to_json(item, counts=False) for item in made]})
    for item in made:
        output.plain(f"{item.path}: {item.about} until {write_time(item.glass.until)}")
    output.say("Asked. Two holders of the role approve sign it now:")
    output.say(f"  kgate break-glass approve {reference}")
    return 0


@command.command()
@click.argument("reference", metavar="REF")
@click.option("--key", metavar="URI", help="The approver's key; keys.approve if left out.")
@click.option("--yes", is_flag=True, help="Do not ask: sign what is shown.")
@config_option
@json_option
def approve(
    reference: str,
    key: str | None,
    yes: bool,  # noqa: FBT001  # click passes flags by name
    config_path: Path,
    output: Output,
) -> int:
    """Sign what somebody asked for; the second approver's signature lets it in.

    The statement is compared with the stored evidence first. It counts in the mirror and in every
    pod of its lane until its end, and each of them reports it.

    \b
    Example:
      kgate break-glass approve acme/relu@v1 --key file:bob.pem
    """
    from kgate_mirror_server.trust import breakglass

    with open_mirror(config_path, acts=True) as mirror:
        found = breakglass.find_requests(mirror, reference, now())
        for item in found:
            _show(output, item)
        _confirm(len(found), yes=yes)
        signer = mirror.key(key or mirror.config.keys.approve)
        signed = [breakglass.approve(mirror, item, signer, now()) for item in found]
        counting = {item.name: breakglass.counts(mirror, item, now()) for item in signed}
        entered = not any(counting.values()) or _enter(mirror)
    documents = [_to_json(item, counts=counting[item.name]) for item in signed]
    output.result("break-glass", {"requests": documents})
    for item in signed:
        if counting[item.name]:
            output.say(f"{item.about} is let in until {write_time(item.glass.until)}.")
        else:
            output.say(f"{item.about}: signed; one more approver is needed.")
    if not entered:
        output.note("The publication log gets its entry at the next `kgate sync` or `kgate sign`:")
        output.note("the key that signs it is not here.")
    return 0


def _enter(mirror: Mirror) -> bool:
    """Write what was let in into the publication log; returns whether the keys for it are here."""
    from kgate_core.errors import TrustError
    from kgate_mirror_server.ingest.sync import refresh_trust
    from kgate_mirror_server.trust.publicationlog import record

    try:
        if record(mirror, now()):
            refresh_trust(mirror, now())
    except TrustError:
        return False
    return True


@command.command("list")
@config_option
@json_option
def list_(config_path: Path, output: Output) -> int:
    """List what was asked for and has not ended, with what is let in right now.

    \b
    Example:
      kgate break-glass list
    """
    from kgate_mirror_server.trust import breakglass

    with open_mirror(config_path) as mirror:
        found = breakglass.requests(mirror, now())
        counting = {item.name: breakglass.counts(mirror, item, now()) for item in found}
    documents = [_to_json(item, counts=counting[item.name]) for item in found]
    output.result("break-glass", {"requests": documents})
    output.table(
        ("KERNEL", "UNTIL", "ASKED BY", "SIGNATURES", "STATE"),
        [
            (
                item.about,
                write_time(item.glass.until),
                item.glass.requested_by,
                str(len(item.bundles)),
                "let in" if counting[item.name] else "lets nothing in",
            )
            for item in found
        ],
    )
    return 0


def _show(output: Output, item: Request) -> None:
    glass = item.glass
    output.note(f"{item.about}")
    output.note(f"  asked by {glass.requested_by}: {glass.reason}")
    output.note(f"  overrules {', '.join(glass.overrules)}, until {write_time(glass.until)}")


def _confirm(count: int, *, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError("nobody is there to ask: a person approves, or a script says --yes")
    click.confirm(f"Let in {count} variants?", abort=True, err=True)


def _to_json(item: Request, *, counts: bool) -> dict[str, object]:
    glass = item.glass
    return {
        "name": item.name,
        "file": str(item.path),
        "repo": str(glass.kernel.repo),
        "revision": str(glass.kernel.revision),
        "variant": glass.kernel.variant,
        "lane": glass.lane,
        "manifest": str(glass.manifest),
        "overrules": list(glass.overrules),
        "reason": glass.reason,
        "requestedBy": glass.requested_by,
        "granted": write_time(glass.granted),
        "until": write_time(glass.until),
        "signers": list(item.hints),
        "letsIn": counts,
    }

"""`kgate trust sign|publish`: a change of trust that several holders of the root sign in turn."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kgate_cli.options import config_option, json_option, now, open_mirror

if TYPE_CHECKING:
    from kgate_cli.output import Output
    from kgate_signer.cosigning import Pending

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.argument("change", metavar="FILE", type=_FILE)
@click.option("--key", metavar="URI", required=True, help="Your key of the root.")
@click.option(
    "--root", type=_FILE, required=True, help="The site's root.json as you have pinned it."
)
@click.option("--yes", is_flag=True, help="Do not ask: sign what is shown.")
@json_option
def sign(
    change: Path,
    key: str,
    root: Path,
    yes: bool,  # noqa: FBT001  # click passes flags by name
    output: Output,
) -> int:
    """Sign a change of trust that another holder of the root began, after reading what it does.

    Needs no site and no network: FILE (from trust/pending/), your key, and the root.json that you
    have from the day the site was founded. The signature is added to FILE; take it back.

    \b
    Example:
      kgate trust sign root-1-6cdd1f0a.json --key file:bob.pem --root root.json
    """
    from kgate_cli.secrets import open_key
    from kgate_mirror_server.trust.files import replace_file
    from kgate_mirror_server.trust.pending import read_pending
    from kgate_signer.trustdifference import differences

    pending = read_pending(change)
    pending.check(root.read_bytes())
    sentences = differences(pending.base, pending.drafted)
    for sentence in sentences:
        output.note(sentence)
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError("nobody is there to ask: a person signs, or a script says --yes")
        click.confirm("Sign this change of trust?", abort=True, err=True)
    signed = pending.signed_by((open_key(key),))
    replace_file(change, signed.to_json())
    output.result("trust-sign", {"changes": sentences, "missing": _missing(signed)})
    for item in signed.missing():
        output.say(f"{item.document} has {item.signed} of {item.threshold} signatures.")
    if signed.missing():
        output.say(f"Signed. Take {change.name} to the next holder.")
    else:
        output.say(f"Signed, and enough. Where the site is: kgate trust publish {change.name}")
    return 0


@click.command()
@click.argument("change", metavar="FILE", type=_FILE)
@config_option
@json_option
def publish(change: Path, config_path: Path, output: Output) -> int:
    """Let a change of trust count that enough holders of the root have signed.

    Needs the timestamp key. Pods follow by themselves, from whichever root they pinned.

    \b
    Example:
      kgate trust publish trust/pending/root-1-6cdd1f0a.json
    """
    from kgate_mirror_server.trust import pending

    with open_mirror(config_path, acts=True) as mirror:
        sentences = pending.publish(mirror, change, now())
    output.result("trust-publish", {"changes": sentences})
    for sentence in sentences:
        output.say(sentence)
    output.say("Published.")
    return 0


def _missing(pending: Pending) -> list[dict[str, object]]:
    return [
        {
            "document": item.document,
            "signed": item.signed,
            "threshold": item.threshold,
            "holders": list(item.holders),
        }
        for item in pending.missing()
    ]

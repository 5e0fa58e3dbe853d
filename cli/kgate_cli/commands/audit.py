"""`kgate audit export|verify`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from kgate_cli.options import config_option, json_option, open_mirror

if TYPE_CHECKING:
    from pathlib import Path

    from kgate_cli.output import Output
    from kgate_mirror_server.app import Mirror
    from kgate_mirror_server.catalog.audit import AuditEntry, Head

_WHEN = click.DateTime(formats=("%Y-%m-%d", "%Y-%m-%dT%H:%M:%SZ"))


@click.group()
def command() -> None:
    """Print or check the audit log: who changed what, and when."""


@command.command()
@click.option("--since", type=_WHEN, help="Only entries from this time (UTC) on.")
@click.option(
    "--format",
    "form",
    type=click.Choice(("text", "jsonl")),
    default="text",
    show_default=True,
    help="Lines for people, or each entry as stored, one JSON object a line.",
)
@config_option
@json_option
def export(since: datetime | None, form: str, config_path: Path, output: Output) -> int:
    """Print the audit log after checking that it hangs together.

    The last line (stderr) is the head: keep it elsewhere, and `kgate audit verify --head` finds
    later whether anything up to it was changed.

    \b
    Examples:
      kgate audit export --since 2026-11-01
      kgate audit export --format jsonl > audit.jsonl
    """
    with open_mirror(config_path) as mirror:
        entries, head = _checked(mirror, ())
    if since is not None:
        entries = tuple(item for item in entries if item.at >= since.replace(tzinfo=UTC))
    output.result(
        "audit-export", {"entries": [_to_json(item) for item in entries], "head": _text(head)}
    )
    for item in entries:
        if form == "jsonl":
            output.plain(item.to_bytes().decode())
        else:
            output.plain(_line(item))
    output.note(f"head {_text(head)}")
    return 0


@command.command()
@click.option("--head", "heads", multiple=True, help="A head that was kept elsewhere (N:DIGEST).")
@config_option
@json_option
def verify(heads: tuple[str, ...], config_path: Path, output: Output) -> int:
    """Check every entry against the one before it, and against the heads that are known.

    Known are the head that the timestamp key signed beside the trust documents and those named by
    --head. Exit code 1 if an entry was edited, deleted, added or moved.

    \b
    Examples:
      kgate audit verify
      kgate audit verify --head 214:sha256:6cdd…
    """
    with open_mirror(config_path) as mirror:
        entries, head = _checked(mirror, tuple(_head(text) for text in heads))
    output.result("audit-verify", {"entries": len(entries), "head": _text(head)})
    output.say(f"{len(entries)} entries hang together, from the first to {_text(head)}")
    return 0


def _checked(mirror: Mirror, kept: tuple[Head, ...]) -> tuple[tuple[AuditEntry, ...], Head]:
    from kgate_mirror_server.catalog.audit import Head, check_chain
    from kgate_mirror_server.trust.audithead import read_head

    signed = read_head(mirror.config.path(mirror.config.trust))
    stored = mirror.audit.entries()
    entries = check_chain(stored, kept if signed is None else (signed, *kept))
    return entries, Head(len(stored), stored[-1][1]) if stored else Head()


def _head(text: str) -> Head:
    from kgate_mirror_server.catalog.audit import Head

    number, _, digest = text.partition(":")
    if not number.isdecimal() or not digest:
        raise click.UsageError("a head is written N:DIGEST, as `kgate audit export` prints it")
    return Head(int(number), digest)


def _text(head: Head) -> str:
    return f"{head.sequence}:{head.digest}"


def _line(item: AuditEntry) -> str:
    from kgate_core.clock import write_time

    who = item.who.get("ci") or item.who.get("sudo") or item.who.get("user", "?")
    what = " ".join(
        f"{name}={value}" for name, value in item.what.items() if isinstance(value, str | int)
    )
    return f"{item.sequence:6} {write_time(item.at)} {who} {item.action} {what}"


def _to_json(item: AuditEntry) -> dict[str, object]:
    from kgate_core.clock import write_time

    return {
        "sequence": item.sequence,
        "at": write_time(item.at),
        "action": item.action,
        "who": dict(item.who),
        "what": dict(item.what),
        "previous": item.previous,
    }

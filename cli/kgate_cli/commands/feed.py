"""`kgate feed import|show|sign`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kgate_cli.options import config_option, json_option, now, open_mirror
from kgate_core.clock import write_time

if TYPE_CHECKING:
    from datetime import datetime

    from kgate_cli.output import Output
    from kgate_mirror_server.feeds.taking import Taken
    from kgate_scanner.advisories.snapshot import Source

SHOWN = 5  # documents named that nothing was taken from


@click.group()
def command() -> None:
    """Take in advisories and VEX, show what is there, sign a feed of one's own."""


@command.command("import")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--name", default="", help="Name of a feed without signature; else the file's own.")
@click.option(
    "--accept-unsigned",
    "reason",
    default="",
    metavar="REASON",
    help="Why it counts although nobody signed it and kgate.yaml does not pin it; is recorded.",
)
@config_option
@json_option
def take(path: Path, name: str, reason: str, config_path: Path, output: Output) -> int:
    """Take in a feed: OSV, CSAF 2.0, CycloneDX VEX, OpenVEX, or kgate's own signed one.

    PATH is a folder, a zip archive or a JSON file; it must be a whole feed. A feed that is older
    than the one that was there is refused. `kgate sync` then decides anew about what it concerns.

    \b
    Examples:
      kgate feed import kernel-advisories.json
      kgate feed import ./product-security --name nvidia
      kgate feed import vex/ --name ours --accept-unsigned "written by our own team"
    """
    from kgate_mirror_server.feeds.own import is_own
    from kgate_mirror_server.feeds.taking import take_feed
    from kgate_scanner.advisories.collecting import collect

    collected = collect(path)
    signed = len(collected.documents) == 1 and is_own(collected.documents[0][1])
    called = name or ("" if signed else path.absolute().stem.lower())
    with open_mirror(config_path, acts=True) as mirror:
        taken = take_feed(mirror, collected, now(), name=called, reason=reason)
    output.result("feed-import", _taken_json(taken))
    what = "took in" if taken.is_new else "has already"
    output.plain(
        f"{what} feed {taken.source.name}: {taken.advisories} advisories,"
        f" {taken.statements} VEX statements, of {write_time(taken.source.date)}"
    )
    output.plain(f"  {_vouched(taken.source)}")
    output.plain(f"  feed      {taken.source.digest}")
    output.plain(f"  snapshot  {taken.digest}")
    if taken.skipped:
        output.note(f"{len(taken.skipped)} documents were passed over, for example:")
        for document, why in taken.skipped[:SHOWN]:
            output.note(f"  {document}: {why}")
    if taken.is_new:
        output.note("`kgate sync` decides anew about the kernels that it concerns.")
    return 0


@command.command()
@config_option
@json_option
def show(config_path: Path, output: Output) -> int:
    """Show which feeds are there, how old they are and who vouches for them.

    \b
    Example:
      kgate feed show
    """
    from kgate_core.digest import Digest
    from kgate_mirror_server.feeds.storage import read_snapshot

    moment = now()
    with open_mirror(config_path) as mirror:
        snapshot = read_snapshot(mirror.config.path(mirror.config.feeds.snapshot))
        authors = list(mirror.config.feeds.vex_authors)
    digest = Digest.of(snapshot.to_bytes()) if snapshot.sources else None
    date = snapshot.feed().date if snapshot.sources else None
    output.result(
        "feed-show",
        {
            "snapshot": None if digest is None else str(digest),
            "date": None if date is None else write_time(date),
            "vexAuthors": authors,
            "sources": [_source_json(item) for item in snapshot.sources],
        },
    )
    if digest is None or date is None:
        output.say("No feed was taken in yet: `kgate feed import PATH`.")
        return 0
    output.table(
        ("FEED", "DATE", "AGE", "ADVISORIES", "VEX", "VOUCHED FOR"),
        [
            (
                item.name,
                write_time(item.date),
                _age(item.date, moment),
                *map(str, map(len, item.contents())),
                _vouched(item),
            )
            for item in snapshot.sources
        ],
    )
    output.plain(f"snapshot {digest}, as old as its oldest advisories: {_age(date, moment)}")
    output.plain(f"VEX counts from {', '.join(authors) or 'nobody (feeds.vex_authors is empty)'}")
    return 0


@command.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.argument("target", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--name", required=True, help="The feed's name; receivers keep feeds by name.")
@click.option(
    "--sequence",
    type=click.IntRange(1),
    help="The feed's number; one more than TARGET's unless given.",
)
@config_option
@json_option
def sign(
    path: Path, target: Path, name: str, sequence: int | None, config_path: Path, output: Output
) -> int:
    """Sign OSV records and VEX documents as one feed, with the key of the role `feed`.

    PATH is a folder, a zip archive or a JSON file, TARGET the feed to write. Its number grows by
    one with each signing. Receivers register the public key once: `kgate keys add feed KEY.pem`.

    \b
    Examples:
      kgate keys generate feed
      kgate feed sign ./advisories kernel-advisories.json --name kernel-advisories
    """
    from kgate_mirror_server.feeds.publishing import publish_own
    from kgate_scanner.advisories.collecting import collect

    collected = collect(path)
    with open_mirror(config_path, acts=True) as mirror:
        made = publish_own(mirror, collected, target, name, sequence, now())
    output.result(
        "feed-sign",
        {
            "name": made.name,
            "sequence": made.sequence,
            "issued": write_time(made.issued),
            "digest": str(made.digest),
            "key": made.hint,
            "path": str(target),
        },
    )
    output.plain(f"signed feed {made.name} number {made.sequence}: {target}")
    output.plain(f"  digest  {made.digest}")
    output.plain(f"  key     {made.hint}")
    return 0


def _vouched(source: Source) -> str:
    if source.means == "signed":
        return f"signed by {source.detail}, number {source.sequence}"
    if source.means == "pinned":
        return "pinned in kgate.yaml"
    return f"accepted unsigned: {source.detail}"


def _age(date: datetime, moment: datetime) -> str:
    days = (moment - date).days
    return "today" if days <= 0 else f"{days} day{'' if days == 1 else 's'}"


def _source_json(source: Source) -> dict[str, Any]:
    advisories, statements = source.contents()
    return {
        "name": source.name,
        "date": write_time(source.date),
        "digest": str(source.digest),
        "means": str(source.means),
        "detail": source.detail,
        "sequence": source.sequence,
        "advisories": len(advisories),
        "statements": len(statements),
    }


def _taken_json(taken: Taken) -> dict[str, Any]:
    return {
        "snapshot": str(taken.digest),
        "new": taken.is_new,
        **_source_json(taken.source),
        "skipped": [{"document": name, "reason": why} for name, why in taken.skipped],
    }

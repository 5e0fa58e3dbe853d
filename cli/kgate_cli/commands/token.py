"""`kgate token create|list|revoke`."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import click

from kgate_cli.options import config_option, json_option, now, open_mirror
from kgate_core.clock import write_time

if TYPE_CHECKING:
    from pathlib import Path

    from kgate_cli.output import Output


@click.group()
def command() -> None:
    """Make, list and revoke the read-only tokens that clients send as HF_TOKEN."""


@command.command()
@click.argument("name")
@click.option(
    "--repo",
    "repos",
    multiple=True,
    required=True,
    help="Pattern of repositories that it opens, such as 'acme/*'; may be repeated.",
)
@click.option("--lane", "lanes", multiple=True, help="Lane that it opens; all if none is named.")
@click.option(
    "--may",
    multiple=True,
    type=click.Choice(["qualify"]),
    help="What its bearer may do besides reading: submit results of `kgate qualify`.",
)
@click.option("--days", type=click.IntRange(1, 3650), help="How long it counts; for ever if left.")
@config_option
@json_option
def create(
    name: str,
    repos: tuple[str, ...],
    lanes: tuple[str, ...],
    may: tuple[str, ...],
    days: int | None,
    config_path: Path,
    output: Output,
) -> int:
    """Make a token and show it: once, here, and never again.

    \b
    Examples:
      kgate token create ci --repo 'kernels-community/*' --days 90
      kgate token create team-a --repo 'team-a/*' --lane production
      kgate token create gpu-lab --repo '*/*' --may qualify
    """
    from kgate_mirror_server.catalog.tokens import SqlTokens

    moment = now()
    ends = None if days is None else moment + timedelta(days=days)
    with open_mirror(config_path, acts=True) as mirror:
        tokens = SqlTokens(mirror.catalog.engine)
        text, kept = tokens.create(name, repos, lanes, now=moment, expires_at=ends, may=may)
    output.result(
        "token-create",
        {
            "token": text,
            "id": kept.identifier,
            "name": name,
            "repos": list(repos),
            "lanes": list(lanes),
            "may": list(may),
            "expiresAt": None if ends is None else write_time(ends),
        },
    )
    output.plain(text)
    output.note("Keep it now: it is shown only once. Clients send it as HF_TOKEN.")
    return 0


@command.command(name="list")
@config_option
@json_option
def list_(config_path: Path, output: Output) -> int:
    """List all tokens, revoked and expired ones too; their secrets are nowhere.

    \b
    Example:
      kgate token list
    """
    from kgate_mirror_server.catalog.tokens import SqlTokens

    with open_mirror(config_path) as mirror:
        tokens = SqlTokens(mirror.catalog.engine).tokens()
    moment = now()
    listed = [
        {
            "id": token.identifier,
            "name": token.name,
            "repos": list(token.repos),
            "lanes": list(token.lanes),
            "may": list(token.may),
            "createdAt": write_time(token.created_at),
            "expiresAt": None if token.expires_at is None else write_time(token.expires_at),
            "revokedAt": None if token.revoked_at is None else write_time(token.revoked_at),
            "counts": token.counts(moment),
        }
        for token in tokens
    ]
    output.result("token-list", {"tokens": listed})
    output.table(
        ("ID", "NAME", "REPOSITORIES", "LANES", "MAY", "STATE"),
        [
            (
                token.identifier,
                token.name,
                " ".join(token.repos),
                " ".join(token.lanes) or "all",
                " ".join(("read", *token.may)),
                "counts" if token.counts(moment) else "revoked" if token.revoked_at else "expired",
            )
            for token in tokens
        ],
    )
    return 0


@command.command()
@click.argument("identifier", metavar="ID")
@config_option
@json_option
def revoke(identifier: str, config_path: Path, output: Output) -> int:
    """Let a token count no more, from the mirror's next look on (within a second).

    \b
    Example:
      kgate token revoke 5f2c90aa71be
    """
    from kgate_mirror_server.catalog.tokens import SqlTokens

    with open_mirror(config_path, acts=True) as mirror:
        SqlTokens(mirror.catalog.engine).revoke(identifier, now=now())
    output.result("token-revoke", {"id": identifier})
    output.say(f"revoked  {identifier}")
    return 0

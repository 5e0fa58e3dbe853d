"""`kgate trust show|refresh|renew|update|sign|publish`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from kgate_cli.cosigning import publish, sign
from kgate_cli.options import config_option, from_dir_option, json_option, now, open_mirror
from kgate_core.clock import write_time

if TYPE_CHECKING:
    from pathlib import Path

    from kgate_cli.output import Output
    from kgate_core.trust import Lane, TrustedRoot


@click.group()
def command() -> None:
    """Show, refresh and update the trust metadata that pods believe."""


command.add_command(sign)
command.add_command(publish)


@command.command()
@config_option
@json_option
def show(config_path: Path, output: Output) -> int:
    """Print whom pods believe: lanes, keys, policies, revocations, and until when.

    \b
    Example:
      kgate trust show
    """
    from kgate_mirror_server.trust.publicationlog import check_log

    with open_mirror(config_path) as mirror:
        trusted = mirror.trusted(now())
        entries = len(check_log(mirror, trusted))
    output.result("trust", _to_json(trusted) | {"publications": entries})
    output.say(f"site     {trusted.site}")
    output.say(f"issued   {write_time(trusted.issued)}   expires {write_time(trusted.expires)}")
    output.table(
        ("LANE", "MODE", "NEEDS", "FROM", "POLICIES", "STALE AFTER"),
        [
            (
                lane.name,
                str(lane.mode),
                _roles(lane),
                " ".join(sorted(lane.origins)),
                " ".join(sorted(digest.short for digest in lane.policies)),
                str(lane.hard_staleness),
            )
            for lane in trusted.lanes.values()
        ],
    )
    output.say(f"log      {entries} publications, head {trusted.log_head or 'none yet'}")
    output.say(f"revoked  {len(trusted.revoked_digests)} digests, {len(trusted.revoked_keys)} keys")
    return 0


@command.command()
@config_option
@json_option
def refresh(config_path: Path, output: Output) -> int:
    """Sign the timestamp anew, so that pods know this metadata is current.

    `kgate serve` does this every minute; a mirror that is not running needs it once a day.

    \b
    Example:
      kgate trust refresh
    """
    from kgate_mirror_server.ingest.sync import refresh_trust

    with open_mirror(config_path, acts=True) as mirror:
        refresh_trust(mirror, now())
        trusted = mirror.trusted(now())
    output.result("trust", _to_json(trusted))
    output.say(f"Signed timestamp {trusted.versions.timestamp}, {write_time(trusted.issued)}.")
    return 0


@command.command()
@config_option
@json_option
def renew(config_path: Path, output: Output) -> int:
    """Sign root, targets and snapshot for another term, also after they have run out.

    Needs the root key and the timestamp key. Keys, lanes and revocations stay as they are; pods
    follow by themselves, from whichever root they pinned.

    \b
    Example:
      kgate trust renew
    """
    from kgate_mirror_server.trust.rolekeys import renew_documents

    with open_mirror(config_path, acts=True) as mirror:
        renew_documents(mirror, now())
        trusted = mirror.trusted(now())
    output.result("trust", _to_json(trusted))
    output.say(f"Signed root {trusted.versions.root} and targets {trusted.versions.targets}.")
    output.say("Pods believe them without a new pinned root.")
    return 0


@command.command()
@click.option("--only", is_flag=True, help="Also take out what kgate.yaml does not name any more.")
@click.option("--dry-run", is_flag=True, help="Say what would change and stop.")
@from_dir_option
@config_option
@json_option
def update(
    only: bool,  # noqa: FBT001  # click passes flags by name
    dry_run: bool,  # noqa: FBT001  # the same
    from_dir: Path | None,
    config_path: Path,
    output: Output,
) -> int:
    """Sign trust metadata that follows kgate.yaml: its lanes, its upstream, its policy.

    Needs the root key. Until it has run, pods refuse what a changed policy decides. With
    --from-dir, pods also believe kernels that come from that folder.

    \b
    Examples:
      kgate trust update --dry-run
      kgate trust update --only
    """
    from kgate_mirror_server.trust.update import apply_update, plan_update

    with open_mirror(config_path, acts=True, from_dir=from_dir) as mirror:
        lanes, changes = plan_update(mirror, now(), only=only)
        if changes and not dry_run:
            apply_update(mirror, lanes, now())
    output.result(
        "trust-update",
        {"changes": [{"lane": c.lane, "what": c.what} for c in changes], "dry_run": dry_run},
    )
    for change in changes:
        output.say(f"lane {change.lane}: {change.what}")
    output.say("Nothing to change." if not changes else "Not signed." if dry_run else "Signed.")
    return 0


def _roles(lane: Lane) -> str:
    return " ".join(f"{role.threshold} {name}" for name, role in sorted(lane.roles.items()))


def _to_json(trusted: TrustedRoot) -> dict[str, object]:
    return {
        "site": trusted.site,
        "issued": write_time(trusted.issued),
        "expires": write_time(trusted.expires),
        "versions": {
            name: getattr(trusted.versions, name)
            for name in ("root", "timestamp", "snapshot", "targets")
        },
        "lanes": {
            lane.name: {
                "mode": str(lane.mode),
                "roles": {name: role.threshold for name, role in lane.roles.items()},
                "origins": sorted(lane.origins),
                "policies": sorted(str(digest) for digest in lane.policies),
                "soft_staleness_seconds": int(lane.soft_staleness.total_seconds()),
                "hard_staleness_seconds": int(lane.hard_staleness.total_seconds()),
            }
            for lane in trusted.lanes.values()
        },
        "log_head": trusted.log_head,
        "keys": sorted(trusted.keys),
        "revoked": {
            "digests": {str(d): r.reason for d, r in trusted.revoked_digests.items()},
            "keys": {keyid: r.reason for keyid, r in trusted.revoked_keys.items()},
        },
    }

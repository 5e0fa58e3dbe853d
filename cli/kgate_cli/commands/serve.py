"""`kgate serve`."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import click

from kgate_cli.options import config_option, json_option, now, open_mirror

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kgate_cli.output import Output
    from kgate_core.digest import Digest
    from kgate_mirror_server.app import Mirror


@click.command()
@click.option("--host", help="Address to listen on, instead of the configured one.")
@click.option("--port", type=click.IntRange(1, 65535), help="Port, instead of the configured one.")
@click.option("--no-refresh", is_flag=True, help="Open no key: others run `kgate trust refresh`.")
@config_option
@json_option
def command(
    host: str | None,
    port: int | None,
    no_refresh: bool,  # noqa: FBT001  # click passes flags by name
    config_path: Path,
    output: Output,
) -> int:
    """Serve what was published to stock Hub clients, until interrupted.

    With --no-refresh it holds no key at all: another process that shares the folder trust/ signs
    the timestamp, once a minute or so. Pods report metadata that is five minutes old.

    \b
    Examples:
      kgate serve
      kgate serve --port 9000
    """
    from kgate_mirror_server.serve.server import run

    with open_mirror(config_path) as mirror:
        settings = mirror.serve_settings(host=host, port=port)
        variants = _published(mirror, output)
        # Opened before the server starts: a missing key is said now, not a day later.
        if not no_refresh:
            mirror.key(mirror.config.keys.timestamp)
        mirror.audit.add("serve", {"host": settings.host, "port": settings.port})
        url = f"http://{settings.host}:{settings.port}"
        output.result("serve", {"url": url, "kernels": len(variants), "variants": sum(variants)})
        output.say(f"Serving {len(variants)} kernels ({sum(variants)} variants) on {url}")
        output.say(f"  export HF_ENDPOINT={url}")
        scrub = mirror.config.serve.scrub
        run(
            settings,
            refresh=None if no_refresh else partial(_refresh, mirror),
            started=_schedule(mirror, config_path),
            repair=partial(_repair, config_path) if scrub and scrub.repair else None,
        )
    return 0


def _schedule(mirror: Mirror, config_path: Path) -> Callable[[], None] | None:
    """Return what starts the scheduled sync; None if there is none, or workers do it."""
    from kgate_cli.scheduling import start_schedule, sync_command

    every = mirror.config.sync.every
    if every is None or not mirror.config.database.startswith("sqlite"):
        return None

    def begin() -> None:
        start_schedule(sync_command(config_path), every.total_seconds())

    return begin


def _published(mirror: Mirror, output: Output) -> list[int]:
    """Return how many variants each publication has; none while the catalog is down."""
    from kgate_core.errors import UpstreamError
    from kgate_mirror_server.serve.server import open_catalog

    catalog = open_catalog(mirror.serve_settings())
    try:
        return [len(item.variants) for item in catalog.publications()]
    except UpstreamError as exc:
        output.note(f"warning: {exc.message}; serving what was served before")
        return []
    finally:
        catalog.close()


def _refresh(mirror: Mirror) -> None:
    from kgate_mirror_server.ingest.sync import refresh_trust

    refresh_trust(mirror, now())


def _repair(config_path: Path, digest: Digest) -> str | None:
    """Bring a damaged blob back; opened for this only, so that `kgate gc` need not wait for us."""
    from kgate_mirror_server.upkeep.scrub import bring_back

    with open_mirror(config_path) as mirror:
        reason = bring_back(mirror, mirror.catalog.publications(), digest)
        what = {"digest": str(digest), "outcome": reason or "repaired"}
        mirror.audit.add("serve: repair", what)
    return reason

"""`kgate ls`."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from kgate_cli.options import config_option, json_option, open_mirror
from kgate_cli.output import size
from kgate_core.clock import write_time
from kgate_core.errors import KgateError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from kgate_cli.output import Output
    from kgate_mirror_server.app import Mirror
    from kgate_mirror_server.inventory import Contested
    from kgate_mirror_server.ports import Denial, Publication


@click.command()
@config_option
@json_option
def command(config_path: Path, output: Output) -> int:
    """List what is published and what was denied.

    \b
    Examples:
      kgate ls
      kgate ls --json
    """
    with open_mirror(config_path) as mirror:
        published, denied = mirror.catalog.publications(), mirror.catalog.denials()
        disputed = contested_in(mirror, published, denied)
    output.result(
        "ls",
        {
            "published": [publication_json(item) for item in published],
            "denied": [denial_json(item) for item in denied],
            "published_but_denied": [
                {
                    "repo": str(item.publication.repo),
                    "served": str(item.publication.served),
                    "lane": item.publication.lane,
                    "variant": item.variant,
                    "reasons": list(item.denial.reasons),
                }
                for item in disputed
            ],
        },
    )
    doubted = {id(item.publication) for item in disputed}
    rows = [
        (
            str(item.repo),
            _version(item.version),
            item.served.short,
            item.lane,
            f"{len(item.variants)} variants",
            size(sum(file.size for variant in item.variants for file in variant.files)),
            "published" if id(item) not in doubted else "PUBLISHED BUT DENIED by today's policy",
        )
        for item in published
    ]
    rows += [
        (
            str(item.repo),
            _version(item.version),
            item.upstream.short,
            item.lane,
            item.variant,
            "",
            f"denied: {', '.join(str(reason['rule']) for reason in item.reasons)}",
        )
        for item in denied
    ]
    output.table(("KERNEL", "VERSION", "COMMIT", "LANE", "VARIANTS", "SIZE", "STATE"), rows)
    say_contested(output, disputed)
    if not rows:
        output.say("Nothing yet: pin a kernel in kgate.yaml, then `kgate lock` and `kgate sync`.")
    return 0


def contested_in(
    mirror: Mirror, published: Iterable[Publication], denied: Iterable[Denial]
) -> tuple[Contested, ...]:
    """Return what is served although it is denied now; without trust metadata, all that may be."""
    from kgate_mirror_server.inventory import contested
    from kgate_mirror_server.trust.withheld import read_withheld

    gone = set(read_withheld(mirror.config.path(mirror.config.trust)))
    with suppress(KgateError):  # what is wrong with it is for `kgate doctor` and `serve` to say
        gone |= set(mirror.signed_trust(datetime.now(UTC)).revoked_digests)
    return contested(published, denied, gone)


def say_contested(output: Output, disputed: Iterable[Contested]) -> None:
    """Say of each variant that is served although it is denied now, and how to end that."""
    for item in disputed:
        pin = f"{item.publication.repo}@{item.publication.served.short}"
        lane = item.publication.lane
        output.say(
            f"[bold]{pin} {item.variant} is published in lane {lane} but denied by today's policy"
            f" ({item.rules}): it is still served[/bold]"
        )
        output.say(
            f"  → to stop that: kgate revoke {item.publication.repo}@{item.publication.served}"
        )


def _version(version: int | None) -> str:
    return "" if version is None else f"v{version}"


def publication_json(item: Publication) -> dict[str, object]:
    """Return a publication as JSON."""
    return {
        "origin": item.origin,
        "repo": str(item.repo),
        "version": item.version,
        "served": str(item.served),
        "upstream": str(item.upstream),
        "lane": item.lane,
        "published_at": write_time(item.published_at),
        "depends": list(item.depends),
        "variants": {
            variant.variant: {
                "manifest": str(variant.manifest),
                "files": len(variant.files),
                "size": sum(file.size for file in variant.files),
                "evidence": {str(kind): str(d) for kind, d in variant.evidence.items()},
                "bundles": [str(digest) for digest in variant.bundles],
            }
            for variant in item.variants
        },
    }


def denial_json(item: Denial) -> dict[str, object]:
    """Return a denial as JSON."""
    return {
        "origin": item.origin,
        "repo": str(item.repo),
        "version": item.version,
        "upstream": str(item.upstream),
        "lane": item.lane,
        "variant": item.variant,
        "manifest": str(item.manifest) if item.manifest else None,
        "reasons": list(item.reasons),
        "denied_at": write_time(item.denied_at),
    }

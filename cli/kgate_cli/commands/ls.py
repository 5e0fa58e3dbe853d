"""`kgate ls`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from kgate_cli.options import config_option, json_option, open_mirror
from kgate_cli.output import size
from kgate_core.clock import write_time

if TYPE_CHECKING:
    from pathlib import Path

    from kgate_cli.output import Output
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
    output.result(
        "ls",
        {
            "published": [publication_json(item) for item in published],
            "denied": [denial_json(item) for item in denied],
        },
    )
    rows = [
        (
            str(item.repo),
            _version(item.version),
            item.served.short,
            item.lane,
            f"{len(item.variants)} variants",
            size(sum(file.size for variant in item.variants for file in variant.files)),
            "published",
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
    if not rows:
        output.say("Nothing yet: pin a kernel in kgate.yaml, then `kgate lock` and `kgate sync`.")
    return 0


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

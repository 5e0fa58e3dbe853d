"""`kgate lock`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from kgate_cli.options import config_option, json_option, open_mirror
from kgate_cli.output import size

if TYPE_CHECKING:
    from pathlib import Path

    from kgate_cli.output import Output
    from kgate_core.lock import Lock


@click.command()
@click.option(
    "--upgrade",
    metavar="REPO",
    multiple=True,
    help="Take the present commit of this repository's versions ('all' for every one).",
)
@config_option
@json_option
def command(upgrade: tuple[str, ...], config_path: Path, output: Output) -> int:
    """Resolve every pin of kgate.yaml to a commit and to its variants' digests: kgate.lock.

    What is locked already stays where it is, also when upstream moves a version branch.

    \b
    Examples:
      kgate lock
      kgate lock --upgrade kernels-community/activation
    """
    from kgate_mirror_server.ingest.resolve import read_lock
    from kgate_mirror_server.ingest.sync import new_source, update_lock
    from kgate_mirror_server.settings.site import LOCK_NAME
    from kgate_mirror_server.trust.files import replace_file

    with open_mirror(config_path) as mirror, output.progress("lock") as (count, tell):
        before = read_lock(mirror.config.folder)
        lock = update_lock(
            mirror,
            before,
            new_source(mirror, count),
            upgrade=lambda pin: pin.repo in upgrade or "all" in upgrade,
            tell=tell,
        )
        replace_file(mirror.config.folder / LOCK_NAME, lock.to_bytes())
    _render(output, before, lock)
    return 0


def _render(output: Output, before: Lock | None, lock: Lock) -> None:
    former = {kernel.key: kernel for kernel in before.kernels} if before else {}
    changed = [kernel for kernel in lock.kernels if former.get(kernel.key) != kernel]
    variants = sum(len(kernel.variants) for kernel in lock.kernels)
    output.result(
        "lock",
        {
            "kernels": [
                {
                    "repo": str(item.repo),
                    "pin": item.pin,
                    "commit": str(item.commit),
                    "variants": sorted(item.variants),
                    "depends": list(item.depends),
                }
                for item in lock.kernels
            ],
            "changed": [f"{item.repo}@{item.pin}" for item in changed],
        },
    )
    output.table(
        ("KERNEL", "COMMIT", "VARIANTS", "SIZE", ""),
        [
            (
                f"{item.repo} {item.pin if item.pin.startswith('v') else ''}",
                item.commit.short,
                str(len(item.variants)),
                size(sum(v.size for v in item.variants.values())),
                "changed" if item in changed else "",
            )
            for item in lock.kernels
        ],
    )
    output.say(f"Wrote kgate.lock ({len(lock.kernels)} kernels, {variants} variants). Commit it.")

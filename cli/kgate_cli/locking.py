"""How `kgate lock` reads the stock client's files, and what it prints; it resolves nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kgate_cli.output import size

if TYPE_CHECKING:
    from pathlib import Path

    from kgate_cli.output import Output
    from kgate_core.lock import Lock
    from kgate_mirror_server.ingest.kernelslock import Asked
    from kgate_mirror_server.ingest.lockdiff import Change


def take_in(config_path: Path, asked: tuple[Asked, ...]) -> list[str]:
    """Add what a project's file asks for to kgate.yaml, comments kept; return the new pins."""
    from kgate_mirror_server.ingest.proposal import with_pin
    from kgate_mirror_server.settings.site import Pin, load_config
    from kgate_mirror_server.trust.files import replace_file

    known = {(pin.repo, pin.wanted) for pin in load_config(config_path).kernels}
    text = config_path.read_text(encoding="utf-8")
    added = []
    for item in asked:
        if (str(item.repo), item.wanted) in known:
            continue
        revision = None if item.version is not None else str(item.commit)
        pin = Pin(repo=str(item.repo), version=item.version, revision=revision)
        text = with_pin(text, pin)
        added.append(str(pin))
    if added:
        replace_file(config_path, text.encode())
    return added


def render(
    output: Output, before: Lock | None, lock: Lock, added: list[str], changes: list[Change]
) -> None:
    """Print what is locked now and what is different from before."""
    former = {kernel.key: kernel for kernel in before.kernels} if before else {}
    changed = [kernel for kernel in lock.kernels if former.get(kernel.key) != kernel]
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
                    "targets": dict(item.targets),
                }
                for item in lock.kernels
            ],
            "changed": [f"{item.repo}@{item.pin}" for item in changed],
            "added": added,
            "changes": [item.to_json() for item in changes],
        },
    )
    for pin in added:
        output.say(f"kgate.yaml: added {pin}")
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
    for change in changes:
        for line in change.lines():
            output.plain(line)
    variants = sum(len(kernel.variants) for kernel in lock.kernels)
    output.say(f"Wrote kgate.lock ({len(lock.kernels)} kernels, {variants} variants). Commit it.")

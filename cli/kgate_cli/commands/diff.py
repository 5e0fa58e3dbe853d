"""`kgate diff`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from kgate_cli import exits
from kgate_cli.options import config_option, json_option
from kgate_cli.output import size
from kgate_cli.sides import read_reports

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from kgate_cli.output import Output
    from kgate_core.evidence import ScanReport
    from kgate_scanner.difference import Difference, Names

SHOWN: Final = 12
"""Names in one line of the table; --json has them all."""


@click.command()
@click.argument("before", metavar="A")
@click.argument("after", metavar="B")
@click.option("--exit-code", is_flag=True, help="Exit with 1 if anything differs.")
@config_option
@json_option
def command(before: str, after: str, exit_code: bool, config_path: Path, output: Output) -> int:  # noqa: FBT001  # click's signature
    """Say what changed from A to B: device images, kernels, imports, symbols.

    A and B are paths (a library, a variant, a wheel, a folder), scanned now, or kernels of the
    mirror (org/name@v1, org/name@<commit>, a manifest digest), as they were scanned. Variants
    are compared by name.

    \b
    Examples:
      kgate diff kernels-community/activation@v1 kernels-community/activation@v2
      kgate diff ./before/libkernel.so ./after/libkernel.so --exit-code
      kgate diff vllm-0.33.0.whl vllm-0.33.1.whl --json
    """
    from kgate_scanner.difference import compare_reports

    old = read_reports(before, config_path, output)
    new = read_reports(after, config_path, output)
    pairs = _pairs(old, new)
    found = {name: compare_reports(*pair) for name, pair in pairs.items()}
    matched = {side for name in pairs for side in name.split(" → ")}
    added = sorted(new.keys() - matched)
    removed = sorted(old.keys() - matched)
    differs = bool(added or removed) or not all(item.is_empty for item in found.values())
    output.result(
        "diff",
        {
            "before": before,
            "after": after,
            "differs": differs,
            "variants": {"added": added, "removed": removed},
            "compared": {name: item.to_json() for name, item in found.items()},
        },
    )
    _show(found, added, removed, output)
    return exits.NO if exit_code and differs else exits.YES


def _pairs(
    old: dict[str, ScanReport], new: dict[str, ScanReport]
) -> dict[str, tuple[ScanReport, ScanReport]]:
    if len(old) == len(new) == 1:  # two files may have any names
        (first, before), (second, after) = *old.items(), *new.items()
        return {first if first == second else f"{first} → {second}": (before, after)}
    return {name: (old[name], new[name]) for name in sorted(old.keys() & new.keys())}


def _show(
    found: dict[str, Difference], added: list[str], removed: list[str], output: Output
) -> None:
    for sign, names in (("+", added), ("-", removed)):
        for name in names:
            output.plain(f"{sign} {name}")
    for name, item in found.items():
        if item.is_empty:
            output.plain(f"= {name}: the same bytes")
            continue
        grown = item.bytes_after - item.bytes_before
        output.plain(
            f"~ {name}: {size(item.bytes_before)} → {size(item.bytes_after)}"
            f" ({'+' if grown >= 0 else '-'}{size(abs(grown))})"
        )
        for line in _lines(item):
            output.plain(f"    {line}")


def _lines(item: Difference) -> Iterator[str]:
    yield from _names("files", item.files)
    if item.changed:
        yield f"files changed: {_some(item.changed)}"
    yield from _names("architectures", item.targets)
    for target, (more, fewer) in item.images.items():
        yield f"device images for {target}: {more} new, {fewer} gone"
    yield from _names("kernels", item.kernels)
    for kernel in item.resources[:SHOWN]:
        changes = ", ".join(
            f"{key} {kernel.before.get(key, '?')} → {kernel.after.get(key, '?')}"
            for key in sorted(kernel.before.keys() | kernel.after.keys())
            if kernel.before.get(key) != kernel.after.get(key)
        )
        yield f"kernel {kernel.name} for {kernel.target}: {changes}"
    if len(item.resources) > SHOWN:
        yield f"and {len(item.resources) - SHOWN} more kernels with other resources"
    yield from _names("libraries needed", item.needed)
    yield from _names("imported symbols", item.imports)
    yield from _names("exported symbols", item.exports)
    yield from _names("Python imports", item.modules)
    yield from _names("findings", item.findings)
    if not item.complete:
        yield "one side was not read to its end, or by an older scanner: more may have changed"


def _names(what: str, names: Names) -> Iterator[str]:
    for sign, found in (("+", names.added), ("-", names.removed)):
        if found:
            yield f"{what} {sign} {_some(found)}"


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else ""
    return " ".join(listed[:SHOWN]) + more

"""`kgate lint`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from kgate_cli import exits
from kgate_cli.options import json_option
from kgate_core.evidence import Severity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kgate_cli.output import Output
    from kgate_core.lock import Lock
    from kgate_policy.lint import Checked


@click.command()
@click.argument(
    "paths", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True), metavar="PATH…"
)
@click.option(
    "--lock",
    "lock_path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="kgate.lock that knows the pins; the one beside a path, if left out.",
)
@click.option("--fix", is_flag=True, help="Pin what the lock knows, in place.")
@click.option(
    "--fail-on",
    type=click.Choice([level.label for level in Severity]),
    default="medium",
    show_default=True,
    help="Exit with 1 from this severity on.",
)
@click.option("--github", is_flag=True, help="Print annotations for GitHub Actions.")
@json_option
def command(  # one argument for each option
    paths: tuple[Path, ...],
    lock_path: Path | None,
    fix: bool,  # noqa: FBT001  # click passes flags by name
    fail_on: str,
    github: bool,  # noqa: FBT001  # the same
    output: Output,
) -> int:
    """Read a project's own files for careless uses of kernels; runs and downloads nothing.

    Python sources, model config.json, Dockerfiles, KernelPort manifests and Kubernetes YAML.

    \b
    Examples:
      kgate lint src/ deploy/
      kgate lint --fix app.py
    """
    from kgate_policy.lint import lint_paths

    checked = list(lint_paths(paths, lock=_lock(lock_path, paths)))
    fixed = _fix(checked) if fix else 0
    left = [item for file in checked for item in file.findings if not (fix and item.fix)]
    bad = [item for item in left if item.severity >= Severity.parse(fail_on)]
    output.result(
        "lint",
        {"files": len(checked), "fixed": fixed, "findings": [item.to_json() for item in left]},
        ok=not bad,
    )
    for item in left:
        if github:
            kind = "error" if item in bad else "warning"
            output.plain(
                f"::{kind} file={item.path},line={item.line},title={item.rule}::{item.seen}"
            )
            continue
        output.plain(f"{item.path}:{item.line}: {item.severity.label} {item.rule}: {item.seen}")
        output.plain(f"    → {item.hint}")
    output.say(f"{len(checked)} files, {len(left)} findings" + (f", {fixed} fixed" if fix else ""))
    return exits.NO if bad else exits.YES


def _lock(path: Path | None, paths: Sequence[Path]) -> Lock | None:
    from kgate_core.errors import NotFound
    from kgate_mirror_server.ingest.resolve import read_lock

    if path is not None:
        found = read_lock(path.parent)
        if found is None:
            raise NotFound(f"there is no {path}", hint="make it with `kgate lock`")
        return found
    folders = [item if item.is_dir() else item.parent for item in paths]
    return next((lock for folder in folders if (lock := read_lock(folder))), None)


def _fix(checked: Sequence[Checked]) -> int:
    from kgate_policy.lint import apply_fixes

    total = 0
    for file in checked:
        if not any(item.fix for item in file.findings):
            continue
        text, count = apply_fixes(file.text, file.findings)
        file.path.write_text(text, encoding="utf-8")
        total += count
    return total

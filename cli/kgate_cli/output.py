"""How results reach a person or a program: one JSON object, or text; results on stdout only.

Progress and messages go to stderr. Nothing here knows what a result means.
"""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from kgate_core.errors import KgateError


@dataclass(frozen=True)
class Output:
    """Where and how one command speaks."""

    as_json: bool

    def result(self, command: str, data: dict[str, Any], *, ok: bool = True) -> None:
        """Print the one JSON object of a command; does nothing for people."""
        if self.as_json:
            document = {"schema": f"kgate.dev/{command}/v1", "ok": ok, **data}
            sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")

    def say(self, text: str = "") -> None:
        """Print a line of the result for people; does nothing with --json."""
        if not self.as_json:
            # Wider than any line: a pipe must not cut digests in two.
            Console(soft_wrap=True, highlight=False).print(text)

    def plain(self, text: str) -> None:
        """Print a line as it is, without markup; does nothing with --json."""
        if not self.as_json:
            Console(soft_wrap=True, highlight=False, markup=False).print(text)

    def note(self, text: str) -> None:
        """Print a message beside the result, on stderr."""
        if not self.as_json:
            Console(stderr=True, soft_wrap=True, highlight=False).print(text)

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Print a table for people; does nothing with --json."""
        if self.as_json:
            return
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in rows:
            table.add_row(*row)
        console = Console(highlight=False)
        if not console.is_terminal:
            console = Console(highlight=False, width=200)
        console.print(table)

    def error(self, error: KgateError) -> None:
        """Print an error with what to do next."""
        if self.as_json:
            data = {"code": error.code, "message": error.message, "hint": error.hint}
            self.result("error", data, ok=False)
            return
        console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
        console.print(f"error: {error.message}")
        if error.hint:
            console.print(f"  → {error.hint}")

    @contextmanager
    def progress(
        self, title: str, total: int | None = None
    ) -> Iterator[tuple[Callable[[int], None], Callable[[str], None]]]:
        """Give a function that counts bytes (of `total`, if known) and one that says what is done.

        A bar on a terminal, plain lines elsewhere, silence with --json.
        """
        with self.counting(title, total) as (count, tell, _expect):
            yield count, tell

    @contextmanager
    def counting(
        self, title: str, total: int | None = None
    ) -> Iterator[tuple[Callable[[int], None], Callable[[str], None], Callable[[int], None]]]:
        """Do as `progress`, and also give a function that tells how many bytes it will be."""
        console = Console(stderr=True, highlight=False)
        if self.as_json or not console.is_terminal:
            yield (lambda _count: None), self.note, (lambda _total: None)
            return
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task(title, total=total)
            yield (
                lambda count: bar.advance(task, count),
                lambda text: bar.update(task, description=text),
                lambda size: bar.update(task, total=size),
            )


def size(count: int) -> str:
    """Return bytes as people read them, in decimal units."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":  # noqa: PLR2004  # decimal units
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError("the loop returns at its last unit")

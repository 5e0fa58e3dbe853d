"""Scans one variant: every file in the child process, then what only shows between the files.

`scan_variant` is the entry point for a mirror; see `paths` for files, directories and wheels on a
disk. It decides nothing, and a report says nothing about files that the manifest does not list.

Facts of a file (`ScanReport.files[path]`): `kind`, `size`, `digest`, and by kind `host` (see
`host`), `device` (`images`, see `device`), `python` (see `python`), `metadata` (the document),
`record` (see `cacherecords`).
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from kgate_core.errors import KgateError
from kgate_core.evidence import Finding, ScanReport
from kgate_core.kernel import Variant
from kgate_scanner import rules_files as rules
from kgate_scanner.caches import check_caches
from kgate_scanner.files import METADATA
from kgate_scanner.isolate import (
    Inspected,
    ParserProcess,
    ScanLimits,
    gave_up,
    open_descriptor,
)
from kgate_scanner.libraries import check_libraries
from kgate_scanner.metadata import check_metadata
from kgate_scanner.rules import all_rules
from kgate_scanner.summary import device_archs, summarise

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from contextlib import AbstractContextManager

    from kgate_core.evidence import Facts
    from kgate_core.manifest import FileEntry, Manifest

    OpenFile = Callable[[FileEntry], AbstractContextManager[Path | memoryview]]

VERSION: Final = "0.3.0"
"""Of the scanner; rises whenever equal bytes may give another report."""
DEFAULT_LIMITS: Final = ScanLimits()
_CHILDREN: Final = 2  # processes that read files at the same time
_WORTH_TWO: Final = 32 * 1024**2  # bytes; less is read before a second child has started


@cache
def scanner_name() -> str:
    """Return name, version and the short digest of the rule table: it stands in every report."""
    table = "\n".join(f"{rule.id} {rule.severity.label}" for rule in all_rules().values())
    return f"kgate-scanner/{VERSION}+rules.{hashlib.sha256(table.encode()).hexdigest()[:12]}"


def scan_variant(
    variant: str,
    manifest: Manifest,
    open_file: OpenFile,
    *,
    limits: ScanLimits = DEFAULT_LIMITS,
) -> ScanReport:
    """Scan the files of one build variant; raises InvalidInput if `variant` is not a variant name.

    `open_file` gives a path or the bytes of an entry while its context is open. What goes wrong
    with a file is a finding; the report is then not complete.
    """
    return scan_files(manifest, open_file, variant=Variant.parse(variant), limits=limits)


def scan_files(
    manifest: Manifest,
    open_file: OpenFile,
    *,
    variant: Variant | None,
    limits: ScanLimits = DEFAULT_LIMITS,
) -> ScanReport:
    """Scan any set of files; without a variant, the rules about metadata and names do not apply."""
    sizes = {entry.path: entry.size for entry in manifest.files}
    results = inspect_files(
        sizes, lambda path: open_file(manifest.by_path[path]), variant=variant, limits=limits
    )
    return report_on(manifest, results, variant=variant)


def inspect_files(
    sizes: Mapping[str, int],
    open_path: Callable[[str], AbstractContextManager[Path | memoryview]],
    *,
    variant: Variant | None,
    limits: ScanLimits = DEFAULT_LIMITS,
) -> dict[str, Inspected]:
    """Look at each file of the given size, in a child process, without any other file.

    Where there is much to read besides the largest file, two children share the work.
    """
    if not sizes:
        return {}
    largest = max((size for size in sizes.values() if size <= limits.file_bytes), default=0)
    libraries = any(".so" in PurePosixPath(path).suffixes for path in sizes)
    # The largest first: then no child is left alone with it in the end.
    waiting = deque(sorted(sizes, key=lambda path: (-sizes[path], path)))
    found: dict[str, Inspected] = {}

    def work() -> None:
        # The thread that starts a child ends it: a child dies with the thread that made it.
        with ParserProcess(limits, largest, system_of(variant), libraries) as process:
            while waiting:
                try:
                    path = waiting.popleft()
                except IndexError:
                    return  # the other one was faster
                found[path] = _inspect(process, path, sizes[path], open_path, limits)

    if sum(sizes.values()) - max(sizes.values()) < _WORTH_TWO or _processors() < _CHILDREN:
        work()
    else:
        with ThreadPoolExecutor(_CHILDREN, thread_name_prefix="kgate-parser") as pool:
            for done in [pool.submit(work) for _ in range(_CHILDREN)]:
                done.result()
    return {path: found[path] for path in sorted(found)}


def _processors() -> int:
    return len(os.sched_getaffinity(0))


def system_of(variant: Variant | None) -> str | None:
    """Return the operating system that files are meant for, None if nothing says so."""
    return None if variant is None else (variant.os or "linux")


def report_on(
    manifest: Manifest,
    results: Mapping[str, Inspected],
    *,
    variant: Variant | None,
    extra: Iterable[Finding] = (),
    complete: bool = True,
) -> ScanReport:
    """Put the results of all files of a manifest together, with what only shows between files.

    `extra` and `complete` are what was learned while the files were collected.
    """
    files: dict[str, Facts] = {
        entry.path: {
            "kind": "unread",
            **results[entry.path].facts,
            "size": entry.size,
            "digest": str(entry.digest),
        }
        for entry in manifest.files
    }
    findings = [*extra]
    for path in files:
        findings += results[path].findings
    hosts = {path: facts["host"] for path, facts in files.items() if facts.get("host")}
    findings += check_libraries(hosts, variant)
    findings += check_caches(files)
    if variant is not None:
        document: Mapping[str, Any] = files.get(METADATA, {}).get("metadata", {})
        findings += check_metadata(document, manifest, variant, device_archs(files))
    findings.sort(key=_order)
    return ScanReport(
        scanner=scanner_name(),
        subject=manifest.digest,
        files=files,
        summary=summarise(files, findings, variant),
        findings=tuple(findings),
        complete=complete and all(results[path].complete for path in files),
    )


def _inspect(
    process: ParserProcess,
    path: str,
    size: int,
    open_path: Callable[[str], AbstractContextManager[Path | memoryview]],
    limits: ScanLimits,
) -> Inspected:
    if size > limits.file_bytes:
        seen = f"{size} bytes are more than the {limits.file_bytes} that are read"
        return Inspected({}, (rules.TOO_LARGE.finding(path, seen),), complete=False)
    try:
        with open_path(path) as content:
            if isinstance(content, Path):
                descriptor = os.open(content, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            else:
                descriptor = open_descriptor(content)
            try:
                if os.fstat(descriptor).st_size != size:
                    return _unreadable(path, "its size is not the expected one")
                return process.inspect(descriptor, path)
            finally:
                os.close(descriptor)
    except OSError as exc:
        return _unreadable(path, f"could not be opened ({type(exc).__name__})")
    except KgateError as exc:
        return gave_up(path, f"could not be opened ({exc.code})")


def _unreadable(path: str, why: str) -> Inspected:
    return Inspected({}, (rules.UNREADABLE.finding(path, why),), complete=False)


def _order(finding: Finding) -> tuple[str, int, str, int, int, str]:
    return (
        finding.path,
        -finding.severity,
        finding.rule,
        -1 if finding.offset is None else finding.offset,
        finding.line or 0,
        finding.seen,
    )

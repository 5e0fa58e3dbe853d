"""T22: truncated, mutated, cyclic and exploding ELF, device code, Python and metadata.

Each becomes a report, in bounded time and memory; damage is a finding, and neither the service
nor its next scan is harmed.
"""

from __future__ import annotations

import json
import random
import resource
import struct
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
import zstandard
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from kgate_core.kernel import KernelId, KernelRef, RepoType, Revision
from kgate_policy import builtin_profile, evaluate
from kgate_scanner.sbom import build_sbom
from tests.policykit import NOW, good_evidence
from tests.scankit import CPU, build_library, manifest_of, rules_of, scan_bytes
from tests.unit.scanner.device import builders

if TYPE_CHECKING:
    from kgate_core.evidence import ScanReport

SOURCE = 'int system(const char *); int f(void) { return system("id"); }'
DAMAGE = {"KG-SCAN-001", "KG-ELF-001", "KG-HOST-014", "KG-HOST-019", "KG-FILE-005", "KG-FILE-016"}
SECONDS = 120  # for one hostile variant, on a slow and busy machine
MEMORY = 1536 * 1024  # KiB that the largest child process may have touched


def libraries() -> dict[str, bytes]:
    return {
        "plain": build_library(SOURCE),
        "cuda": builders.host(builders.fatbin(builders.entry(builders.ptx(), kind=1))),
        "rocm": builders.host(
            builders.ccob(builders.hip_bundle(("gfx90a", builders.hsaco()))),
            section=".hip_fatbin",
        ),
    }


def scan(files: dict[str, bytes]) -> ScanReport:
    started = time.monotonic()
    report = scan_bytes(files, CPU)
    assert time.monotonic() - started < SECONDS
    assert set(report.files) == set(files)
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < MEMORY
    return report


@pytest.mark.parametrize("name", ["plain", "cuda", "rocm"])
def test_a_library_cut_off_anywhere_is_a_finding(name: str) -> None:
    whole = libraries()[name]
    cuts = sorted({*range(0, 400, 23), *range(0, len(whole), max(1, len(whole) // 40))})
    report = scan({f"{cut}.so": whole[:cut] for cut in cuts})
    unharmed = {path for path in report.files if not rules_of(report, path) & DAMAGE}
    assert unharmed == set()


@pytest.mark.parametrize("name", ["plain", "cuda", "rocm"])
def test_a_library_changed_anywhere_is_read_or_refused_and_harms_nothing(name: str) -> None:
    whole = libraries()[name]
    chance = random.Random(name)  # the same changes in every run
    files = {"good.so": whole}
    for number in range(150):
        data = bytearray(whole)
        for _ in range(chance.choice((1, 4, 32))):
            at = chance.randrange(chance.choice((64, 400, len(data))))
            size = min(chance.choice((1, 2, 4, 8)), len(data) - at)
            value = chance.choice((0, 1, 255, chance.getrandbits(8)))
            data[at : at + size] = bytes([value]) * size
        files[f"{number}.so"] = bytes(data)
    report = scan(files)
    # The same child read it among the damaged ones, in the order of names.
    good = rules_of(report, "good.so")
    assert good == rules_of(scan({"good.so": whole}), "good.so")
    assert "KG-ELF-001" not in good
    assert len({path for path in files if rules_of(report, path) - good}) > 30


def test_tables_that_point_at_themselves_end() -> None:
    whole = bytearray(libraries()["plain"])
    (sections,) = struct.unpack_from("<Q", whole, 40)
    (count,) = struct.unpack_from("<H", whole, 60)
    files = {}
    for number in range(1, count):
        data = bytearray(whole)
        header = sections + 64 * number
        # Every section covers the whole file, links to itself and has entries of no size.
        struct.pack_into("<QQ", data, header + 24, 0, len(data))
        struct.pack_into("<II", data, header + 40, number, number)
        struct.pack_into("<Q", data, header + 56, 0)
        files[f"{number}.so"] = bytes(data)
    assert scan(files).scanner


def bombs() -> dict[str, bytes]:
    zeros = bytes(1 << 20)
    frame = zstandard.ZstdCompressor().compressobj()
    packed = b"".join(frame.compress(zeros) for _ in range(3072)) + frame.flush()
    honest = struct.pack("<4sHHQQQ", b"CCOB", 3, 1, 32 + len(packed), 3 << 30, 0) + packed
    lying = struct.pack("<4sHHQQQ", b"CCOB", 3, 1, 32 + len(packed), 1 << 16, 0) + packed
    depth = 200_000
    return {
        "bundle": builders.host(honest, section=".hip_fatbin"),
        "lying bundle": builders.host(lying, section=".hip_fatbin"),
        "claim": builders.host(
            builders.fatbin(builders.entry(b"\0" * 64, compression="zstd", size=1 << 60))
        ),
        "nested.py": b"(" * depth + b")" * depth,
        "chain.py": b"x" + b".a" * depth,
        "sum.py": b"+".join([b"1"] * depth),
        "metadata.json": b'{"a":' * depth + b"1" + b"}" * depth,
    }


@pytest.mark.parametrize("name", list(bombs()))
def test_a_small_file_that_would_become_huge_stays_small(name: str) -> None:
    report = scan({name if "." in name else f"{name}.so": bombs()[name]})
    assert [finding for finding in report.findings if finding.severity.label == "high"]


def test_policies_refuse_what_could_not_be_read() -> None:
    files = {"__init__.py": b"", "sum.py": bombs()["sum.py"], "cut.so": b"\x7fELF\2\1\1"}
    report = scan(files)
    assert not report.complete
    evidence = replace(good_evidence(), manifest=manifest_of(files), scan=report)
    for profile in ("dev", "staging", "production", "airgap"):
        decision = evaluate(evidence, builtin_profile(profile), now=NOW)
        assert "scan-complete" in {denial.rule for denial in decision.denials}


@pytest.mark.parametrize(
    "metadata",
    [
        {"license": "x" * 100_000, "source": "https://\0", "upstream": "https://[::"},
        {"python-depends": ["\u202e" * 100, "../../etc", "a b"], "kernel-depends": []},
        {"kernel-depends": [{"repo-id": "?#&%/" * 100}]},
        {"backend": {"type": "\ud7ff" * 10, "archs": ["\u0000"] * 1000}},
    ],
)
def test_an_sbom_of_hostile_metadata_is_valid_or_refused(metadata: dict[str, Any]) -> None:
    document = {"name": "relu", "id": "_relu_abcd1234", "backend": {"type": "cpu"}, **metadata}
    files = {"__init__.py": b"", "metadata.json": json.dumps(document).encode()}
    report = scan(files)
    read = report.files["metadata.json"].get("metadata", {})
    kernel = KernelId(
        "https://hub.example.org", RepoType.KERNEL, KernelRef("a", "b"), Revision("0" * 40), CPU
    )
    data = build_sbom(
        kernel, manifest_of(files), read, report, timestamp=datetime(2026, 1, 1, tzinfo=UTC)
    )
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(data.decode()) is None

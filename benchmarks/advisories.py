"""What advisories cost a sync: reading a snapshot once, and comparing each variant with it.

The documents are made up in the shapes of OSV and of NVIDIA's CSAF; CPU time, because machines are
shared. The last line is the result.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT)]

from kgate_core.digest import Digest  # noqa: E402  # after the path
from kgate_scanner.advisories.inventory import take_inventory  # noqa: E402
from kgate_scanner.advisories.matching import match  # noqa: E402
from kgate_scanner.advisories.snapshot import Means, Snapshot, Source  # noqa: E402
from tests.feedkit import KERNEL, MANIFEST, csaf, osv, report  # noqa: E402

RECORDS = 5000  # OSV, of 1.8 kB
BULLETINS = 200  # CSAF, of 5 kB, as many as NVIDIA has published
IMAGES = 600  # device images in the library, more than any in the corpus


def record(number: int) -> dict[str, Any]:
    ranges = [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "1.2"}]}]
    package = {"ecosystem": "PyPI", "name": f"package-{number}"}
    affected = [{"package": package, "ranges": ranges}]
    return osv(f"PYSEC-{number}", details="y" * 1500, affected=affected)


def bulletin(number: int) -> dict[str, Any]:
    document = csaf(cve=f"CVE-2026-{number:04}")
    document["document"]["notes"] = [{"category": "legal_disclaimer", "text": "x" * 4000}]
    return document


def main() -> None:
    made = [record(n) for n in range(RECORDS)] + [bulletin(n) for n in range(BULLETINS)]
    documents = tuple((f"{n}.json", json.dumps(one)) for n, one in enumerate(made))
    date = datetime(2026, 10, 1, tzinfo=UTC)
    data = Snapshot((Source("a", Means.ACCEPTED, "", 0, date, documents),)).to_bytes()
    begun = time.process_time()
    feed = Snapshot.parse(data).feed()
    read = time.process_time() - begun
    scan = report()
    images = [
        {"kind": "cubin", "digest": str(Digest.of(b"%d" % n)), "toolkit": "12.8"}
        for n in range(IMAGES)
    ]
    library = {**scan.files["_relu.so"], "device": {"images": images}}
    scan = replace(scan, files={"_relu.so": library})
    begun = time.process_time()
    found = match(feed, take_inventory(scan, KERNEL), MANIFEST)
    compared = time.process_time() - begun
    assert len(found.found) == BULLETINS
    figures = {
        "snapshot_mb": round(len(data) / 1e6, 1),
        "read_cpu_s": round(read, 2),
        "compare_cpu_ms": round(compared * 1000, 1),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()

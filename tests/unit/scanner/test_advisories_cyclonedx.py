from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from kgate_core.digest import Digest
from kgate_core.errors import InvalidInput
from kgate_core.evidence import ScanReport
from kgate_scanner.advisories.cyclonedx import with_vulnerabilities
from kgate_scanner.sbom import build_sbom
from tests.feedkit import (
    COMMIT,
    KERNEL,
    VEX_AUTHOR,
    csaf,
    matched,
    openvex,
    osv,
    own,
)
from tests.scankit import manifest_of

MANIFEST = manifest_of({"_relu.so": b"\x7fELF"})
SCAN = ScanReport(
    "kgate-scanner/test",
    MANIFEST.digest,
    {
        "_relu.so": {
            "kind": "elf-shared-object",
            "digest": str(MANIFEST.files[0].digest),
            "device": {
                "images": [
                    {
                        "kind": "cubin",
                        "digest": str(Digest.of(b"image")),
                        "toolkit": "12.8",
                        "container": 0,
                        "entry": 0,
                        "offset": 0,
                        "size": 1,
                        "storedSize": 1,
                    }
                ]
            },
        }
    },
    {},
    (),
)
SBOM = build_sbom(KERNEL, MANIFEST, {}, SCAN, timestamp=datetime(2026, 1, 1, tzinfo=UTC))


def test_vulnerabilities_stand_in_the_sbom_with_their_analysis() -> None:
    report = matched(
        csaf(),
        osv("A-1", affected=[own(commits=[COMMIT])]),
        osv("A-2", affected=[own(commits=[COMMIT])]),
        openvex("A-2", justification="vulnerable_code_cannot_be_controlled_by_adversary"),
        scan=SCAN,
        authors=[VEX_AUTHOR],
    )

    data = with_vulnerabilities(SBOM, report)

    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(data.decode()) is None
    document = json.loads(data)
    found = {item["id"]: item for item in document["vulnerabilities"]}
    tools = found["CVE-2026-0001"]
    assert tools["analysis"]["state"] == "not_affected"
    assert tools["analysis"]["justification"] == "code_not_present"
    assert [item["ref"] for item in tools["affects"]] == [f"{KERNEL.purl}/_relu.so"]
    assert found["A-1"]["analysis"] == {"state": "exploitable"}
    assert found["A-1"]["affects"] == [{"ref": KERNEL.purl}]
    assert "justification" not in found["A-2"]["analysis"]
    assert VEX_AUTHOR in found["A-2"]["analysis"]["detail"]
    assert document["serialNumber"] != json.loads(SBOM)["serialNumber"]


def test_the_same_report_gives_the_same_bytes_and_another_feed_another_serial() -> None:
    report = matched(csaf(), scan=SCAN)
    newer = replace(report, feed=Digest.of(b"newer"))

    assert with_vulnerabilities(SBOM, report) == with_vulnerabilities(SBOM, report)
    assert with_vulnerabilities(SBOM, report) != with_vulnerabilities(SBOM, newer)


def test_another_document_is_refused() -> None:
    with pytest.raises(InvalidInput):
        with_vulnerabilities(b'{"metadata":{"component":{"bom-ref":"x"}}}', matched(csaf()))

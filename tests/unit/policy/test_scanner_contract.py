"""What policy takes from the scanner is there: finding ids, facts per file, the summary.

Policy does not import the scanner; this test holds the two together.
"""

from __future__ import annotations

import json
import re
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from kgate_core.digest import Digest
from kgate_core.manifest import FileEntry, Manifest
from kgate_policy import baseline, builtin_profile, evaluate
from kgate_policy.facts.collect import kernel_facts
from kgate_policy.samples import sample_vulnerabilities
from kgate_scanner.rules import all_rules
from kgate_scanner.scan import scan_variant
from tests.policykit import METADATA, NOW, good_evidence, import_record

ID = re.compile(r"KG-[A-Z]+-\d{3}")
VARIANT = "torch-cuda"
FILES = {
    "__init__.py": b"import torch\n\n\ndef double(x):\n    return x + x\n",
    "metadata.json": json.dumps(METADATA | {"digest": None})
    .encode()
    .replace(b'"digest": null, ', b""),
}


def test_every_finding_that_a_rule_names_is_in_the_scanners_register() -> None:
    folder = Path(baseline.__file__).parent
    named = {found for file in folder.glob("*.py") for found in ID.findall(file.read_text())}
    assert named
    assert named <= set(all_rules())


def test_a_real_scan_is_understood() -> None:
    manifest = Manifest.of(
        FileEntry(path, len(data), Digest.of(data)) for path, data in FILES.items()
    )
    scan = scan_variant(VARIANT, manifest, lambda entry: nullcontext(memoryview(FILES[entry.path])))
    good = good_evidence()
    kernel = replace(good.kernel, variant=VARIANT)
    evidence = replace(
        good,
        kernel=kernel,
        manifest=manifest,
        metadata=json.loads(FILES["metadata.json"]),
        scan=scan,
        imported=import_record(kernel, manifest),
        stated=good.stated | {"vulnerabilities": sample_vulnerabilities(manifest.digest).to_json()},
    )
    decision = evaluate(evidence, builtin_profile("production"), now=NOW)
    assert [item for item in decision.denials if item.rule != "severity-threshold"] == []
    facts = kernel_facts(evidence, decision.results)
    assert facts["imports"] == ["torch"]
    assert [file["kind"] for file in facts["files"]] == ["python", "metadata"]
    assert facts["scan"]["complete"] is True
    # Nothing is in them here, but this is where architectures and libraries are taken from.
    assert scan.summary["device"]["archs"] == {}
    assert scan.summary["host"]["needed"] == []

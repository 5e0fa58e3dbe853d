"""Every built-in rule: it passes on good evidence, and one spoiled thing makes it answer no."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from kgate_core.digest import Digest
from kgate_core.evidence import Outcome, Severity
from kgate_core.vulnerabilities import IgnoredVex, Status, Vulnerability
from kgate_policy import builtin_profile, evaluate
from kgate_policy.baseline import RULES
from kgate_policy.parameters import Parameters
from kgate_policy.policy import Policy
from kgate_policy.profiles import PROFILES
from kgate_policy.rules import Level, merge
from kgate_policy.samples import sample_vulnerabilities
from tests.policykit import (
    COMMIT,
    LIBRARY,
    METADATA,
    NOW,
    QUALIFICATION,
    finding,
    good_evidence,
    scan_of,
    with_findings,
    with_import,
    with_metadata,
    with_statements,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kgate_core.evidence import Evidence

GOOD = good_evidence()
HALF_SCANNED = replace(GOOD, scan=replace(scan_of(GOOD.manifest), files={}))
OTHER_SCAN = replace(GOOD, scan=replace(scan_of(GOOD.manifest), subject=Digest.of(b"other")))
PROVENANCE = METADATA["provenance"]


def dirty(part: str) -> Evidence:
    """Return evidence of a build from uncommitted changes."""
    return with_metadata(provenance=PROVENANCE | {part: PROVENANCE[part] | {"dirty": True}})


def file_record(**changes: object) -> Evidence:
    """Return evidence whose import record differs for one file."""
    first, *rest = GOOD.imported["files"]
    return with_import(files=[first | changes, *rest])


CUDA = {"torch": "2.13", "cuda": "13.0", "arch": "x86_64", "gpus": ["sm_90"]}
ROCM = {"torch": "2.13", "rocm": "7.1"}


def targets(*fleet: Mapping[str, object]) -> Evidence:
    """Return evidence of a pin of one variant, held against a fleet."""
    asked = {"targets": list(fleet), "siblings": {GOOD.kernel.variant: ["8.0", "9.0"]}}
    return replace(GOOD, asked=GOOD.asked | asked)


SPOILED = [
    ("pinned-commit", with_import(pin="main")),
    ("pinned-commit", with_import(pin=None)),
    ("pinned-commit", with_import(pin="v0")),
    ("pinned-commit", with_import(revision="a" * 40)),
    ("pinned-commit", with_import(origin="https://elsewhere.example.org")),
    ("asked-for", replace(GOOD, asked={"repo": "somebody/else"})),
    ("bytes-verified", with_import(files=[])),
    ("bytes-verified", with_import(files=GOOD.imported["files"][1:])),
    ("bytes-verified", file_record(oid="")),
    ("bytes-verified", file_record(size=1)),
    ("bytes-verified", file_record(digest=str(Digest.of(b"x")))),
    ("bytes-verified", file_record(lfs="0" * 64)),
    ("upstream-signature-valid", with_import(upstreamSignature={"status": "failed"})),
    ("upstream-signature-valid", with_import(upstreamSignature={"status": "wonderful"})),
    ("require-upstream-signature", with_import(upstreamSignature={"status": "missing"})),
    ("require-upstream-signature", with_import(upstreamSignature={"status": "not-checked"})),
    ("require-upstream-signature", with_import(upstreamSignature=None)),
    ("scan-complete", replace(GOOD, scan=None)),
    ("scan-complete", HALF_SCANNED),
    ("scan-complete", OTHER_SCAN),
    ("scan-complete", replace(GOOD, scan=scan_of(GOOD.manifest, complete=False))),
    ("scan-complete", with_findings(finding("KG-SCAN-001"))),
    ("no-bytecode", good_evidence("a.py", "__pycache__/a.cpython-311.pyc")),
    ("no-bytecode", good_evidence("a.PYC")),
    ("no-bytecode", with_findings(finding("KG-FILE-001"))),
    ("no-bytecode", replace(GOOD, scan=None)),
    ("no-os-kernel-module", good_evidence("nvidia.ko.xz")),
    ("no-os-kernel-module", with_findings(finding("KG-FILE-002"))),
    ("elf-well-formed", with_findings(finding("KG-ELF-001"))),
    ("elf-well-formed", replace(GOOD, scan=None)),
    ("only-kernel-files", with_findings(finding("KG-FILE-012", Severity.LOW))),
    ("no-startup-hook", with_findings(finding("KG-FILE-014"))),
    ("no-redirect", with_findings(finding("KG-FILE-006"))),
    ("no-redirect", with_import(redirects=True)),
    ("device-code-well-formed", with_findings(finding("KG-DEV-013"))),
    ("no-ptx-only", with_findings(finding("KG-DEV-009", Severity.LOW))),
    ("source-readable", with_findings(finding("KG-PY-008"))),
    ("dependencies-pinned", with_import(unmet=["a/b → c/d: denied"])),
    ("closed-library-set", with_findings(finding("KG-HOST-001"))),
    ("no-calls-out", with_findings(finding("KG-HOST-008"))),
    ("severity-threshold", with_findings(finding("KG-ANY-001", Severity.CRITICAL))),
    ("severity-threshold", replace(GOOD, scan=None)),
    ("sbom-present", replace(GOOD, sbom=None)),
    ("metadata-well-formed", replace(GOOD, metadata={})),
    ("metadata-well-formed", with_findings(finding("KG-META-011"))),
    ("metadata-id-safe", with_metadata(id="json")),
    ("metadata-id-safe", with_metadata(id="torch")),
    ("metadata-id-safe", with_metadata(id=None)),
    ("metadata-id-safe", with_metadata(id="_bad.name")),
    ("metadata-id-safe", with_findings(finding("KG-META-003"))),
    ("publisher-digests", with_findings(finding("KG-META-010"))),
    ("no-dirty-build", dirty("kernel")),
    ("no-dirty-build", dirty("kernel-builder")),
    ("no-dirty-build", with_metadata(provenance=None)),
    ("no-dirty-build", with_metadata(provenance={"kernel": {"commit": COMMIT}})),
    ("provenance-present", with_metadata(provenance=None)),
    ("provenance-present", with_metadata(provenance=PROVENANCE | {"kernel": {"commit": "?"}})),
    ("licence-allowed", with_metadata(license=None)),
    ("scanner-allowed", replace(GOOD, scan=None)),
    ("approved-digests", with_metadata(digest=None)),
    ("approved-digests", with_metadata(digest={"algorithm": "md5", "files": {}})),
    ("approved-digests", with_import(upstreamSignature={"status": "missing"})),
    ("licence-allowed", with_metadata(license="Proprietary")),
    ("dependencies-pinned", with_metadata(kernel_depends=[{"repo-id": "a/b", "version": 1}])),
    ("dependencies-pinned", with_metadata(kernel_depends="a/b")),
    ("dependencies-pinned", with_import(depends=["a/b@main"])),
    ("card-complete", with_import(card=None)),
    ("card-complete", with_import(card={"size": 9, "fields": ["tags"], "headings": ["Usage"]})),
    ("card-complete", with_import(card={"size": 9, "fields": ["license"], "headings": []})),
    ("scanned-recently", with_import(scannedAt="2026-08-01T00:00:00Z")),
    ("scanned-recently", with_import(scannedAt="lately")),
    ("scanned-recently", with_import(scannedAt=None)),
    ("scanned-recently", replace(GOOD, scan=None)),
    ("targets-covered", replace(GOOD, asked=GOOD.asked | {"targets": [CUDA]})),
    ("targets-covered", targets(CUDA, ROCM)),
    ("targets-covered", targets(CUDA | {"torch": "2.12"})),
    ("targets-covered", targets(CUDA | {"gpus": ["sm_90", "sm_120"]})),
    ("qualified", with_statements(qualification=None)),
    ("qualified", with_statements(qualification="yes")),
    ("qualified", with_statements(qualification=QUALIFICATION | {"passed": False})),
    ("qualified", with_statements(qualification=QUALIFICATION | {"passed": "true"})),
    ("qualified", with_statements(qualification=QUALIFICATION | {"speedupPpm": 999_999})),
    ("qualified", with_statements(qualification=QUALIFICATION | {"speedupPpm": None})),
    ("advisories-consulted", with_statements(vulnerabilities=None)),
    (
        "advisories-fresh",
        with_statements(
            vulnerabilities=sample_vulnerabilities(
                GOOD.manifest.digest, date="2026-01-01T00:00:00Z"
            ).to_json()
        ),
    ),
    (
        "no-known-vulnerability",
        with_statements(
            vulnerabilities=sample_vulnerabilities(
                GOOD.manifest.digest,
                Vulnerability("CVE-2", Severity.HIGH, Status.AFFECTED, "vendor", "commit x"),
            ).to_json()
        ),
    ),
    (
        "vex-authorised",
        with_statements(
            vulnerabilities=replace(
                sample_vulnerabilities(GOOD.manifest.digest),
                ignored=(IgnoredVex("CVE-2", "mallory@example.org"),),
            ).to_json()
        ),
    ),
    ("already-in-image", with_statements(images=[{"name": "v", "found": 3, "of": 3}])),
]


def outcome(evidence: Evidence, rule: str, policy: Policy | None = None) -> Outcome:
    """Return what one rule says."""
    decision = evaluate(evidence, policy or STRICTEST, now=NOW)
    return next(result.outcome for result in decision.results if result.rule == rule)


BASE = builtin_profile("approved-algorithms")
STRICTEST = replace(
    BASE,
    rules=dict.fromkeys(RULES, Level.DENY),
    parameters=replace(BASE.parameters, builds_origins=(GOOD.kernel.origin,)),
)


@pytest.mark.parametrize("rule", RULES)
def test_good_evidence_passes_every_rule(rule: str) -> None:
    assert outcome(GOOD, rule) is Outcome.PASS


@pytest.mark.parametrize("profile", PROFILES)
def test_good_evidence_is_allowed_by_every_profile(profile: str) -> None:
    decision = evaluate(GOOD, builtin_profile(profile), now=NOW)
    assert decision.allowed
    assert not decision.warnings


@pytest.mark.parametrize(("rule", "evidence"), SPOILED)
def test_spoiled_evidence_is_denied_by_the_rule_that_is_about_it(
    rule: str, evidence: Evidence
) -> None:
    decision = evaluate(evidence, STRICTEST, now=NOW)
    result = next(result for result in decision.results if result.rule == rule)
    assert result.outcome is Outcome.DENY
    assert not result.seen.startswith("the rule failed")
    assert result.hint == RULES[rule].fix
    assert not decision.allowed


PARAMETERS = [
    ("repository-allowed", Parameters(repositories_deny=("kernels-*/*",))),
    ("repository-allowed", Parameters(repositories_allow=("other/*",))),
    ("origin-allowed", Parameters(origins_allow=("https://other.example.org",))),
    ("not-denied", Parameters(digests_deny=(str(GOOD.manifest.digest),))),
    ("not-denied", Parameters(digests_deny=(str(GOOD.manifest.files[0].digest),))),
    ("backend-allowed", Parameters(backends_allow=("rocm",))),
    ("source-allowed", Parameters(sources_allow=("https://gitlab.example.org/*",))),
    ("licence-allowed", Parameters(licences_deny=("apache-2.0",))),
    ("provenance-present", Parameters(builders_allow=("0.9.*",))),
    ("scanner-allowed", Parameters(scanners_allow=("kgate-scanner/0.9.*",))),
    ("rebuilt-here", Parameters()),
    ("rebuilt-here", Parameters(builds_origins=("dir:ours",))),
    ("qualified", Parameters(qualification_min_speedup=141)),
]


@pytest.mark.parametrize(("rule", "parameters"), PARAMETERS)
def test_a_list_that_does_not_hold_the_value_denies(rule: str, parameters: Parameters) -> None:
    assert outcome(GOOD, rule, Policy("p", {rule: Level.DENY}, parameters)) is Outcome.DENY


ALLOWED = [
    ("repository-allowed", Parameters(repositories_allow=("kernels-community/*",))),
    ("origin-allowed", Parameters(origins_allow=("https://hub.example.org",))),
    ("backend-allowed", Parameters(backends_allow=("cuda",))),
    ("source-allowed", Parameters(sources_allow=("https://github.com/*",))),
    ("licence-allowed", Parameters(licences_allow=("apache-2.0",))),
    ("provenance-present", Parameters(builders_allow=("0.17.*",))),
    ("scanner-allowed", Parameters(scanners_allow=("kgate-scanner/0.1.*",))),
    ("rebuilt-here", Parameters(builds_origins=("dir:ours", "https://hub.example.org"))),
    ("qualified", Parameters(qualification_min_speedup=140)),
]


@pytest.mark.parametrize(("rule", "parameters"), ALLOWED)
def test_a_list_that_holds_the_value_passes(rule: str, parameters: Parameters) -> None:
    assert outcome(GOOD, rule, Policy("p", {rule: Level.DENY}, parameters)) is Outcome.PASS


def test_a_source_that_is_not_named_is_not_on_a_list() -> None:
    policy = Policy("p", {"source-allowed": Level.DENY}, Parameters(sources_allow=("*",)))
    assert outcome(with_metadata(source=None), "source-allowed", policy) is Outcome.DENY


def test_a_fleet_that_is_covered_passes() -> None:
    assert outcome(targets(CUDA), "targets-covered") is Outcome.PASS


@pytest.mark.parametrize(
    "image", [{"name": "v", "found": 2, "of": 3}, {"name": "v", "found": 0, "of": 0}]
)
def test_a_pin_that_is_not_wholly_in_the_image_stays(image: dict[str, Any]) -> None:
    assert outcome(with_statements(images=[image]), "already-in-image") is Outcome.PASS


@pytest.mark.parametrize("profile", PROFILES)
def test_what_an_image_has_too_is_a_warning_and_optional_rules_wait(profile: str) -> None:
    double = with_statements(images=[{"name": "v", "found": 3, "of": 3}], qualification=None)
    decision = evaluate(double, builtin_profile(profile), now=NOW)
    assert decision.allowed
    assert [item.rule for item in decision.warnings] == ["already-in-image"]
    assert builtin_profile(profile).rules["rebuilt-here"] is Level.OFF


def test_how_old_a_scan_may_be_is_the_policys_choice() -> None:
    parameters = Parameters(scans_max_days=1)
    day_old = Policy("p", {"scanned-recently": Level.DENY}, parameters)
    assert outcome(GOOD, "scanned-recently", day_old) is Outcome.PASS
    older = with_import(scannedAt="2026-11-20T11:59:59Z")
    assert outcome(older, "scanned-recently", day_old) is Outcome.DENY


def test_the_age_of_a_scan_is_not_guessed_without_a_clock() -> None:
    answer = RULES["scanned-recently"].check(GOOD, Parameters())
    assert answer.outcome is Outcome.DENY


def test_findings_between_the_thresholds_warn() -> None:
    seen = with_findings(finding("KG-ANY-001", Severity.MEDIUM))
    assert outcome(seen, "severity-threshold") is Outcome.WARN


def test_a_dirty_build_warns_in_dev_and_is_denied_in_production() -> None:
    evidence = dirty("kernel")
    assert outcome(evidence, "no-dirty-build", builtin_profile("dev")) is Outcome.WARN
    assert outcome(evidence, "no-dirty-build", builtin_profile("production")) is Outcome.DENY


def test_stored_evidence_can_be_asked_about_without_a_pin() -> None:
    assert outcome(replace(GOOD, asked={}), "asked-for") is Outcome.PASS


def test_dependencies_that_are_locked_to_commits_pass() -> None:
    evidence = with_metadata(kernel_depends=[{"repo-id": "a/b", "version": 1}])
    locked = replace(evidence, imported=evidence.imported | {"depends": [f"a/b@{COMMIT}"]})
    assert outcome(locked, "dependencies-pinned") is Outcome.PASS


def test_files_recorded_with_their_path_in_the_repository_count() -> None:
    files = [
        item | {"path": f"build/{GOOD.kernel.variant}/{item['path']}"}
        for item in GOOD.imported["files"]
    ]
    assert outcome(with_import(files=files), "bytes-verified") is Outcome.PASS


def test_files_that_upstream_names_by_sha256_need_no_list() -> None:
    files = [item | {"lfs": True} for item in GOOD.imported["files"]]
    evidence = replace(with_metadata(digest=None), imported=GOOD.imported | {"files": files})
    assert outcome(evidence, "approved-digests") is Outcome.PASS


def test_many_findings_are_named_in_part_and_counted() -> None:
    many = [finding("KG-FILE-012", path=f"{index}.pkl") for index in range(9)]
    decision = evaluate(with_findings(*many), builtin_profile("production"), now=NOW)
    seen = next(result.seen for result in decision.results if result.rule == "only-kernel-files")
    assert seen.endswith("and 6 more")


def test_an_id_used_twice_is_refused() -> None:
    first, second = list(RULES.values())[:2]
    with pytest.raises(Exception, match="used twice"):
        merge([[first], [replace(second, id=first.id)]])


def test_an_id_that_is_no_slug_is_refused() -> None:
    with pytest.raises(Exception, match="not a rule id"):
        replace(RULES["no-bytecode"], id="No Bytecode")


def test_the_library_is_named_with_its_finding() -> None:
    decision = evaluate(with_findings(finding("KG-ELF-001")), builtin_profile("dev"), now=NOW)
    assert LIBRARY in decision.denials[0].seen

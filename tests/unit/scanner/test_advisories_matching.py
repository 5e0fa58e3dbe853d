from __future__ import annotations

from typing import Any

import pytest

from kgate_core.digest import Digest
from kgate_core.errors import InvalidInput
from kgate_core.evidence import Severity
from kgate_core.vulnerabilities import Status, VulnerabilityReport
from kgate_scanner.advisories.matching import AUTHOR
from tests.feedkit import (
    BUILD_ID,
    COMMIT,
    IMAGE,
    LIBRARY,
    LIBRARY_TEXT,
    MANIFEST,
    OTHER,
    REPO,
    VARIANT,
    VEX_AUTHOR,
    csaf,
    matched,
    openvex,
    osv,
    own,
    report,
)


def only(found: VulnerabilityReport) -> Any:
    assert len(found.found) == 1, found.found
    return found.found[0]


@pytest.mark.parametrize(
    ("part", "places"),
    [
        ({"commits": [COMMIT]}, ()),
        ({"files": [str(LIBRARY)]}, ("_relu.so",)),
        ({"images": [str(IMAGE)]}, ("_relu.so",)),
        ({"manifests": [str(MANIFEST)]}, ()),
        ({"buildIds": [BUILD_ID]}, ("_relu.so",)),
        ({"toolkits": [{"name": "cuda", "introduced": "12.0", "fixed": "12.9"}]}, ("_relu.so",)),
    ],
)
def test_kgates_own_records_match_by_what_they_name(
    part: dict[str, Any], places: tuple[str, ...]
) -> None:
    found = only(matched(osv(affected=[own(**part)])))

    assert (found.status, found.places) == (Status.AFFECTED, places)


@pytest.mark.parametrize(
    "part",
    [
        {"commits": [OTHER]},
        {"files": [str(Digest.of(b"x"))]},
        {"images": [str(LIBRARY)]},
        {"buildIds": ["cd" * 20]},
        {"toolkits": [{"name": "cuda", "introduced": "12.9"}]},
        {"toolkits": [{"name": "rocm", "introduced": "1"}]},
    ],
)
def test_another_commit_digest_or_release_does_not_match(part: dict[str, Any]) -> None:
    assert matched(osv(affected=[own(**part)])).found == ()


@pytest.mark.parametrize(
    "part",
    [
        {"image": [str(IMAGE)]},
        {"images": str(IMAGE)},
        {"images": ["sha1:00"]},
        {"buildIds": ["NOT HEX!"]},
        {"commits": ["main"]},
        {"toolkits": [{"name": "cuda", "introduced": "twelve"}]},
        {"toolkits": [{"name": "vulkan", "fixed": "1"}]},
        {"toolkits": {}},
    ],
)
def test_a_malformed_part_of_kgates_own_is_refused(part: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        matched(osv(affected=[own(**part)]))


def test_all_commits_of_a_repository_match_a_range_without_an_end() -> None:
    affected = {
        "package": {"ecosystem": "kgate", "name": REPO.title()},
        "ranges": [{"type": "GIT", "events": [{"introduced": "0"}]}],
    }

    assert only(matched(osv(affected=[affected]))).status is Status.AFFECTED


def test_between_two_commits_nobody_knows_offline() -> None:
    ranges = [{"type": "GIT", "events": [{"introduced": "0"}, {"fixed": OTHER}]}]
    affected = {"package": {"purl": f"pkg:huggingface/{REPO}"}, "ranges": ranges}

    assert only(matched(osv(affected=[affected]))).status is Status.UNKNOWN
    ranges[0]["events"] = [{"introduced": "0"}, {"fixed": COMMIT}]
    assert matched(osv(affected=[affected])).found == ()
    ranges[0]["events"] = [{"introduced": COMMIT}, {"fixed": OTHER}]
    assert only(matched(osv(affected=[affected]))).status is Status.AFFECTED


def test_a_withdrawn_record_says_nothing() -> None:
    affected = [own(files=[str(LIBRARY)])]

    assert matched(osv(affected=affected, withdrawn="2026-10-02T00:00:00Z")).found == ()


def test_a_shipped_library_matches_by_its_package() -> None:
    affected = {
        "package": {"ecosystem": "PyPI", "name": "nvidia_cublas-cu12"},
        "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "12.9"}]}],
    }
    scan = report(ships=["lib/libcublas.so.12.8.3"])
    newer = report(ships=["lib/libcublas.so.12.9.1"])
    untold = report(ships=["lib/libcublas.so.12"])
    needed = report(needed=["libcublas.so.12"])

    assert only(matched(osv(affected=[affected]), scan=scan)).status is Status.AFFECTED
    assert matched(osv(affected=[affected]), scan=newer).found == ()
    assert only(matched(osv(affected=[affected]), scan=untold)).status is Status.UNKNOWN
    # Whose version the platform brings is the platform's affair.
    assert matched(osv(affected=[affected]), scan=needed).found == ()


def test_a_toolkit_advisory_about_tools_only_is_set_aside_by_name() -> None:
    found = matched(csaf())
    entry = only(found)

    assert entry.status is Status.NOT_AFFECTED
    assert entry.justification == "vulnerable_code_not_present"
    assert entry.author == AUTHOR
    assert "nvdisasm" in entry.statement
    assert found.suppressed == (entry,)
    assert found.counting == ()


@pytest.mark.parametrize(
    ("text", "needed", "expected"),
    [
        ("CUDA Toolkit contains a vulnerability.", (), Status.AFFECTED),
        (LIBRARY_TEXT, (), Status.UNKNOWN),
        (LIBRARY_TEXT, ("libnvjpeg.so.12",), Status.AFFECTED),
        ("A fault in nvcc leads to wrongly generated device code.", (), Status.AFFECTED),
        ("A flaw in cuobjdump and in the nvJPEG library.", (), Status.UNKNOWN),
    ],
)
def test_a_toolkit_advisory_about_more_than_tools_counts(
    text: str, needed: tuple[str, ...], expected: Status
) -> None:
    assert only(matched(csaf(text), scan=report(needed=needed))).status is expected


def test_prose_that_is_not_understood_is_unknown_never_not_affected() -> None:
    text = "CUDA Toolkit contains a vulnerability."
    odd = csaf(text, "CUDA Toolkit R12 branch before the spring release")

    found = only(matched(odd))

    assert found.status is Status.UNKNOWN
    assert "spring release" in found.seen


def test_a_release_without_its_update_is_unknown_against_an_update() -> None:
    text = "CUDA Toolkit contains a vulnerability."
    update = csaf(text, "All versions prior to CUDA Toolkit 12.8 Update 1")

    assert only(matched(update)).status is Status.UNKNOWN
    assert only(matched(update, scan=report(toolkit="12.7"))).status is Status.AFFECTED
    assert matched(update, scan=report(toolkit="12.9")).found == ()
    assert only(matched(update, scan=report(toolkit=""))).status is Status.UNKNOWN


def test_a_product_that_is_in_no_kernel_is_passed_over() -> None:
    driver = csaf("A flaw.", "All versions prior to 580.65", product="GPU Display Driver")

    assert matched(driver).found == ()


def test_vex_counts_only_from_authors_that_are_named() -> None:
    advisory = osv(affected=[own(commits=[COMMIT])])

    stranger = matched(advisory, openvex())
    believed = matched(advisory, openvex(), authors=[VEX_AUTHOR])

    assert only(stranger).status is Status.AFFECTED
    assert [item.author for item in stranger.ignored] == [VEX_AUTHOR]
    assert only(believed).status is Status.NOT_AFFECTED
    assert only(believed).author == VEX_AUTHOR
    assert believed.ignored == ()


@pytest.mark.parametrize(
    ("product", "is_about_it"),
    [
        (f"pkg:huggingface/{REPO}@{COMMIT}", True),
        (f"pkg:huggingface/{REPO}@{OTHER}", False),
        ("pkg:huggingface/kernels-community/gelu", False),
        (f"pkg:huggingface/{REPO}@{COMMIT}#build/{VARIANT}", True),
        (f"pkg:huggingface/{REPO}@{COMMIT}#build/torch-cpu", False),
        (f"pkg:huggingface/{REPO}@{COMMIT}?repository_url=https://example.com", False),
        (str(MANIFEST), True),
        (str(LIBRARY), False),  # the whole commit is affected, not this one file
        (str(Digest.of(b"x")), False),
        ("pkg:pypi/torch", False),
        ("anything", False),
    ],
)
def test_a_vex_statement_covers_its_own_product_only(product: str, is_about_it: bool) -> None:  # noqa: FBT001  # a table
    advisory = osv(affected=[own(commits=[COMMIT])])

    found = only(matched(advisory, openvex(product=product), authors=[VEX_AUTHOR]))

    assert (found.status is Status.NOT_AFFECTED) is is_about_it


def test_a_statement_about_a_file_covers_what_is_in_that_file_only() -> None:
    advisory = osv(affected=[own(images=[str(IMAGE)])])

    found = matched(advisory, openvex(product=str(LIBRARY)), authors=[VEX_AUTHOR])

    assert only(found).status is Status.NOT_AFFECTED


def test_the_newest_statement_of_an_author_counts_and_the_worst_between_authors() -> None:
    advisory = osv(affected=[own(commits=[COMMIT])])
    later = openvex(status="affected", when="2026-10-05T00:00:00Z")
    other = openvex(author="b@example.com", when="2026-10-09T00:00:00Z")

    found = matched(advisory, openvex(), later, authors=[VEX_AUTHOR])
    both = matched(advisory, later, other, authors=[VEX_AUTHOR, "b@example.com"])
    back = matched(advisory, later, openvex(when="2026-10-06T00:00:00Z"), authors=[VEX_AUTHOR])
    looking = matched(
        advisory,
        openvex(),
        openvex(author="b@example.com", status="under_investigation"),
        authors=[VEX_AUTHOR, "b@example.com"],
    )

    assert only(found).status is Status.AFFECTED
    assert only(both).status is Status.AFFECTED
    assert only(back).status is Status.NOT_AFFECTED
    assert only(looking).status is Status.AFFECTED


def test_an_authors_affected_overrules_the_rule_about_tools() -> None:
    vex = openvex("CVE-2026-0001", status="affected")

    assert only(matched(csaf(), vex, authors=[VEX_AUTHOR])).status is Status.AFFECTED


def test_cyclonedx_vex_counts_with_its_justification() -> None:
    advisory = osv(affected=[own(commits=[COMMIT])])
    vex = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "metadata": {
            "timestamp": "2026-10-02T00:00:00Z",
            "authors": [{"name": "Security", "email": VEX_AUTHOR}],
            "component": {"bom-ref": "k", "name": "relu", "purl": f"pkg:huggingface/{REPO}"},
        },
        "vulnerabilities": [
            {
                "id": "KGATE-2026-0001",
                "analysis": {"state": "not_affected", "justification": "code_not_reachable"},
                "affects": [{"ref": "k"}],
            }
        ],
    }

    found = only(matched(advisory, vex, authors=[VEX_AUTHOR]))

    assert (found.status, found.justification) == (Status.NOT_AFFECTED, "code_not_reachable")


@pytest.mark.parametrize(
    "broken",
    [
        openvex(justification="because"),
        openvex(status="fine"),
        openvex(author=""),
        openvex(when="yesterday"),
        openvex(product=""),
        openvex(name=""),
        csaf(modified="soon"),
        osv(modified="soon"),
        {**csaf(), "document": {"csaf_version": "1.2"}},
    ],
)
def test_a_malformed_document_is_refused(broken: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        matched(broken)


def test_a_report_reads_back_and_the_worst_stands_first() -> None:
    low = osv("A-1", database_specific={"severity": "LOW"}, affected=[own(commits=[COMMIT])])
    silent = osv("A-2", affected=[own(commits=[COMMIT])])

    found = matched(low, silent, csaf(), openvex("A-1"))

    assert VulnerabilityReport.from_bytes(found.to_bytes()) == found
    assert [item.id for item in found.counting] == ["A-2", "A-1"]
    assert found.counting[0].severity is Severity.HIGH  # silence is no comfort


def test_a_report_in_which_nobody_set_something_aside_is_refused() -> None:
    found = matched(csaf())
    forged = found.to_bytes().replace(f'"author":"{AUTHOR}",'.encode(), b"")

    with pytest.raises(InvalidInput, match="set aside by nobody"):
        VulnerabilityReport.from_bytes(forged)

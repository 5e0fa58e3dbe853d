"""A lane's own policy, tenants' policies beside it, and what else is known about a kernel."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from kgate_cli.main import main
from kgate_core import strictjson
from kgate_core.digest import Digest
from kgate_core.errors import InvalidInput, TrustError
from kgate_core.evidence import Outcome, ScanReport
from kgate_core.kernel import KernelId
from kgate_mirror_server.bundle.contents import _read_policy
from kgate_mirror_server.examples import default_cache
from kgate_mirror_server.examples.build import build_gelu_and_mul
from kgate_mirror_server.ingest.review import inventory_evidence
from kgate_mirror_server.ingest.statements import statements
from kgate_mirror_server.ports import EvidenceKind, IntakeState
from kgate_mirror_server.rulebook import question
from kgate_mirror_server.settings.site import load_config
from kgate_mirror_server.trust.update import apply_update, plan_update
from kgate_policy.question import Question
from kgate_scanner.imagelist import read_image_list, write_image_list
from tests import repos
from tests.ingestkit import make_site, now

if TYPE_CHECKING:
    from pathlib import Path

    from tests.ingestkit import Site

REPO = "kernels-community/gelu-and-mul"
LANES = """\
lanes:
  strictest: {profile: production}
  dev: {policy: policy/dev.yaml}
"""
DEV = """\
apiVersion: kgate.dev/v1
kind: Policy
name: for-dev
extends: dev
---
apiVersion: kgate.dev/v1
kind: KernelPolicy
metadata: {name: not-too-many}
spec:
  validations:
    - expression: mirror.kernels < 100 && mirror.lane == 'dev' && mirror.site == 'https://kgate.test'
"""
TENANT = """\
apiVersion: kgate.dev/v1
kind: KernelPolicy
metadata: {name: only-mit}
spec:
  validations:
    - expression: kernel.metadata.license == 'MIT'
"""


@pytest.fixture
def site(tmp_path: Path) -> Site:
    built = build_gelu_and_mul(default_cache(os.environ), native=False, cuda=False)
    repos.copy_repo(built, tmp_path / "built" / REPO)
    made = make_site(tmp_path / "site", str(tmp_path / "built"))
    (made.folder / "policy" / "dev.yaml").write_text(DEV)
    return made


def settle(site: Site, extra: str, *pins: str) -> None:
    """Add settings and pins, and let a person sign what follows from them."""
    with site.config_path.open("a") as file:
        file.write(extra)
    site.pin(*pins)
    with site.mirror() as mirror:
        lanes, _ = plan_update(mirror, now(), only=False)
        apply_update(mirror, lanes, now())


def ask(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, Any]:
    code = main(["policy", *words, "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_each_lane_is_decided_by_its_own_policy_and_the_trust_metadata_agree(site: Site) -> None:
    settle(
        site,
        LANES,
        f"repo: {REPO}, version: 1, lane: strictest",
        f"repo: {REPO}, version: 1, lane: dev",
        f"repo: {REPO}, version: 1",
    )
    result = site.sync()
    said = {item.lane: item.variants[0] for item in result.kernels}
    assert {lane: item.decision.policy for lane, item in said.items() if item.decision} == {
        "strictest": "production",
        "dev": "for-dev",
        "experimental": "baseline",
    }
    assert not said["strictest"].allowed
    assert said["dev"].allowed
    with site.mirror() as mirror:
        trusted = mirror.trusted(now())
        for lane, item in said.items():
            assert item.decision is not None
            assert trusted.lanes[lane].policies == {item.decision.policy_digest}
    again = site.sync()
    assert not any(item.fresh for item in again.kernels if item.lane != "strictest")


def test_a_lanes_policy_that_nobody_signed_stops_the_sync(site: Site) -> None:
    settle(site, LANES, f"repo: {REPO}, version: 1, lane: dev")
    (site.folder / "policy" / "dev.yaml").write_text(DEV.replace("< 100", "< 99"))
    with pytest.raises(TrustError, match="for-dev"):
        site.sync()


@pytest.mark.parametrize(
    ("lane", "says"),
    [
        ("{profile: producton}", "there is no 'producton'"),
        ("{profile: dev, policy: policy/dev.yaml}", "not both"),
    ],
)
def test_a_lane_with_an_impossible_policy_is_refused(site: Site, lane: str, says: str) -> None:
    with site.config_path.open("a") as file:
        file.write(f"lanes:\n  dev: {lane}\n")
    with pytest.raises(InvalidInput, match=says):
        load_config(site.config_path)


def test_a_tenant_tightens_without_a_root_key_and_both_answers_are_shown(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    (site.folder / "policy" / "team-a.yaml").write_text(TENANT)
    tenants = "tenants:\n  - {name: team-a, policy: policy/team-a.yaml, repos: ['kernels-*/*']}\n"
    settle(site, "", f"repo: {REPO}, version: 1")
    assert site.sync().kernels[0].variants[0].allowed
    with site.config_path.open("a") as file:
        file.write(tenants)
    (variant,) = site.sync().kernels[0].variants
    assert [item.rule for item in variant.reasons] == ["tenant/team-a/only-mit"]
    assert variant.decision is not None
    rules = {item.rule: item for item in variant.decision.results}
    assert rules["licence-allowed"].outcome is Outcome.PASS
    assert "1 answers of the policy team-a (sha256:" in rules["tenant/team-a"].seen
    assert variant.decision.policy == "baseline"
    saved = site.folder / "saved"
    code, first = ask(capsys, "eval", "--save", str(saved), "--config", str(site.config_path))
    assert code == 1
    assert ask(capsys, "eval", "--evidence", str(saved)) == (1, first)
    config = str(site.config_path)
    code, said = ask(capsys, "explain", REPO, "--rule", "tenant/team-a", "--config", config)
    seen = {rule["rule"]: rule["outcome"] for rule in said["explanations"][0]["rules"]}
    assert seen == {"tenant/team-a": "pass", "tenant/team-a/only-mit": "deny"}


def test_a_tenant_with_other_repositories_is_not_asked(site: Site) -> None:
    (site.folder / "policy" / "team-a.yaml").write_text(TENANT)
    tenants = "tenants:\n  - {name: team-a, policy: policy/team-a.yaml, repos: ['acme/*']}\n"
    settle(site, tenants, f"repo: {REPO}, version: 1")
    (variant,) = site.sync().kernels[0].variants
    assert variant.decision is not None
    assert not [item for item in variant.decision.results if item.rule.startswith("tenant/")]


def test_two_tenants_of_one_name_are_refused(site: Site) -> None:
    one = "  - {name: team-a, policy: policy/team-a.yaml, repos: ['acme/*']}\n"
    with site.config_path.open("a") as file:
        file.write(f"tenants:\n{one}{one}")
    with pytest.raises(InvalidInput, match="two tenants 'team-a'"):
        load_config(site.config_path)


def test_the_mirrors_own_facts_are_kept_with_the_question(site: Site) -> None:
    settle(site, LANES, f"repo: {REPO}, version: 1, lane: dev")
    site.sync()
    with site.mirror() as mirror:
        (evidence,) = inventory_evidence(mirror)
        asked = question(mirror, evidence, now())
    facts = asked.surroundings["mirror"]
    assert (facts["kernels"], facts["variants"], facts["denied"]) == (1, 1, 0)
    assert facts["changedAt"] <= now().strftime("%Y-%m-%dT%H:%M:%SZ")
    again = Question.parse(asked.to_bytes())
    assert again == replace(asked, policy=again.policy, evidence=again.evidence)
    assert again.decide() == asked.decide()


QUALIFIED = "rules: {qualified: deny, require-upstream-signature: warn}\n"


def test_a_submitted_result_opens_a_lane_that_asks_for_it(site: Site) -> None:
    asking = DEV.replace("extends: dev\n", f"extends: dev\n{QUALIFIED}")
    (site.folder / "policy" / "dev.yaml").write_text(asking)
    settle(site, LANES, f"repo: {REPO}, version: 1, lane: dev")
    (variant,) = site.sync().kernels[0].variants
    assert [item.rule for item in variant.reasons] == ["qualified"]
    lock = site.lock().kernels[0]
    kernel = KernelId(lock.origin, lock.repo_type, lock.repo, lock.commit, variant.variant)
    result = {
        "schema": "kgate.dev/qualification/v1",
        "manifest": str(variant.manifest),
        "submitter": {"name": "lab@example.org"},
        "finishedAt": "2026-11-20T00:00:00Z",
        "passed": True,
        "speedupPpm": 1_200_000,
        "gpu": "NVIDIA H200",
    }
    with site.mirror() as mirror:
        found = dict(mirror.room.found(kernel, "dev") or {})
        found[EvidenceKind.QUALIFICATION] = mirror.room.keep(strictjson.dumps(result))
        assert variant.manifest is not None
        mirror.room.remember(kernel, "dev", variant.manifest, found, IntakeState.SCANNED, now())
    (variant,) = site.sync().kernels[0].variants
    assert variant.allowed
    assert variant.decision is not None
    seen = next(item.seen for item in variant.decision.results if item.rule == "qualified")
    assert seen == "120 % of the reference's speed on NVIDIA H200, submitted by lab@example.org"


def test_a_serving_image_is_compared_by_device_image(site: Site) -> None:
    images = [{"digest": str(Digest.of(name))} for name in (b"one", b"two")]
    scan = ScanReport("s", Digest.of(b""), {"a.so": {"device": {"images": images}}}, {}, ())
    other = replace(scan, files={"b.so": {"device": {"images": [*images[:1], {"digest": ""}]}}})
    (site.folder / "images").mkdir()
    (site.folder / "images" / "all.json").write_bytes(write_image_list([other, scan]))
    (site.folder / "images" / "half.json").write_bytes(write_image_list([other]))
    with site.config_path.open("a") as file:
        file.write(
            "targets:\n"
            "  - {torch: '2.13', device_images: images/all.json}\n"
            "  - {torch: '2.12', device_images: images/half.json}\n"
        )
    with site.mirror() as mirror:
        assert statements(mirror, {}, scan) == {
            "images": [
                {"name": "images/all.json", "found": 2, "of": 2},
                {"name": "images/half.json", "found": 1, "of": 2},
            ]
        }
    (site.folder / "images" / "half.json").unlink()
    with site.mirror() as mirror, pytest.raises(InvalidInput, match="cannot be read"):
        statements(mirror, {}, scan)


def test_a_list_of_device_images_comes_from_a_scan_and_from_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "a.txt").write_text("nothing")
    target = tmp_path / "images" / "list.json"
    assert main(["scan", str(tmp_path / "empty"), "--device-images", str(target)]) == 0
    assert read_image_list(target.read_bytes()) == frozenset()
    with pytest.raises(InvalidInput, match="unknown schema"):
        read_image_list(b'{"schema": "kgate.dev/scan/v1", "images": []}')


def test_a_bundle_carries_the_text_of_every_lanes_policy(site: Site) -> None:
    with site.config_path.open("a") as file:
        file.write(LANES)
    with site.mirror() as mirror:
        text = _read_policy(mirror).decode()
        profile = mirror.rules.of("strictest")
    assert "name: baseline" in text
    assert "name: for-dev" in text
    # A built-in profile is in no file: what decides travels as the JSON that its digest is of.
    (line,) = [line for line in text.splitlines() if line.startswith("{")]
    assert "# lane strictest: the built-in profile production\n" in text
    assert Digest.of(line.encode()) == profile.digest
    assert json.loads(line)["name"] == "production"

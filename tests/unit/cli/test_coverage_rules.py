"""Rules about what surrounds a variant, from kgate.yaml and upstream to the decision."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from kgate_mirror_server.examples import default_cache
from kgate_mirror_server.examples.build import build_gelu_and_mul
from kgate_mirror_server.ingest.resolve import read_lock
from kgate_mirror_server.ingest.review import inventory_evidence
from kgate_mirror_server.ingest.sync import new_source, sync
from tests import repos
from tests.ingestkit import make_site, now

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from kgate_mirror_server.admit import KernelResult
    from tests.ingestkit import Site

REPO = "kernels-community/gelu-and-mul"


@pytest.fixture
def site(tmp_path: Path) -> Site:
    built = build_gelu_and_mul(default_cache(os.environ), native=False, cuda=False)
    repos.copy_repo(built, tmp_path / "built" / REPO)
    made = make_site(tmp_path / "site", str(tmp_path / "built"))
    made.pin(f"repo: {REPO}, version: 1")
    made.lock()
    return made


def sync_at(site: Site, moment: datetime) -> KernelResult:
    lock = read_lock(site.folder)
    assert lock is not None
    with site.mirror() as mirror:
        result = sync(
            mirror, lock, new_source(mirror, lambda _count: None), moment, tell=lambda _text: None
        )
    (kernel,) = result.kernels
    return kernel


def warned(kernel: KernelResult) -> dict[str, str]:
    decision = kernel.variants[0].decision
    assert decision is not None
    return {item.rule: item.seen for item in decision.warnings}


def test_a_card_upstream_is_evidence_and_a_missing_one_is_said(site: Site) -> None:
    card = site.folder.parent / "built" / REPO / "README.md"
    card.unlink(missing_ok=True)
    site.lock(upgrade=True)
    assert "no README.md" in warned(sync_at(site, now()))["card-complete"]
    card.write_text("---\nlicense: apache-2.0\n---\n# Usage\n", encoding="utf-8")
    site.lock(upgrade=True)
    assert "card-complete" not in warned(sync_at(site, now()))


def test_an_old_scan_is_made_anew(site: Site) -> None:
    first = now()
    assert sync_at(site, first).fresh
    assert not sync_at(site, first).fresh
    later = first + timedelta(days=91)
    with site.mirror() as mirror:
        (evidence,) = inventory_evidence(mirror)
        rules = {item.rule for item in mirror.decide(evidence, later).warnings}
    assert "scanned-recently" in rules
    kernel = sync_at(site, later)
    assert kernel.fresh
    assert "scanned-recently" not in warned(kernel)


def test_a_target_without_a_variant_is_named_in_sync_and_in_a_review(site: Site) -> None:
    text = site.config_path.read_text(encoding="utf-8")
    fleet = "targets: [{torch: '2.13'}, {torch: '2.13', cuda: '13.0', gpus: [sm_90]}]\n"
    site.config_path.write_text(text + fleet, encoding="utf-8")
    seen = warned(sync_at(site, now()))["targets-covered"]
    assert seen == "no pinned variant loads on (torch 2.13, cuda 13.0, x86_64, sm_90)"
    with site.mirror() as mirror:
        (evidence,) = inventory_evidence(mirror, REPO)
        decision = mirror.decide(evidence, now())
    assert seen in {item.seen for item in decision.warnings}
    site.config_path.write_text(f"{text}targets: [{{torch: '2.13'}}]\n", encoding="utf-8")
    assert "targets-covered" not in warned(sync_at(site, now()))

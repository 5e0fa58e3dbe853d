"""A sync with nothing to do: what it reads, and when it looks at everything again after all."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from kgate_mirror_server.app import Mirror
from kgate_mirror_server.examples.metadata import digest_of
from kgate_mirror_server.ingest.evidence import EvidenceRoom
from tests.ingestkit import Site, make_site

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PINS = 4
VARIANTS = ("torch29-cxx11-cpu-x86_64-linux", "torch29-cxx11-cpu-aarch64-linux")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """Return a site with a few small kernels, admitted."""
    site = make_site(tmp_path / "site", "./built")
    for number in range(PINS):
        for name in VARIANTS:
            build(site.folder / "built" / "acme" / f"kernel{number}" / "build" / name, number)
    site.pin(*(f"repo: acme/kernel{number}, version: 1" for number in range(PINS)))
    result = site.sync()
    assert result.approved == PINS * len(VARIANTS), result
    return site


def build(variant: Path, number: int) -> None:
    variant.mkdir(parents=True)
    (variant / "__init__.py").write_text(f"ANSWER = {number}\n", encoding="utf-8")
    document: dict[str, object] = {
        "name": f"kernel{number}",
        "id": f"_k{number}_{variant.name[-5:]}",
    }
    document |= {
        "version": 1,
        "license": "Apache-2.0",
        "python-depends": [],
        "backend": {"type": "cpu"},
    }
    path = variant / "metadata.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    path.write_text(json.dumps({**document, "digest": digest_of(variant)}), encoding="utf-8")


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count what is expensive."""
    counts: Counter[str] = Counter()

    def count(owner: type, name: str) -> None:
        original: Callable[..., object] = getattr(owner, name)

        def wrapper(*arguments: object, **named: object) -> object:
            counts[name] += 1
            return original(*arguments, **named)

        monkeypatch.setattr(owner, name, wrapper)

    for name in ("scan", "decide", "check_publisher", "trusted"):
        count(Mirror, name)
    for name in ("read", "keep", "remember"):
        count(EvidenceRoom, name)
    return counts


def test_a_sync_with_nothing_to_do_reads_no_scan_and_asks_no_policy(
    site: Site, counted: Counter[str]
) -> None:
    result = site.sync()
    assert len(result.kernels) == PINS
    assert result.approved == PINS * len(VARIANTS)
    assert not any(kernel.fresh for kernel in result.kernels)
    for name in ("scan", "decide", "check_publisher", "read", "keep", "remember"):
        assert counted[name] == 0, name
    assert counted["trusted"] < PINS  # once for the whole run, not once for each pin


def test_one_changed_kernel_is_looked_at_again_and_the_others_are_not(
    site: Site, counted: Counter[str]
) -> None:
    variant = site.folder / "built" / "acme" / "kernel2" / "build" / VARIANTS[0]
    (variant / "more.py").write_text("MORE = 1\n", encoding="utf-8")
    path = variant / "metadata.json"
    document = json.loads(path.read_bytes())
    del document["digest"]
    path.write_text(json.dumps(document), encoding="utf-8")
    path.write_text(json.dumps({**document, "digest": digest_of(variant)}), encoding="utf-8")
    site.lock(upgrade=True)
    counted.clear()
    result = site.sync()
    assert [kernel.pin.repo for kernel in result.kernels if kernel.fresh] == ["acme/kernel2"]
    assert counted["decide"] == len(VARIANTS)
    assert counted["scan"] == len(VARIANTS)


def test_another_policy_makes_a_sync_ask_about_everything_again(
    site: Site, counted: Counter[str]
) -> None:
    text = site.config_path.read_text(encoding="utf-8")
    site.config_path.write_text(f"{text}\nvalid_days: 200\n", encoding="utf-8")
    result = site.sync()
    assert not result.failures
    assert counted["decide"] == PINS * len(VARIANTS)
    assert counted["scan"] == 0

"""T02, T03, T04, T08, T10 on the way in: a spoiled repository is scanned and the policy refuses it.

The publisher's own digests are right wherever the attacker could have made them so.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from kgate_mirror_server.examples import build_gelu_and_mul, default_cache
from kgate_policy import builtin_profile, evaluate
from kgate_scanner.paths import scan_path
from tests.policykit import NOW, good_evidence
from tests.repos import SPOILED, copy_repo

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kgate_scanner.paths import Scanned


@pytest.fixture(scope="module")
def good() -> Path:
    return build_gelu_and_mul(default_cache(os.environ))


@pytest.fixture
def denials(good: Path, tmp_path: Path) -> Callable[[str], dict[str, list[str]]]:
    """Give a way to spoil a copy of the repository and decide about each of its parts."""

    def spoil(how: str) -> dict[str, list[str]]:
        repo = copy_repo(good, tmp_path / "repo")
        if how:
            SPOILED[how](repo)
        return {item.name: _denied(item) for item in scan_path(repo)}

    return spoil


def _denied(item: Scanned) -> list[str]:
    evidence = good_evidence()
    variant = item.variant or evidence.kernel.variant
    evidence = replace(
        evidence,
        kernel=replace(evidence.kernel, variant=variant),
        manifest=item.manifest,
        metadata=item.metadata,
        scan=item.report,
    )
    decision = evaluate(evidence, builtin_profile("dev"), now=NOW)
    return [f"{denial.rule}: {denial.seen}" for denial in decision.denials]


def _variants(found: dict[str, list[str]]) -> dict[str, str]:
    return {name: " ".join(said) for name, said in found.items() if name.startswith("build/")}


def test_t02_a_changed_or_extra_file_differs_from_the_publishers_digests(
    denials: Callable[[str], dict[str, list[str]]],
) -> None:
    found = _variants(denials("tampered-source"))
    assert len(found) == 3
    assert all("KG-META-010 in layers.py" in said for said in found.values())


@pytest.mark.parametrize("how", ["planted-bytecode", "sourceless-bytecode"])
def test_t03_bytecode_is_refused_although_no_digest_covers_it(
    denials: Callable[[str], dict[str, list[str]]], how: str
) -> None:
    found = _variants(denials(how))
    assert len(found) == 3
    assert all("no-bytecode" in said for said in found.values())


def test_t04_a_link_that_leads_outside_is_refused_and_not_followed(
    denials: Callable[[str], dict[str, list[str]]],
) -> None:
    found = _variants(denials("symlink-outside"))
    assert len(found) == 3
    assert all("scan-complete" in said or "KG-FILE-010" in said for said in found.values())


def test_t08_the_name_of_another_module_is_refused(
    denials: Callable[[str], dict[str, list[str]]],
) -> None:
    found = _variants(denials("stolen-module-name"))
    assert len(found) == 3
    assert all("json" in said for said in found.values())


def test_t10_a_redirect_is_refused(denials: Callable[[str], dict[str, list[str]]]) -> None:
    found = denials("redirect")
    assert any("kernel-status.toml" in said for said in found["."])


def test_the_repository_itself_is_not_refused_for_any_of_these(
    denials: Callable[[str], dict[str, list[str]]],
) -> None:
    found = _variants(denials(""))
    assert len(found) == 3
    assert {said for said in found.values() if "KG-" in said} == set()

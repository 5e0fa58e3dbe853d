"""A lane's floors, from kgate.yaml into what pods believe, by the command a person runs."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from kgate_core.digest import Digest
from kgate_core.lock import Lock
from kgate_core.ondeny import OnDeny
from kgate_core.trust import Mode
from tests.sitekit import ISLAND, Site, time_now

if TYPE_CHECKING:
    from pathlib import Path

LANES = """
lanes:
  experimental:
    mode: strict
    onDeny: {"*": fallback, acme/router: block}
    locks: {"*": [first.lock], blue: ["sha256:%s"]}
"""


@pytest.fixture
def site(tmp_path: Path) -> Site:
    site = Site.found(tmp_path / "site", ISLAND)
    (site.folder / "first.lock").write_bytes(Lock(()).to_bytes())
    return site


def _add(site: Site, text: str) -> None:
    before = site.config.read_text(encoding="utf-8")
    site.config.write_text(before + text, encoding="utf-8")


def test_floors_are_signed_by_trust_update_and_read_by_pods(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    _add(site, LANES % ("b" * 64))

    assert site.kgate("trust", "update") == 0
    said = capsys.readouterr()
    with contextlib.closing(site.mirror()) as mirror:
        lane = mirror.trusted(time_now()).lanes["experimental"]

    assert lane.mode is Mode.STRICT
    assert lane.on_deny == {"*": OnDeny.FALLBACK, "acme/router": OnDeny.BLOCK}
    first = Digest.of(Lock(()).to_bytes())
    assert lane.allowed_locks("") == {first}
    assert lane.allowed_locks("blue") == {first, Digest("b" * 64)}
    for sentence in (
        "pods at least strict, before enforce",
        "on deny of acme/router: block, before nothing signed",
        f"pool * may use the lock {first}",
    ):
        assert sentence in said.err + said.out
    assert site.kgate("trust", "update", "--dry-run") == 0
    assert "Nothing to change." in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lanes: {experimental: {mode: lax}}\n", "lanes.experimental.mode"),
        ("lanes: {experimental: {onDeny: {acme/x: perhaps}}}\n", "onDeny"),
        ("lanes: {experimental: {onDeny: {nothing: block}}}\n", "onDeny"),
        ("lanes: {experimental: {locks: {'*': [none.lock]}}}\n", "none.lock: the lock cannot be"),
    ],
)
def test_floors_that_are_none_are_named(
    site: Site, text: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _add(site, text)

    assert site.kgate("trust", "update") == 4
    assert said in capsys.readouterr().err


def test_a_lock_that_is_no_more_allowed_is_told(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    before = site.config.read_text(encoding="utf-8")
    _add(site, LANES % ("b" * 64))
    assert site.kgate("trust", "update") == 0
    capsys.readouterr()
    site.config.write_text(before + "lanes: {experimental: {locks: {}}}\n", encoding="utf-8")

    assert site.kgate("trust", "update") == 0
    assert f"pool blue may not use the lock sha256:{'b' * 64} any more" in "".join(
        capsys.readouterr()
    )

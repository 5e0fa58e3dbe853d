from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from kgate_client.store import DocumentStore
from kgate_client.trust import RETRY, TrustKeeper
from kgate_core.digest import Digest
from kgate_core.errors import NotFound, TrustError, UpstreamError
from kgate_signer.keys import FileKey
from kgate_signer.trustchanges import revoke_digest, rotate_root
from kgate_signer.trustwriter import RootKeys, TrustSet, refresh_timestamp
from tests.trustkit import NOW, TrustKit, make_trust

if TYPE_CHECKING:
    from pathlib import Path

MINUTE = timedelta(minutes=1)


class _Mirror:
    """Serves trust documents and counts what it is asked for."""

    def __init__(self, trust: TrustSet) -> None:
        self.trust_set = trust
        self.asked: list[str] = []
        self.down = False

    def trust(self, name: str) -> bytes:
        self.asked.append(name)
        if self.down:
            raise UpstreamError("the mirror is down")
        found = self.trust_set.files.get(name)
        if found is None:
            raise NotFound(name)
        return found


class _Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def kit() -> TrustKit:
    return make_trust()


def _keeper(
    kit: TrustKit,
    mirror: _Mirror | None,
    store: DocumentStore | None = None,
    clock: _Clock | None = None,
) -> TrustKeeper:
    return TrustKeeper(
        kit.pinned,
        store or DocumentStore(None),
        mirror,
        lane="experimental",
        monotonic=clock or _Clock(),
    )


def test_without_a_pinned_root_nothing_is_believed(kit: TrustKit) -> None:
    keeper = TrustKeeper(None, DocumentStore(None), _Mirror(kit.trust), lane="experimental")

    assert not keeper.pinned
    assert keeper.floor(NOW) is None
    with pytest.raises(TrustError, match="no trust root is pinned"):
        keeper.current(NOW)
    with pytest.raises(TrustError, match="no trust root is pinned"):
        keeper.refresh(NOW)


def test_the_first_use_fetches_and_the_cache_serves_the_next_process(
    kit: TrustKit, tmp_path: Path
) -> None:
    mirror = _Mirror(kit.trust)

    first = _keeper(kit, mirror, DocumentStore(tmp_path)).current(NOW)
    offline = _keeper(kit, None, DocumentStore(tmp_path)).current(NOW)

    assert first == offline
    assert mirror.asked == ["2.root.json", "targets.json", "snapshot.json", "timestamp.json"]


def test_nothing_cached_and_nobody_to_ask_is_an_error(kit: TrustKit) -> None:
    mirror = _Mirror(kit.trust)
    mirror.down = True

    with pytest.raises(TrustError, match="no trust metadata in the cache"):
        _keeper(kit, None).current(NOW)
    with pytest.raises(TrustError, match="the mirror is down"):
        _keeper(kit, mirror).current(NOW)


def test_fresh_metadata_is_not_asked_for_again(kit: TrustKit) -> None:
    mirror, clock = _Mirror(kit.trust), _Clock()
    keeper = _keeper(kit, mirror, clock=clock)
    keeper.current(NOW)
    asked = len(mirror.asked)

    clock.now += 10 * RETRY
    keeper.current(NOW + MINUTE)

    assert len(mirror.asked) == asked


def test_stale_metadata_is_refreshed_at_most_twice_a_minute(kit: TrustKit) -> None:
    mirror, clock = _Mirror(kit.trust), _Clock()
    keeper = _keeper(kit, mirror, clock=clock)
    keeper.current(NOW)
    asked = len(mirror.asked)
    later = NOW + timedelta(hours=1)

    keeper.current(later)
    assert len(mirror.asked) == asked
    clock.now += RETRY
    mirror.trust_set = refresh_timestamp(kit.trust, kit.timestamp, now=later)

    assert keeper.current(later).issued == later


def test_a_failed_refresh_keeps_what_was_there_and_says_so(kit: TrustKit) -> None:
    mirror, clock = _Mirror(kit.trust), _Clock()
    keeper = _keeper(kit, mirror, clock=clock)
    before = keeper.current(NOW)
    mirror.down = True
    clock.now += RETRY

    assert keeper.current(NOW + timedelta(hours=1)) == before
    assert keeper.problem == "the mirror is down"


def test_t30_rolled_back_documents_are_refused_in_the_process_and_across_it(
    kit: TrustKit, tmp_path: Path
) -> None:
    newer = replace(kit).changed(
        revoke_digest(kit.trust, Digest.of(b"x"), "bad", kit.offline, now=NOW)
    )
    mirror, clock = _Mirror(newer.trust), _Clock()
    keeper = _keeper(kit, mirror, DocumentStore(tmp_path), clock)
    assert keeper.current(NOW).revoked_digests

    mirror.trust_set = kit.trust
    assert keeper.refresh(NOW).revoked_digests
    assert "is older than version" in keeper.problem
    again = _keeper(kit, mirror, DocumentStore(tmp_path))
    assert again.refresh(NOW).revoked_digests


def test_t30_expired_documents_still_bound_what_may_follow(kit: TrustKit, tmp_path: Path) -> None:
    newer = kit.changed(revoke_digest(kit.trust, Digest.of(b"x"), "bad", kit.offline, now=NOW))
    _keeper(kit, _Mirror(newer.trust), DocumentStore(tmp_path)).current(NOW)
    later = NOW + timedelta(days=10)
    frozen = refresh_timestamp(kit.trust, kit.timestamp, now=later)
    frozen = refresh_timestamp(frozen, kit.timestamp, now=later)

    with pytest.raises(TrustError, match="is older than version"):
        _keeper(kit, _Mirror(frozen), DocumentStore(tmp_path)).current(later)


def test_floors_outlive_the_metadata_that_set_them(kit: TrustKit, tmp_path: Path) -> None:
    _keeper(kit, _Mirror(kit.trust), DocumentStore(tmp_path)).current(NOW)
    later = NOW + timedelta(days=3000)
    keeper = _keeper(kit, None, DocumentStore(tmp_path))

    with pytest.raises(TrustError, match="expired"):
        keeper.current(later)
    floor = keeper.floor(later)
    assert floor is not None
    assert set(floor.lanes) == {"experimental", "production"}
    assert _keeper(kit, None).floor(later) is None


def test_documents_that_nobody_signed_set_no_floor(kit: TrustKit, tmp_path: Path) -> None:
    _keeper(kit, _Mirror(kit.trust), DocumentStore(tmp_path)).current(NOW)
    (tmp_path / "trust/targets.json").write_bytes(b"{}")
    keeper = _keeper(kit, None, DocumentStore(tmp_path))

    assert keeper.floor(NOW) is None
    assert "targets.json" in keeper.problem


def test_a_pinned_root_that_is_none_opens_nothing(kit: TrustKit, tmp_path: Path) -> None:
    _keeper(kit, _Mirror(kit.trust), DocumentStore(tmp_path)).current(NOW)
    for source in (None, _Mirror(kit.trust)):
        keeper = TrustKeeper(b"{}", DocumentStore(tmp_path), source, lane="experimental")
        with pytest.raises(TrustError):
            keeper.current(NOW)
        assert keeper.floor(NOW) is None


def test_a_rotated_root_is_followed_step_by_step_and_kept(kit: TrustKit, tmp_path: Path) -> None:
    fresh = FileKey.generate()
    keys = RootKeys((fresh.public_key(),), (fresh.public_key(),), (kit.timestamp.public_key(),))
    by = replace(kit.offline, keys=(kit.root, fresh))
    rotated = refresh_timestamp(rotate_root(kit.trust, keys, by, now=NOW), kit.timestamp, now=NOW)
    mirror = _Mirror(rotated)

    assert _keeper(kit, mirror, DocumentStore(tmp_path)).current(NOW).versions.root == 2
    assert _keeper(kit, None, DocumentStore(tmp_path)).current(NOW).versions.root == 2
    assert (tmp_path / "trust/2.root.json").read_bytes() == rotated.roots[1]


def test_an_unknown_lane_is_refreshed_by_the_default_window(kit: TrustKit) -> None:
    mirror, clock = _Mirror(kit.trust), _Clock()
    keeper = TrustKeeper(kit.pinned, DocumentStore(None), mirror, lane="elsewhere", monotonic=clock)
    keeper.current(NOW)
    asked = len(mirror.asked)
    clock.now += RETRY

    keeper.current(NOW + 4 * MINUTE)
    assert len(mirror.asked) == asked
    keeper.current(NOW + 6 * MINUTE)
    assert len(mirror.asked) > asked

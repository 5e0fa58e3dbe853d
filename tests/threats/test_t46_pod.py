"""T46 in the pod: a mirror whose history does not go on from what it showed before."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from kgate_client.channel import Channel
from kgate_client.logcheck import Log, check_log, find_break
from kgate_client.store import DocumentStore
from kgate_client.trust import RETRY, TrustKeeper
from kgate_core.errors import NotFound, TrustError, UpstreamError
from kgate_core.kernel import Revision
from kgate_mirror_server.serve.access import Caller, Grant
from kgate_mirror_server.serve.logapi import LogApi
from kgate_signer.publog import head_of
from kgate_signer.trustwriter import refresh_timestamp
from tests.mirrorkit import make_mirror, served
from tests.trustkit import NOW
from tests.unit.signer.test_publog import FIRST, KIT, log

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SECOND, THIRD = (replace(FIRST, served=Revision(digit * 40)) for digit in "de")
HONEST = log(FIRST, SECOND, THIRD)
FORKED = log(FIRST, THIRD)


class _Mirror:
    """Signs whatever head it likes, and shows whatever log."""

    def __init__(self, entries: Sequence[bytes]) -> None:
        self.trust_set = KIT.trust
        self.shows: Sequence[bytes] | None = entries
        self.says = ""

    def vouch(self, head: str) -> None:
        self.trust_set = refresh_timestamp(self.trust_set, KIT.timestamp, now=NOW, log_head=head)

    def trust(self, name: str) -> bytes:
        found = self.trust_set.files.get(name)
        if found is None:
            raise NotFound(name)
        return found

    def log(self, after: str) -> bytes:
        if self.shows is None:
            raise NotFound(self.says)
        heads = [head_of(entry).removeprefix("sha256:") for entry in self.shows]
        if after != "start" and after not in heads:
            raise NotFound("unknown-head")
        start = 0 if after == "start" else heads.index(after) + 1
        return b"\n".join(self.shows[start:])


class _Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def _shown(mirror: _Mirror, *heads: str) -> TrustKeeper:
    """Return a pod's keeper that refreshed after each head."""
    clock = _Clock()
    keeper = TrustKeeper(
        KIT.pinned, DocumentStore(None), mirror, lane="experimental", log=mirror, monotonic=clock
    )
    for head in heads:
        mirror.vouch(head)
        clock.now += RETRY
        keeper.refresh(NOW)
    return keeper


def test_t46_a_log_that_goes_on_is_followed() -> None:
    keeper = _shown(_Mirror(HONEST), head_of(HONEST[0]), head_of(HONEST[1]))

    assert keeper.log_state is Log.EXTENDED  # although a third entry is there already
    assert keeper.problem == ""
    assert keeper.current(NOW).log_head == head_of(HONEST[1])


@pytest.mark.parametrize(
    ("shows", "head", "said"),
    [
        (FORKED, head_of(FORKED[1]), "does not hold"),
        (HONEST[:1], head_of(HONEST[0]), "does not hold"),
        (HONEST, "", "is empty"),
        (HONEST, "sha256:" + "0" * 64, "the signed head is"),
    ],
    ids=["forked", "cut", "emptied", "withheld"],
)
def test_t46_another_history_is_refused_and_named(
    shows: Sequence[bytes], head: str, said: str
) -> None:
    mirror = _Mirror(HONEST)
    keeper = _shown(mirror, head_of(HONEST[1]))
    mirror.shows = shows

    mirror.vouch(head)
    keeper._last_attempt = float("-inf")
    keeper.refresh(NOW)

    assert said in keeper.problem
    assert keeper.current(NOW).log_head == head_of(HONEST[1])


def test_t46_a_mirror_that_keeps_its_log_to_itself_proves_nothing() -> None:
    mirror = _Mirror(HONEST)
    mirror.shows, mirror.says = None, "unavailable"

    keeper = _shown(mirror, head_of(HONEST[0]), head_of(HONEST[1]))

    assert keeper.log_state is Log.UNCHECKED
    assert keeper.current(NOW).log_head == head_of(HONEST[1])
    assert check_log(None, head_of(HONEST[0]), head_of(HONEST[1])) is Log.UNCHECKED

    class Down:
        def log(self, after: str) -> bytes:
            raise UpstreamError(after)

    assert check_log(Down(), head_of(HONEST[0]), head_of(HONEST[1])) is Log.UNCHECKED


def test_entries_that_do_not_chain_are_named() -> None:
    first, last = head_of(HONEST[0]), head_of(HONEST[2])

    assert find_break(HONEST[1:], first, last) == ""
    assert "not the beginning" in find_break(HONEST[1:], "", last)
    assert "cannot be read" in find_break([b"{}"], first, last)
    assert "the signed head is" in find_break([], first, last)
    with pytest.raises(TrustError, match="does not hold"):
        check_log(_Mirror(FORKED), head_of(HONEST[1]), last)


def test_t46_the_real_mirror_shows_its_log_to_pods(tmp_path: Path) -> None:
    kit = make_mirror(tmp_path)
    kit.publish()
    (kit.settings.trust / "publications.jsonl").write_bytes(
        b"".join(entry + b"\n" for entry in HONEST) + b"unfinished"
    )
    with served(kit.settings) as address:
        channel = Channel(address)
        assert check_log(channel, "", head_of(HONEST[2])) is Log.EXTENDED
        assert check_log(channel, head_of(HONEST[0]), head_of(HONEST[1])) is Log.EXTENDED
        with pytest.raises(TrustError, match="does not hold"):
            check_log(channel, head_of(FORKED[1]), head_of(HONEST[2]))


def test_t18_the_log_names_every_kernel_and_is_for_those_who_see_all(tmp_path: Path) -> None:
    (tmp_path / "publications.jsonl").write_bytes(HONEST[0] + b"\n")
    api = LogApi(tmp_path)
    some = Caller("team", (Grant(("acme/*",)),))

    assert api.answer("start", whole=some.sees_everything).status == 404
    assert api.answer("start", whole=True).body == HONEST[0] + b"\n"
    missing = LogApi(tmp_path / "nothing").answer("start", whole=True)
    assert json.loads(missing.body)["reason"] == "unavailable"

"""A replica that starts while its database is down serves what was served before, and says so."""

from __future__ import annotations

import hashlib
import json
import time
import urllib.error
import urllib.request
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from kgate_core.errors import UpstreamError
from kgate_core.kernel import KernelRef
from kgate_mirror_server.catalog.sql import SqlCatalog
from kgate_mirror_server.catalog.tokens import SqlTokens
from kgate_mirror_server.serve.settings import AccessSettings
from kgate_mirror_server.trust.files import write_trust
from kgate_signer.trustchanges import revoke_digest
from tests.mirrorkit import VARIANT, MirrorKit, commit_of, make_mirror, served
from tests.services import postgresql

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NOTIFIED = 1.0  # seconds; the poll of this test comes every 30


def get(url: str, **headers: str) -> tuple[int, bytes]:
    try:
        request = urllib.request.Request(url, headers=headers)
        with urllib.request.urlopen(request, timeout=20) as reply:
            return reply.status, reply.read()
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code, exc.read()


def ready(address: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(get(f"{address}/readyz")[1])
    return found


def waited(what: Callable[[], bool], seconds: float = 10) -> float:
    """Wait until something is so and return how long that took."""
    start = time.monotonic()
    while not what():
        assert time.monotonic() - start < seconds, "it did not come to pass"
        time.sleep(0.01)
    return time.monotonic() - start


def kernel(address: str, repo: str = "acme/relu") -> bytes:
    return get(f"{address}/api/kernels/{repo}/tree/v1/build")[1]


def test_a_replica_starts_from_what_it_kept_when_postgresql_is_stopped(tmp_path: Path) -> None:
    with postgresql() as url:
        kit = make_mirror(tmp_path, url)
        kit.publish()
        text, _ = SqlTokens(kit.catalog.engine).create(
            "pod", ("acme/*",), (), now=kit.trust.now, expires_at=None
        )
        settings = replace(
            kit.settings, kept=tmp_path / "served", access=AccessSettings(tokens=True)
        )
        bearer = {"Authorization": f"Bearer {text}"}
        with served(settings) as address:
            assert get(f"{address}/kernels/acme/relu/resolve/v1/build/{VARIANT}/layers.py",
                       **bearer)[0] == 200  # fmt: skip
            assert (ready(address)["catalog"], ready(address)["fromKept"]) == ("up", False)
        kit.catalog.close()

    with served(settings) as address:  # nothing listens on the database's port any more
        status, body = get(
            f"{address}/kernels/acme/relu/resolve/v1/build/{VARIANT}/layers.py", **bearer
        )
        assert (status, body) == (200, b"ANSWER = 42\n")
        assert get(f"{address}/api/kernels/acme/relu/refs", Authorization="Bearer kg_x")[0] == 401
        assert (ready(address)["catalog"], ready(address)["fromKept"]) == ("down", True)


def test_a_database_file_that_is_gone_does_not_come_back_as_an_empty_one(tmp_path: Path) -> None:
    kit = make_mirror(tmp_path)
    kit.publish()
    settings = replace(kit.settings, kept=tmp_path / "served")
    with served(settings) as address:
        assert VARIANT.encode() in kernel(address)
    kit.catalog.close()
    saved = (tmp_path / "kgate.db").read_bytes()
    for path in tmp_path.glob("kgate.db*"):
        path.unlink()

    with served(settings) as address:
        assert VARIANT.encode() in kernel(address)
        assert ready(address)["catalog"] == "down"
        assert b"kgate_catalog_up 0" in get(f"{address}/metrics")[1]
        assert b"kgate_serving_from_kept 1" in get(f"{address}/metrics")[1]
        assert not (tmp_path / "kgate.db").exists()
        (tmp_path / "kgate.db").write_bytes(saved)
        waited(lambda: ready(address)["catalog"] == "up")
        catalog = SqlCatalog(kit.settings.database)
        replace(kit, catalog=catalog).publish(
            kit.variant(repo=KernelRef("acme", "gelu"), served=commit_of("gelu")),
            repo=KernelRef("acme", "gelu"), served=commit_of("gelu"), upstream=commit_of("gelu"),
        )  # fmt: skip
        waited(lambda: kernel(address, "acme/gelu") != b"[]")
        assert ready(address)["fromKept"] is False
        catalog.close()


def test_an_empty_database_in_place_of_the_old_one_withdraws_nothing(tmp_path: Path) -> None:
    kit = make_mirror(tmp_path)
    kit.publish()
    app = kit.app(kept=tmp_path / "served")
    assert app.source.current.generation > 0
    other = make_mirror(tmp_path / "other")
    fresh = MirrorKit(kit.root, kit.trust, kit.settings, other.catalog, kit.store)

    again = fresh.app(kept=tmp_path / "served")

    assert again.source.current.generation == app.source.current.generation
    assert not again.source.state().catalog_up


@pytest.mark.parametrize("damage", ["cut", "edited"])
def test_a_kept_file_that_was_damaged_is_not_read(tmp_path: Path, damage: str) -> None:
    kit = make_mirror(tmp_path)
    kit.publish()
    kit.app(kept=tmp_path / "served")
    path = tmp_path / "served" / "catalog.json"
    data = path.read_bytes()
    path.write_bytes(data[:-5] if damage == "cut" else data.replace(b"acme/relu", b"acme/evil"))
    kit.catalog.close()

    app = replace(kit, catalog=_Down()).app(kept=tmp_path / "served")  # type: ignore[arg-type]  # reads only

    assert app.source.current.generation == -1


def test_t16_a_kept_file_cannot_publish_what_nobody_signed(tmp_path: Path) -> None:
    kit = make_mirror(tmp_path)
    kit.publish()
    kit.app(kept=tmp_path / "served")
    path = tmp_path / "served" / "catalog.json"
    body = path.read_bytes().partition(b"\n")[2].replace(b"acme/relu", b"acme/evil")
    path.write_bytes(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)

    app = replace(kit, catalog=_Down()).app(kept=tmp_path / "served")  # type: ignore[arg-type]  # as above

    assert app.source.current.generation > 0
    assert app.source.current.lane("experimental").repos == {}
    assert app.source.state().refused == 1


def test_what_is_revoked_while_the_database_is_down_goes_all_the_same(tmp_path: Path) -> None:
    kit = make_mirror(tmp_path)
    publication = kit.publish()
    kit.app(kept=tmp_path / "served")
    app = replace(kit, catalog=_Down()).app(kept=tmp_path / "served")  # type: ignore[arg-type]  # as above
    assert app.source.current.lane("experimental").repos
    manifest, offline = publication.variants[0].manifest, kit.trust.offline
    trust = revoke_digest(kit.trust.trust, manifest, "test", offline, now=kit.trust.now)
    write_trust(kit.root / "trust", kit.trust.changed(trust).trust)

    app.turn(1.0)

    assert app.source.current.lane("experimental").repos == {}


def test_postgresql_tells_replicas_of_a_publication_at_once(tmp_path: Path) -> None:
    with postgresql() as url:
        kit = make_mirror(tmp_path, url)
        settings = replace(kit.settings, poll_seconds=30.0)
        with served(settings) as address:
            assert kernel(address) == b"[]"
            time.sleep(0.5)  # the listener is up
            kit.publish()
            took = waited(lambda: VARIANT.encode() in kernel(address))
        kit.catalog.close()
    assert took < NOTIFIED


class _Down:
    """A catalog whose database does not answer."""

    def generation(self) -> int:
        raise UpstreamError("the database does not answer")

    def publications(self) -> tuple[()]:
        raise AssertionError("never asked")

    denials = publications

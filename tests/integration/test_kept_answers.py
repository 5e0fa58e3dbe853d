"""Answers that the server keeps until the next snapshot are the answers it would give anew."""

from __future__ import annotations

import asyncio
import time
import urllib.error
import urllib.request
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from kgate_mirror_server.catalog.tokens import SqlTokens
from kgate_mirror_server.serve.access import TokenAccess
from kgate_mirror_server.serve.rsgi import RsgiApp
from kgate_mirror_server.serve.settings import AccessSettings
from kgate_mirror_server.trust.files import write_trust
from kgate_signer.trustchanges import revoke_digest
from tests.mirrorkit import FILES, VARIANT, make_mirror, served

if TYPE_CHECKING:
    from pathlib import Path

PLACE = f"/kernels/acme/relu/resolve/v1/build/{VARIANT}/layers.py"
LARGE = f"/kernels/acme/relu/resolve/v1/build/{VARIANT}/_relu.abi3.so"


def get(url: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    request = urllib.request.Request(url, headers=headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=20) as reply:
            return reply.status, dict(reply.headers.items()), reply.read()
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code, dict(exc.headers.items()), exc.read()


def without_date(answer: tuple[int, dict[str, str], bytes]) -> tuple[int, dict[str, str], bytes]:
    status, headers, body = answer
    kept = {name.lower(): value for name, value in headers.items() if name.lower() != "date"}
    return status, kept, body


@pytest.mark.parametrize(("place", "method"), [(PLACE, "GET"), (PLACE, "HEAD"), (LARGE, "HEAD")])
def test_the_second_answer_is_the_first(tmp_path: Path, place: str, method: str) -> None:
    kit = make_mirror(tmp_path)
    kit.publish()
    with served(kit.settings) as address:
        answers = [without_date(get(address + place, method)) for _ in range(3)]
        assert answers[0][0] == 200
        assert answers[0] == answers[1] == answers[2]
        size = FILES[place.rpartition("/")[2]]
        assert answers[0][1]["content-length"] == str(len(size))
        metrics = get(f"{address}/metrics")[2].decode()
    assert 'kgate_requests_total{part="file",status="200"} 3' in metrics
    sent = 3 * len(FILES["layers.py"]) if method == "GET" else 0
    assert (f"kgate_sent_bytes_total {sent}" in metrics) == (method == "GET")


def test_conditions_ranges_and_queries_are_answered_anew(tmp_path: Path) -> None:
    kit = make_mirror(tmp_path)
    kit.publish()
    with served(kit.settings) as address:
        etag = get(address + PLACE)[1]["etag"]
        assert get(address + PLACE)[0] == 200
        assert get(address + PLACE, **{"If-None-Match": etag})[0] == 304
        assert get(address + PLACE, Range="bytes=0-2")[::2] == (206, FILES["layers.py"][:3])
        assert get(address + PLACE, Range="bytes=9999-")[0] == 416
        assert get(address + PLACE, "POST")[0] == 403
        assert get(f"{address}/l/production{PLACE}")[0] == 404


def test_what_is_revoked_is_not_answered_from_what_was_kept(tmp_path: Path) -> None:
    kit = make_mirror(tmp_path)
    publication = kit.publish()
    with served(kit.settings) as address:
        assert [get(address + PLACE)[0] for _ in range(3)] == [200] * 3
        manifest, offline = publication.variants[0].manifest, kit.trust.offline
        trust = revoke_digest(kit.trust.trust, manifest, "test", offline, now=kit.trust.now)
        write_trust(kit.root / "trust", kit.trust.changed(trust).trust)
        end = time.monotonic() + 5
        while get(address + PLACE)[0] == 200:
            assert time.monotonic() < end, "it was still served"
            time.sleep(0.05)


def test_t18_an_answer_to_one_tenant_is_no_answer_to_another(tmp_path: Path) -> None:
    """Answers are kept by what callers may see; each of many callers asks in turns, three times."""
    kit = make_mirror(tmp_path)
    kit.publish()
    made = SqlTokens(kit.catalog.engine)

    def token(repos: str, lanes: tuple[str, ...] = ()) -> tuple[str, str]:
        text, kept = made.create("x", (repos,), lanes, now=kit.trust.now, expires_at=None)
        return text, kept.identifier

    (ours, ours_id), (same, _), (theirs, _) = token("acme/*"), token("acme/*"), token("other/*")
    elsewhere, _ = token("acme/*", ("production",))
    callers = (ours, theirs, same, elsewhere, None, "kg_bad")
    with served(replace(kit.settings, access=AccessSettings(tokens=True))) as address:

        def statuses() -> list[int]:
            headers = [{"Authorization": f"Bearer {text}"} if text else {} for text in callers]
            return [get(address + PLACE, **each)[0] for each in headers]

        assert [statuses() for _ in range(3)] == [[200, 404, 200, 404, 404, 401]] * 3
        made.revoke(ours_id, now=kit.trust.now)
        end = time.monotonic() + 5
        while statuses()[0] == 200:
            assert time.monotonic() < end, "a revoked token was still answered"
            time.sleep(0.05)
        assert [statuses() for _ in range(2)] == [[401, 404, 200, 404, 404, 401]] * 2


def test_t18_a_token_that_ends_ends_for_kept_answers_too(tmp_path: Path) -> None:
    kit = make_mirror(tmp_path)
    kit.publish()
    with served(replace(kit.settings, access=AccessSettings(tokens=True))) as address:
        ends = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=15)
        text, _ = SqlTokens(kit.catalog.engine).create(
            "a", ("acme/*",), (), now=kit.trust.now, expires_at=ends
        )
        allowed = {"Authorization": f"Bearer {text}"}
        while get(address + PLACE, **allowed)[0] != 200:  # until the server knows the token
            assert datetime.now(UTC) < ends
            time.sleep(0.1)
        assert [get(address + PLACE, **allowed)[0] for _ in range(2)] == [200] * 2
        while datetime.now(UTC) < ends:
            time.sleep(0.1)
        assert get(address + PLACE, **allowed)[0] == 401


def test_an_answer_kept_for_tenants_is_sent_without_looking_the_file_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is in the store is looked at once; the second answer comes without the application."""
    kit = make_mirror(tmp_path)
    kit.publish()
    text, _ = SqlTokens(kit.catalog.engine).create(
        "a", ("acme/*",), (), now=kit.trust.now, expires_at=None
    )
    app = kit.app(TokenAccess(SqlTokens(kit.catalog.engine).tokens, (), lambda: kit.trust.now))
    asked: list[str] = []
    answer = app._router.answer

    async def counted(*args: Any) -> Any:
        asked.append("once")
        return await answer(*args)

    monkeypatch.setattr(app._router, "answer", counted)  # counts, then does the same
    rsgi = RsgiApp(app, 8)
    sent = [answered(rsgi, PLACE, {"authorization": f"Bearer {text}"}) for _ in range(4)]
    assert sent == [(200, FILES["layers.py"])] * 4
    assert asked == ["once"]
    assert answered(rsgi, PLACE, {})[0] == 404
    assert len(asked) == 2


def answered(app: RsgiApp, path: str, headers: dict[str, str]) -> tuple[int, bytes]:
    """Ask the application as granian would."""
    said: list[tuple[int, bytes]] = []
    scope = SimpleNamespace(
        proto="http", http_version="1.1", scheme="http", method="GET", path=path, query_string="",
        authority="mirror", client="127.0.0.1:1", headers=headers,
    )  # fmt: skip
    wire = SimpleNamespace(
        response_bytes=lambda status, _, body: said.append((status, body)),
        response_empty=lambda status, _: said.append((status, b"")),
    )
    asyncio.run(app.__rsgi__(scope, wire))
    (found,) = said
    return found


def test_t55_a_lane_that_asks_for_the_shim_keeps_asking(tmp_path: Path) -> None:
    kit = make_mirror(tmp_path)
    kit.publish()
    settings = replace(kit.settings, marked_lanes=frozenset({kit.settings.lane}))
    with served(settings) as address:
        marked = {"User-Agent": "x kgate-client/1"}
        statuses = [get(address + PLACE, **headers)[0] for headers in (marked, {}) * 3]
    assert statuses == [200, 404] * 3


def test_the_first_file_of_a_kernel_passes_every_time_so_that_reports_are_awaited(
    tmp_path: Path,
) -> None:
    kit = make_mirror(tmp_path)
    kit.publish()
    settings = replace(kit.settings, reports=tmp_path / "reports", alert_after=60.0)
    with served(settings) as address:
        first = PLACE.replace("layers.py", "metadata.json")
        for _ in range(2):
            assert get(address + first)[0] == 200
            (waiting,) = (tmp_path / "reports" / "waiting").iterdir()
            waiting.unlink()

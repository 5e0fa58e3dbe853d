from __future__ import annotations

from email import message_from_bytes
from email.message import Message
from typing import TYPE_CHECKING

import pytest

from kgate_core.digest import Digest
from kgate_mirror_server.serve.blobresponse import SmallBlobs
from kgate_mirror_server.serve.settings import SendFile
from tests.asgi import Reply, ask
from tests.mirrorkit import FILES, VARIANT, MirrorKit, make_mirror

if TYPE_CHECKING:
    from kgate_mirror_server.serve.app import ServeApp

PLACE = f"/kernels/acme/relu/resolve/v1/build/{VARIANT}"
BIG = bytes(range(251)) * 20_000
FILES_WITH_BIG = {**FILES, "big.so": BIG, "empty.py": b""}


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> MirrorKit:
    kit = make_mirror(tmp_path_factory.mktemp("mirror"))
    kit.publish(kit.variant(FILES_WITH_BIG))
    return kit


@pytest.fixture(scope="module", params=["memory", "chunks", "pathsend"])
def case(request: pytest.FixtureRequest, kit: MirrorKit) -> tuple[ServeApp, str, bytes, bool]:
    small = request.param == "memory"
    how = SendFile.PATHSEND if request.param == "pathsend" else SendFile.STREAM
    name = "__init__.py" if small else "big.so"
    return kit.app(send_file=how), f"{PLACE}/{name}", FILES_WITH_BIG[name], not small


def get(case: tuple[ServeApp, str, bytes, bool], method: str = "GET", **headers: str) -> Reply:
    app, place, _, _ = case
    pairs = {name.replace("_", "-"): value for name, value in headers.items()}
    return ask(app, place, method, pairs, pathsend=app._router._sender.how is SendFile.PATHSEND)


def test_a_whole_file_comes_with_its_entity_tag(case: tuple[ServeApp, str, bytes, bool]) -> None:
    reply = get(case)
    assert (reply.status, reply.body) == (200, case[2])
    assert reply.headers["content-length"] == str(len(case[2]))
    assert reply.headers["accept-ranges"] == "bytes"
    tag = reply.headers["etag"].strip('"')
    assert len(tag) == (64 if case[3] else 40)
    assert tag == (Digest.of(case[2]).hex if case[3] else tag)


def test_large_files_are_sent_by_the_server_where_it_offers_to(kit: MirrorKit) -> None:
    app = kit.app()
    assert ask(app, f"{PLACE}/big.so", pathsend=True).messages == ["http.response.pathsend"]
    assert set(ask(app, f"{PLACE}/big.so").messages) == {"http.response.body"}
    assert ask(app, f"{PLACE}/layers.py", pathsend=True).messages == ["http.response.body"]


def test_head_gives_the_headers_only(case: tuple[ServeApp, str, bytes, bool]) -> None:
    head, whole = get(case, "HEAD"), get(case)
    assert (head.status, head.body) == (200, b"")
    assert head.headers == whole.headers


def test_what_a_client_has_already_is_not_sent(case: tuple[ServeApp, str, bytes, bool]) -> None:
    tag = get(case).headers["etag"]
    for header in (tag, f"W/{tag}", f'"x", {tag}', "*"):
        for method in ("GET", "HEAD"):
            reply = get(case, method, if_none_match=header)
            assert (reply.status, reply.body) == (304, b"")
            assert reply.headers["etag"] == tag
            assert "content-length" not in reply.headers
    assert get(case, if_none_match='"other"').status == 200


def test_single_ranges(case: tuple[ServeApp, str, bytes, bool]) -> None:
    data = case[2]
    for header, start, end in (
        ("bytes=0-9", 0, 10),
        ("bytes=10-", 10, len(data)),
        ("bytes=-5", len(data) - 5, len(data)),
        ("bytes=5-5", 5, 6),
    ):
        reply = get(case, range=header)
        assert (reply.status, reply.body) == (206, data[start:end])
        assert reply.headers["content-range"] == f"bytes {start}-{end - 1}/{len(data)}"
        assert reply.headers["content-length"] == str(end - start)


def test_several_ranges_come_as_parts(case: tuple[ServeApp, str, bytes, bool]) -> None:
    data = case[2]
    reply = get(case, range="bytes=0-3,20-23,-2")
    assert reply.status == 206
    assert reply.headers["content-length"] == str(len(reply.body))
    kind = reply.headers["content-type"].encode()
    message = message_from_bytes(b"Content-Type: " + kind + b"\r\n\r\n" + reply.body)
    parts = message.get_payload()
    assert isinstance(parts, list)
    spans = [(0, 4), (20, 24), (len(data) - 2, len(data))]
    assert [part["content-range"] for part in parts if isinstance(part, Message)] == [
        f"bytes {start}-{end - 1}/{len(data)}" for start, end in spans
    ]
    for start, end in spans:
        assert b"\r\n\r\n" + data[start:end] + b"\r\n--" in reply.body


def test_a_range_beyond_the_end_is_refused_with_the_size(
    case: tuple[ServeApp, str, bytes, bool],
) -> None:
    reply = get(case, range=f"bytes={len(case[2])}-")
    assert reply.status == 416
    assert reply.headers["content-range"] == f"bytes */{len(case[2])}"


def test_a_range_of_another_version_becomes_the_whole(
    case: tuple[ServeApp, str, bytes, bool],
) -> None:
    tag = get(case).headers["etag"]
    assert get(case, range="bytes=0-9", if_range=tag).status == 206
    for other in ('"other"', f"W/{tag}", "Sat, 21 Nov 2026 12:00:00 GMT"):
        reply = get(case, range="bytes=0-9", if_range=other)
        assert (reply.status, reply.body) == (200, case[2])


def test_ranges_on_head_are_ignored(case: tuple[ServeApp, str, bytes, bool]) -> None:
    reply = get(case, "HEAD", range="bytes=0-9")
    assert (reply.status, reply.headers["content-length"]) == (200, str(len(case[2])))


def test_a_range_header_that_comes_twice_counts_as_absent(
    case: tuple[ServeApp, str, bytes, bool],
) -> None:
    pairs = [("range", "bytes=0-1"), ("range", "bytes=5-6")]
    assert ask(case[0], case[1], headers=pairs).status == 200


def test_an_empty_file_can_be_had(kit: MirrorKit) -> None:
    reply = ask(kit.app(), f"{PLACE}/empty.py")
    assert (reply.status, reply.body, reply.headers["content-length"]) == (200, b"", "0")


def test_nginx_is_told_where_large_files_lie(kit: MirrorKit) -> None:
    app = kit.app(send_file=SendFile.XACCEL)
    digest = Digest.of(BIG).hex
    reply = ask(app, f"{PLACE}/big.so")
    assert reply.headers["x-accel-redirect"] == f"/_kgate_blobs/{digest[:2]}/{digest}"
    assert reply.body == b""
    assert "x-accel-redirect" not in ask(app, f"{PLACE}/layers.py").headers
    assert "x-accel-redirect" not in ask(app, f"{PLACE}/big.so", "HEAD").headers


def test_the_memory_for_small_blobs_is_bounded_and_forgets_the_oldest() -> None:
    blobs = SmallBlobs(limit=100)
    digests = [Digest.of(bytes([number])) for number in range(4)]
    for digest in digests[:3]:
        blobs.keep(digest, b"x" * 40)
    assert blobs.get(digests[0]) is None
    assert blobs.get(digests[1]) == b"x" * 40
    blobs.keep(digests[3], b"y" * 40)
    assert blobs.get(digests[2]) is None
    assert blobs.get(digests[1]) is not None
    blobs.keep(digests[0], b"z" * 101)
    assert blobs.get(digests[0]) is None

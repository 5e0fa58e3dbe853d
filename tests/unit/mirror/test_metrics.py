from __future__ import annotations

import json
from typing import TYPE_CHECKING

from kgate_mirror_server.catalog.tokens import SqlTokens
from kgate_mirror_server.serve.access import Grant, TokenAccess
from kgate_mirror_server.serve.metrics import MAX_CLIENTS, Metrics
from tests.asgi import ask
from tests.mirrorkit import VARIANT, MirrorKit, make_mirror

if TYPE_CHECKING:
    from pathlib import Path

AGENT = (
    "kernels/0.17.2; hf_hub/2.4.0; python/3.11.7; torch/2.13.0+cpu; python/3.11; backend/cpu;"
    " platform/x86_64-linux; file_type/kernel; glibc/2.36"
)


def values(text: bytes) -> dict[str, float]:
    found = {}
    for line in text.decode().splitlines():
        if not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            found[name] = float(value)
    return found


def make_app(tmp_path: Path) -> tuple[MirrorKit, object]:
    kit = make_mirror(tmp_path)
    kit.publish()
    kit.deny()
    return kit, kit.app()


def test_requests_bytes_and_clients_are_counted(tmp_path: Path) -> None:
    _, app = make_app(tmp_path)
    agent = {"user-agent": AGENT}
    place = f"/kernels/acme/relu/resolve/v1/build/{VARIANT}/_relu.abi3.so"
    ask(app, "/api/kernels/acme/relu/tree/v1/build", headers=agent)
    ask(app, "/api/kernels/acme/evil/tree/v1/build", headers=agent)
    ask(app, "/api/kernels/acme/relu/tree/v1?recursive=true")
    ask(app, place)
    ask(app, place, "HEAD")
    ask(app, place, headers={"range": "bytes=0-9"})
    ask(app, "/api/repos/create", "POST")
    found = values(ask(app, "/metrics").body)
    assert found['kgate_requests_total{part="hub",status="200"}'] == 3
    assert found['kgate_requests_total{part="hub",status="403"}'] == 1
    assert found['kgate_requests_total{part="file",status="206"}'] == 1
    assert found["kgate_sent_bytes_total"] == 256 * 1024 + 10
    assert found["kgate_cold_starts_total"] == 1
    assert found["kgate_empty_builds_total"] == 1
    (client,) = [name for name in found if name.startswith("kgate_clients_total")]
    told = {"kernels": "0.17.2", "hf_hub": "2.4.0", "torch": "2.13.0+cpu", "python": "3.11",
            "backend": "cpu", "platform": "x86_64-linux"}  # fmt: skip
    labels = ",".join(f'{key}="{value}"' for key, value in told.items())
    assert client == f"kgate_clients_total{{{labels}}}"
    assert found[client] == 2


def test_the_snapshot_is_measured(tmp_path: Path) -> None:
    _, app = make_app(tmp_path)
    found = values(ask(app, "/metrics").body)
    assert found['kgate_published_variants{lane="experimental"}'] == 1
    assert found['kgate_denied_variants{lane="experimental"}'] == 1
    assert found["kgate_catalog_generation"] == 2
    assert found["kgate_catalog_up"] == found["kgate_trust_up"] == 1
    assert found["kgate_refused_variants"] == found["kgate_bad_blobs"] == 0
    assert found["kgate_trust_age_seconds"] == 0
    assert found["kgate_first_decision_ends_seconds"] == 30 * 86400


def test_every_metric_has_one_type_line_before_its_samples(tmp_path: Path) -> None:
    _, app = make_app(tmp_path)
    reply = ask(app, "/metrics")
    assert reply.headers["content-type"].startswith("text/plain; version=0.0.4")
    ask(app, "/healthz")
    names: list[str] = []
    for line in ask(app, "/metrics").body.decode().splitlines():
        if line.startswith("# TYPE "):
            names.append(line.split()[2])
        elif not line.startswith("#"):
            assert line.split("{")[0].split(" ")[0] == names[-1]
    assert len(set(names)) == len(names)


def test_workers_counts_are_added_up_and_never_fall(tmp_path: Path) -> None:
    first, second = Metrics(tmp_path), Metrics(tmp_path)
    first.count("kgate_cold_starts_total", by=3)
    second.count("kgate_cold_starts_total", by=4)
    second.client(AGENT)
    second.share()
    (own,) = tmp_path.glob("*.json")
    own.rename(tmp_path / "1.json")  # another worker's
    first.share()
    found = values(first.render([]))
    assert found["kgate_cold_starts_total"] == 7
    assert any(name.startswith("kgate_clients_total") for name in found)
    (tmp_path / "2.json").write_text("{half")
    assert values(first.render([]))["kgate_cold_starts_total"] == 7


def test_made_up_clients_cannot_fill_the_memory() -> None:
    metrics = Metrics()
    for number in range(MAX_CLIENTS * 3):
        metrics.client(f"torch/{number}; kernels/{'9' * 500}; evil/x")
    found = values(metrics.render([]))
    assert len(found) <= MAX_CLIENTS + 1
    assert sum(found.values()) == MAX_CLIENTS * 3


def test_labels_cannot_break_out_of_their_quotes() -> None:
    metrics = Metrics()
    metrics.count("kgate_requests_total", (("part", 'a"b\\c\nd'),))
    assert b'part="a\\"b\\\\c\\nd"' in metrics.render([])
    assert json.dumps(values(metrics.render([])))


def test_metrics_are_shown_to_who_sees_everything_only(tmp_path: Path) -> None:
    kit, _ = make_app(tmp_path)
    tokens = SqlTokens(kit.catalog.engine)
    now = kit.trust.now
    some, _ = tokens.create("some", ("acme/*",), (), now=now, expires_at=None)
    every, _ = tokens.create("monitor", ("*/*",), (), now=now, expires_at=None)
    app = kit.app(TokenAccess(tokens.tokens, (Grant(("acme/*",)),), lambda: now))
    for token, status in ((None, 404), (some, 404), (every, 200)):
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        assert ask(app, "/metrics", headers=headers).status == status

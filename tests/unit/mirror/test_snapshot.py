from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from sqlalchemy import create_engine, text

from kgate_core.errors import UpstreamError
from kgate_core.kernel import KernelRef
from kgate_mirror_server.serve import proof
from kgate_mirror_server.serve import snapshot as snapshots
from kgate_mirror_server.trust.files import write_trust
from kgate_signer.trustchanges import revoke_digest
from tests.asgi import ask
from tests.mirrorkit import VARIANT, MirrorKit, commit_of, make_mirror
from tests.trustkit import EXPERIMENTAL

if TYPE_CHECKING:
    from pathlib import Path

BUILD = "/api/kernels/acme/relu/tree/v1/build"


@pytest.fixture
def kit(tmp_path: Path) -> MirrorKit:
    return make_mirror(tmp_path)


def count_proofs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    proved: list[str] = []
    real = proof.prove

    def counting(publication: Any, item: Any, *rest: Any, **named: Any) -> Any:
        proved.append(f"{publication.repo}/{item.variant}")
        return real(publication, item, *rest, **named)

    monkeypatch.setattr(snapshots, "prove", counting)
    return proved


def test_nothing_is_built_while_nothing_changes(kit: MirrorKit) -> None:
    kit.publish()
    source = kit.app().source
    before = source.current
    assert not source.refresh()
    assert source.current is before


def test_a_publication_appears_with_the_next_look_and_others_are_not_proven_again(
    kit: MirrorKit, monkeypatch: pytest.MonkeyPatch
) -> None:
    kit.publish()
    proved = count_proofs(monkeypatch)
    app = kit.app()
    assert proved == ["acme/relu/torch-cpu"]
    gelu = KernelRef("acme", "gelu")
    kit.publish(kit.variant(repo=gelu), repo=gelu)
    assert app.source.refresh()
    assert proved == ["acme/relu/torch-cpu", "acme/gelu/torch-cpu"]
    assert ask(app, "/api/kernels/acme/gelu/tree/v1/build").json != []


def test_a_new_timestamp_proves_nothing_anew(
    kit: MirrorKit, monkeypatch: pytest.MonkeyPatch
) -> None:
    kit.publish()
    proved = count_proofs(monkeypatch)
    app = kit.app()
    write_trust(kit.root / "trust", kit.trust.changed(kit.trust.trust).trust)
    app.source.refresh()
    assert len(proved) == 1


def test_a_revoked_variant_leaves_at_once_and_the_revision_only_narrows(kit: MirrorKit) -> None:
    kit.publish(kit.variant(), kit.variant(variant="torch-cuda"))
    app = kit.app()
    before = app.source.current
    entry = kit.catalog.publications()[0].variants[0]
    trust = revoke_digest(
        kit.trust.trust, entry.manifest, "test", kit.trust.offline, now=kit.trust.now
    )
    write_trust(kit.root / "trust", kit.trust.changed(trust).trust)
    assert app.source.refresh()
    assert ask(app, BUILD).json == []
    assert app.source.current is not before


def test_a_decision_that_ends_is_served_no_longer(kit: MirrorKit) -> None:
    kit.publish(kit.variant(valid_until=kit.trust.now + timedelta(hours=1)))
    app = kit.app()
    assert ask(app, BUILD).json != []
    app.source._clock = lambda: kit.trust.now + timedelta(hours=2)
    assert app.source.refresh()
    assert ask(app, BUILD).json == []


def test_a_renewed_decision_goes_on_being_served(kit: MirrorKit) -> None:
    kit.publish(kit.variant(valid_until=kit.trust.now + timedelta(hours=1)))
    app = kit.app()
    kit.publish(kit.variant())
    app.source._clock = lambda: kit.trust.now + timedelta(hours=2)
    app.source.refresh()
    assert ask(app, BUILD).json != []


def test_while_the_catalog_is_gone_what_was_served_stays(
    kit: MirrorKit, monkeypatch: pytest.MonkeyPatch
) -> None:
    kit.publish()
    app = kit.app()

    def gone(_self: object) -> int:
        raise UpstreamError("the database is gone")

    with monkeypatch.context() as patched, structlog.testing.capture_logs() as logs:
        patched.setattr(type(kit.catalog), "generation", gone)
        assert not app.source.refresh()
        assert not app.source.refresh()
        assert ask(app, BUILD).json != []
    assert [entry["event"] for entry in logs] == ["catalog.failed"]
    with structlog.testing.capture_logs() as logs:
        app.source.refresh()
    assert [entry["event"] for entry in logs] == ["catalog.recovered"]


def test_while_trust_cannot_be_verified_nothing_new_is_served_and_the_old_stays(
    kit: MirrorKit,
) -> None:
    kit.publish()
    app = kit.app()
    (kit.root / "trust" / "targets.json").write_bytes(b"{}")
    gelu = KernelRef("acme", "gelu")
    kit.publish(kit.variant(repo=gelu), repo=gelu)
    app.source.refresh()
    assert ask(app, BUILD).json != []
    assert ask(app, "/api/kernels/acme/gelu/tree/v1/build").json == []
    assert ask(app, "/readyz").status == 503
    write_trust(kit.root / "trust", kit.trust.trust)
    assert app.source.refresh()
    assert ask(app, "/api/kernels/acme/gelu/tree/v1/build").json != []
    assert ask(app, "/readyz").status == 200


def test_without_any_trust_nothing_is_served(kit: MirrorKit) -> None:
    kit.publish()
    for path in (kit.root / "trust").iterdir():
        path.unlink()
    app = kit.app()
    assert ask(app, BUILD).json == []
    assert ask(app, "/healthz").status == 200
    assert ask(app, "/readyz").status == 503


def test_before_the_catalog_could_be_read_requests_are_told_to_come_back(
    kit: MirrorKit, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(_self: object) -> int:
        raise UpstreamError("the database is gone")

    monkeypatch.setattr(type(kit.catalog), "generation", gone)
    app = kit.app()
    reply = ask(app, BUILD)
    assert (reply.status, reply.headers["retry-after"]) == (503, "1")


def test_a_variant_whose_blob_is_missing_is_not_served_until_it_is_back(kit: MirrorKit) -> None:
    kit.publish(kit.variant(), kit.variant({"__init__.py": b"x"}, variant="torch-cuda"))
    item = next(v for v in kit.catalog.publications()[0].variants if v.variant == VARIANT)
    lost = next(file for file in item.files if file.path.endswith(".so"))
    data = kit.store.path(lost.digest).read_bytes()
    kit.store.remove(lost.digest)
    app = kit.app()
    assert [entry["path"] for entry in ask(app, BUILD).json] == ["build/torch-cuda"]
    assert not app.source.refresh()
    kit.put(data)
    assert app.source.refresh()
    assert len(ask(app, BUILD).json) == 2


def test_what_vanishes_while_serving_leaves_with_the_next_look(kit: MirrorKit) -> None:
    kit.publish()
    app = kit.app()
    item = kit.catalog.publications()[0].variants[0]
    kit.store.remove(item.files[1].digest)
    reply = ask(app, f"/kernels/acme/relu/resolve/v1/{item.files[1].path}")
    assert reply.status == 503
    assert app.source.refresh()
    assert ask(app, BUILD).json == []


def test_versions_follow_the_publication_that_came_last(kit: MirrorKit) -> None:
    second = commit_of("second")
    kit.publish()
    kit.publish(kit.variant(served=second), served=second, upstream=second)
    app = kit.app()
    assert ask(app, "/api/kernels/acme/relu/revision/v1").json["sha"] == str(second)
    assert ask(app, f"/api/kernels/acme/relu/tree/{commit_of('first')}/build").json != []


LAYERS = "WHERE path = 'build/torch-cpu/layers.py'"
ROW_EDITS = {
    "another upstream commit": f"UPDATE publication SET upstream = '{'c' * 40}'",
    "another repository": "UPDATE publication SET repo = 'acme/other'",
    "another served revision": f"UPDATE publication SET served = '{'c' * 40}'",
    "another lane": "UPDATE publication SET lane = 'production'",
    "another origin": "UPDATE publication SET origin = 'https://evil.test'",
    "another type": "UPDATE publication SET repo_type = 'model'",
    "another variant name": "UPDATE published_variant SET variant = 'torch-cuda'",
    "another manifest": f"UPDATE published_variant SET manifest = 'sha256:{'d' * 64}'",
    "no bundles": "UPDATE published_variant SET bundles = '[]'",
    "a file less": f"DELETE FROM served_file {LAYERS}",
    "a file renamed": f"UPDATE served_file SET path = 'build/torch-cpu/x.py' {LAYERS}",
    "a climbing file": f"UPDATE served_file SET path = '../../etc/passwd' {LAYERS}",
    "another size": f"UPDATE served_file SET size = size + 1 {LAYERS}",
    "another git id": f"UPDATE served_file SET oid = '{'e' * 40}' {LAYERS}",
    "another LFS id": f"UPDATE served_file SET oid = '{'e' * 40}' WHERE path LIKE '%.so'",
    "LFS or not": f"UPDATE served_file SET lfs = NOT lfs {LAYERS}",
}


@pytest.mark.parametrize("edit", ROW_EDITS, ids=str)
def test_an_edited_row_is_not_served(kit: MirrorKit, edit: str) -> None:
    kit.publish()
    engine = create_engine(kit.settings.database)
    with engine.begin() as connection:
        connection.execute(text(ROW_EDITS[edit]))
    engine.dispose()
    with structlog.testing.capture_logs() as logs:
        app = kit.app()
    refused = [entry for entry in logs if entry["event"] == "publication.refused"]
    assert len(refused) == 1
    assert refused[0]["reason"]
    lanes = app.source.current.lanes.values()
    assert all(not lane.repos and not lane.manifests for lane in lanes)


def test_a_copied_row_does_not_publish_its_bytes_elsewhere(kit: MirrorKit) -> None:
    publication = kit.publish()
    kit.catalog.publish(replace(publication, repo=KernelRef("acme", "other")))
    kit.catalog.publish(replace(publication, lane="production"))
    app = kit.app()
    assert set(app.source.current.lanes) == {EXPERIMENTAL}
    assert ask(app, "/api/kernels/acme/other/tree/v1/build").json == []

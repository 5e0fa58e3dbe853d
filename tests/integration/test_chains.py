"""Chains of kgates: the far one's attestations are checked, kept, stated and carried along."""

from __future__ import annotations

import base64
import http.server
import json
import threading
import urllib.error
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from kgate_cli.main import main
from kgate_core.bundle import Bundle
from kgate_core.errors import InvalidInput, TrustError
from kgate_core.statement import Statement
from kgate_mirror_server.bundle.carried import carry
from kgate_mirror_server.examples.metadata import digest_of
from kgate_mirror_server.ports import EvidenceKind
from kgate_mirror_server.settings.site import load_config
from kgate_mirror_server.trust.founding import Founding, found_site
from kgate_signer.predicates import IMPORT_TYPE
from tests.ingestkit import Site, make_site, now
from tests.mirrorkit import served

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from kgate_mirror_server.ingest.sync import SyncResult

REPO = "acme/gelu"
VARIANT = "torch-cpu"


def build(folder: Path) -> None:
    variant = folder / REPO / "build" / VARIANT
    variant.mkdir(parents=True)
    (variant / "__init__.py").write_text("ANSWER = 42\n", encoding="utf-8")
    document = {"name": "gelu", "id": "_gelu_abc1234", "version": 1, "license": "Apache-2.0"}
    document |= {"python-depends": [], "backend": {"type": "cpu"}}
    path = variant / "metadata.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    path.write_text(json.dumps({**document, "digest": digest_of(variant)}), encoding="utf-8")


def found(folder: Path, name: str, upstream: str) -> Site:
    found_site(folder, Founding(upstream=upstream, site=name), now())
    return Site(folder)


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, str]]:
    """Return the far site and the address at which it is served."""
    far = found(tmp_path_factory.mktemp("chain") / "far", "https://far.test", "./built")
    build(far.folder / "built")
    far.pin(f"repo: {REPO}, version: 1")
    assert far.sync().approved == 1
    with far.mirror() as mirror:
        settings = mirror.serve_settings()
    with served(settings) as address:
        yield far, address


@pytest.fixture
def chain(upstream: tuple[Site, str], tmp_path: Path) -> Iterator[tuple[Site, Site, list[Any]]]:
    """Return two sites, the far one served behind a front that tests may make lie."""
    far, address = upstream
    changes: list[Any] = []
    with front(address, changes) as url:
        near = found(tmp_path / "near", "https://near.test", url)
        near.pin(f"repo: {REPO}, version: 1")
        root = near.folder / "far-root.json"
        root.write_bytes((far.folder / "trust" / "root.json").read_bytes())
        write(near, f"upstream: {url}", f"upstream: {{url: '{url}', trust_root: far-root.json}}")
        yield far, near, changes


@contextmanager
def front(address: str, changes: list[Any]) -> Iterator[str]:
    """Stand before a mirror; what the last of `changes` makes of an answer is sent, None is 404."""

    class Front(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            request = urllib.request.Request(address + self.path)
            if asked := self.headers.get("Range"):
                request.add_header("Range", asked)
            try:
                with urllib.request.urlopen(request, timeout=20) as response:
                    body, headers, status = response.read(), dict(response.headers), response.status
            except urllib.error.HTTPError as exc:
                body, headers, status = exc.read(), dict(exc.headers), exc.code
            headers = {name.lower(): value for name, value in headers.items()}
            if changes and status == 200:
                changed = changes[-1](self.path, body)
                status, body = (404, b"{}") if changed is None else (status, changed)
            self.send_response(status)
            for name in ("content-type", "x-repo-commit", "etag", "x-error-code"):
                if name in headers:
                    self.send_header(name, headers[name])
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Front)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def write(site: Site, old: str, new: str) -> None:
    text = site.config_path.read_text(encoding="utf-8")
    assert old in text
    site.config_path.write_text(text.replace(old, new, 1), encoding="utf-8")


def signature(site: Site) -> dict[str, Any]:
    """Return the verdict on the upstream's word that a site keeps."""
    with site.mirror() as mirror:
        (publication,) = mirror.catalog.publications()
        record: dict[str, Any] = mirror.room.imported(publication.variants[0].evidence).signature
        return record


def denials(result: SyncResult) -> dict[str, str]:
    (kernel,) = result.kernels
    return {item.rule: item.seen for item in kernel.variants[0].reasons}


def attested(change: Callable[[dict[str, Any]], None]) -> Callable[[str, bytes], bytes | None]:
    """Return a front's lie about attestations."""

    def lie(path: str, body: bytes) -> bytes | None:
        if "/attestations/" not in path:
            return body
        document = json.loads(body)
        change(document)
        return json.dumps(document).encode()

    return lie


def test_attestations_of_the_upstream_are_verified_stated_kept_and_exported(
    chain: tuple[Site, Site, list[Any]],
) -> None:
    far, near, _ = chain
    assert near.sync().approved == 1
    said = signature(near)
    assert (said["status"], said["identity"]) == ("verified", "https://far.test")
    with far.mirror() as mirror:
        (publication,) = mirror.catalog.publications()
        theirs = {str(digest) for digest in publication.variants[0].bundles}
    assert len(theirs) >= 3
    assert set(said["bundles"]) == theirs
    with near.mirror() as mirror:
        (publication,) = mirror.catalog.publications()
        (variant,) = publication.variants
        kept = json.loads(mirror.room.read(variant.evidence[EvidenceKind.UPSTREAM]))
        assert base64.b64decode(kept["manifest"]) == mirror.room.read(variant.manifest)
        statements = [
            Statement.parse(Bundle.parse(mirror.room.read(digest)).envelope.payload)
            for digest in variant.bundles
        ]
        (stated,) = (item for item in statements if item.predicate_type == IMPORT_TYPE)
        assert set(stated.predicate["upstreamSignature"]["bundles"]) == theirs
        assert (
            EvidenceKind.UPSTREAM
            in carry(publication, mirror.room, mirror.store).publication.variants[0].evidence
        )
        settings = mirror.serve_settings()
    with served(settings) as address:
        url = f"{address}/api/kgate/v1/evidence/{REPO}/{publication.served}/{VARIANT}/upstream"
        with urllib.request.urlopen(url, timeout=20) as response:
            assert json.loads(response.read()) == kept
    assert (
        main(
            [
                "bundle",
                "export",
                "--out",
                str(near.folder / "disc"),
                "--config",
                str(near.config_path),
            ]
        )
        == 0
    )
    digest = variant.evidence[EvidenceKind.UPSTREAM].hex.encode()
    assert any(
        digest in path.read_bytes() for path in (near.folder / "disc").rglob("*") if path.is_file()
    )


def forge(document: dict[str, Any]) -> None:
    envelope = document["bundles"][0]["dsseEnvelope"]
    payload = base64.b64decode(envelope["payload"]).replace(b"PASSED", b"FAILED")
    envelope["payload"] = base64.b64encode(payload).decode()


def forge_import(document: dict[str, Any]) -> None:
    envelope = document["bundles"][1]["dsseEnvelope"]
    payload = base64.b64decode(envelope["payload"]).replace(b'"v1"', b'"v2"')
    envelope["payload"] = base64.b64encode(payload).decode()


@pytest.mark.parametrize("lie", [forge, forge_import, lambda d: d["bundles"].clear()])
def test_a_forged_attestation_is_a_failed_signature_and_denied(
    chain: tuple[Site, Site, list[Any]], lie: Callable[[dict[str, Any]], None]
) -> None:
    _, near, changes = chain
    changes.append(attested(lie))
    result = near.sync()
    assert (result.approved, result.denied) == (0, 1)
    assert "upstream-signature-valid" in denials(result)
    # The next sync asks again, and believes an honest answer.
    changes.clear()
    result = near.sync()
    assert (result.approved, result.denied) == (1, 0)


def test_an_attestation_that_is_missing_is_what_the_policy_says_about_unsigned_kernels(
    chain: tuple[Site, Site, list[Any]],
) -> None:
    _, near, changes = chain
    changes.append(lambda path, body: None if "/attestations/" in path else body)
    assert near.sync().approved == 1  # the starter policy only warns
    assert signature(near)["status"] == "missing"
    assert "has no attestation" in signature(near)["detail"]
    policy = near.folder / "policy" / "baseline.yaml"
    text = policy.read_text(encoding="utf-8")
    assert "require-upstream-signature: warn" in text
    policy.write_text(text.replace("upstream-signature: warn", "upstream-signature: deny"))
    assert main(["trust", "update", "--config", str(near.config_path)]) == 0
    result = near.sync()
    assert result.denied == 1
    assert "require-upstream-signature" in denials(result)


def test_another_root_or_an_older_one_proves_nothing(
    chain: tuple[Site, Site, list[Any]],
) -> None:
    far, near, changes = chain
    own = (near.folder / "trust" / "root.json").read_bytes()
    theirs = (near.folder / "far-root.json").read_bytes()
    (near.folder / "far-root.json").write_bytes(own)
    (failure,) = near.sync().failures
    assert isinstance(failure.error, TrustError)
    (near.folder / "far-root.json").write_bytes(theirs)
    old = {name: (far.folder / "trust" / name).read_bytes() for name in ("timestamp.json",)}
    far.sync()
    far.lock()
    assert main(["trust", "update", "--config", str(far.config_path)]) == 0
    assert near.sync().approved == 1
    changes.append(
        lambda path, body: old["timestamp.json"] if path.endswith("timestamp.json") else body
    )
    (failure,) = near.sync().failures
    assert isinstance(failure.error, TrustError)


def test_a_trust_root_is_a_file_with_a_root_and_stands_at_a_kgate(tmp_path: Path) -> None:
    site = make_site(tmp_path / "site", "./built")
    write(site, "upstream: ./built", "upstream: {url: ./built, trust_root: x}")
    with pytest.raises(InvalidInput, match="that is a kgate"):
        load_config(site.config_path)
    write(site, "{url: ./built, trust_root: x}", "{url: 'https://far.test', trust_root: x}")
    with site.mirror() as mirror, pytest.raises(TrustError, match="cannot be read"):
        _ = mirror.upstream
    (site.folder / "x").write_text("{}", encoding="utf-8")
    with site.mirror() as mirror, pytest.raises(TrustError, match="not a trust root"):
        _ = mirror.upstream


def test_what_the_upstream_revokes_later_is_told_at_the_next_sync(
    chain: tuple[Site, Site, list[Any]],
) -> None:
    far, near, _ = chain
    assert near.sync().approved == 1
    assert not near.sync().failures
    with near.mirror() as mirror:
        (publication,) = mirror.catalog.publications()
        manifest = publication.variants[0].manifest
    config = ["--config", str(far.config_path)]
    assert main(["revoke", str(manifest), "--reason", "it leaks", *config]) == 0
    result = near.sync()
    (failure,) = result.failures
    assert isinstance(failure.error, TrustError)
    assert "https://far.test revoked" in failure.error.message
    assert "it leaks" in failure.error.message
    assert f"kgate revoke {manifest}" in failure.error.hint

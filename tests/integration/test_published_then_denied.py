"""A kernel that was published before a denial is served until it is revoked, and says so loudly."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from kgate_mirror_server.trust.revocation import revoke
from tests.asgi import ask
from tests.mirrorkit import REPO as MADE
from tests.mirrorkit import VARIANT, make_mirror
from tests.sitekit import REPO, Site, built_kernels, time_now

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

POLICY = """\
apiVersion: kgate.dev/v1
kind: Policy
name: stricter
extends: dev
---
apiVersion: kgate.dev/v1
kind: KernelPolicy
metadata: {name: nothing-from-there}
spec:
  validations:
    - expression: "false"
"""
LOUD = "is published in lane {lane} but denied by today's policy (nothing-from-there): it is still"


def test_sync_and_ls_say_what_is_published_but_denied_until_it_is_revoked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site = Site.found(tmp_path / "site", "https://denied.test", kernels=built_kernels(tmp_path))
    site.sync()
    (published,) = site.publications()
    assert site.kgate("ls") == 0
    assert "denied" not in capsys.readouterr().out
    stricter = f"lanes:\n  {published.lane}: {{policy: stricter.yaml}}\n"
    (site.folder / "stricter.yaml").write_text(POLICY, encoding="utf-8")
    site.config.write_text(site.config.read_text(encoding="utf-8") + stricter, encoding="utf-8")

    assert site.kgate("trust", "update") == 0
    capsys.readouterr()

    assert site.kgate("sync") == 1
    loud = LOUD.format(lane=published.lane)
    assert loud in " ".join(capsys.readouterr().out.split())
    assert site.kgate("ls") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert loud in said
    assert f"kgate revoke {REPO}@{published.served}" in said
    assert site.kgate("ls", "--json") == 0
    (item,) = json.loads(capsys.readouterr().out)["published_but_denied"]
    assert item["reasons"][0]["rule"] == "nothing-from-there"

    mirror = site.mirror()
    revoke(mirror, f"{REPO}@{published.served}", "denied", time_now())
    mirror.close()
    assert site.kgate("ls", "--json") == 0
    assert json.loads(capsys.readouterr().out)["published_but_denied"] == []


def test_the_page_says_it_and_keeps_quiet_about_other_bytes(tmp_path: Path) -> None:
    kit = make_mirror(tmp_path)
    publication = kit.publish()
    kit.deny(repo=MADE, upstream=publication.upstream, manifest=kit.put(b"others"))
    (item,) = ask(kit.app(), f"/k/{MADE}").json["published"]
    assert item["deniedSince"] == []
    manifest = publication.variants[0].manifest
    kit.deny(repo=MADE, upstream=publication.upstream, manifest=manifest)
    (item,) = ask(kit.app(), f"/k/{MADE}").json["published"]
    assert item["deniedSince"][0]["reasons"][0]["rule"] == "no-bytecode"
    page = ask(kit.app(), f"/k/{MADE}", headers={"accept": "text/html"}).body.decode()
    assert "published, but denied by today&#x27;s policy: served until it is revoked" in page
    assert len(ask(kit.app(), f"/api/kernels/{MADE}/tree/v1/build").json) == 1
    assert item["variant"] == VARIANT

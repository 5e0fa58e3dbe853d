"""T18: one tenant's credentials against another tenant's kernels."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from kgate_core.kernel import KernelRef
from kgate_mirror_server.catalog.tokens import SqlTokens
from kgate_mirror_server.serve.access import Grant, TokenAccess
from kgate_mirror_server.serve.settings import AccessSettings, DenyStyle
from tests.asgi import Reply, ask
from tests.clients import run_ungated
from tests.mirrorkit import COMMIT, VARIANT, MirrorKit, make_mirror, served

if TYPE_CHECKING:
    from pathlib import Path

OURS, THEIRS = KernelRef("team-a", "relu"), KernelRef("team-b", "relu")


class Tenants:
    def __init__(self, kit: MirrorKit) -> None:
        self.kit = kit
        self.tokens = SqlTokens(kit.catalog.engine)
        self.a, self.identifier = self._make("team-a")
        self.b, _ = self._make("team-b")
        for repo in (OURS, THEIRS):
            # Different bytes, so that a digest tells whose they are.
            files = {"metadata.json": b'{"name":"' + repo.org.encode() + b'"}'}
            kit.publish(kit.variant(files, repo=repo), repo=repo)
        kit.deny(repo=KernelRef("team-b", "forbidden"))
        access = TokenAccess(self.tokens.tokens, (Grant(("public/*",)),), lambda: kit.trust.now)
        self.apps = {style: kit.app(access, deny_style=style) for style in DenyStyle}

    def _make(self, team: str) -> tuple[str, str]:
        text, kept = self.tokens.create(
            team, (f"{team}/*",), (), now=self.kit.trust.now, expires_at=None
        )
        return text, kept.identifier


@pytest.fixture(scope="module")
def tenants(tmp_path_factory: pytest.TempPathFactory) -> Tenants:
    return Tenants(make_mirror(tmp_path_factory.mktemp("mirror")))


def asked(tenants: Tenants, target: str, token: str | None, style: DenyStyle) -> Reply:
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    return ask(tenants.apps[style], target, headers=headers)


def answers(tenants: Tenants, repo: str, token: str | None, style: DenyStyle) -> list[object]:
    """Return everything that can be learned about a repository, its name taken out."""
    manifest = next(
        item.variants[0].manifest
        for item in tenants.kit.catalog.publications()
        if item.repo == THEIRS
    )
    places = [
        f"/api/kernels/{repo}",
        f"/api/kernels/{repo}/refs",
        f"/api/kernels/{repo}/tree/v1/build",
        f"/api/kernels/{repo}/tree/v1?recursive=true",
        f"/api/kernels/{repo}/tree/{COMMIT}/build",
        f"/api/kernels/{repo}/tree/{COMMIT}?recursive=true",
        f"/api/kernels/{repo}/revision/{COMMIT}",
        f"/api/kernels/{repo}/commits/v1",
        f"/kernels/{repo}/resolve/v1/build/{VARIANT}/metadata.json",
        f"/kernels/{repo}/resolve/{COMMIT}/build/{VARIANT}/metadata.json",
        f"/api/models/{repo}",
        f"/{repo}/resolve/main/build/{VARIANT}/metadata.json",
        f"/api/kgate/v1/attestations/{repo}/{COMMIT}/{VARIANT}",
        f"/api/kgate/v1/attestations/by-manifest/{manifest.hex}",
        f"/k/{repo}",
        f"/l/experimental/api/kernels/{repo}/refs",
    ]
    found: list[object] = []
    for place in places:
        reply = asked(tenants, place, token, style)
        headers = {k: v for k, v in reply.headers.items() if k != "content-length"}
        text = reply.body.decode() + str(sorted(headers.items()))
        org, _, name = repo.partition("/")
        found.append((reply.status, text.replace(repo, "R").replace(org, "O").replace(name, "N")))
    return found


@pytest.mark.parametrize("style", DenyStyle)
def test_t18_anothers_kernel_answers_like_one_that_does_not_exist(
    tenants: Tenants, style: DenyStyle
) -> None:
    for token in (tenants.a, None):
        theirs = answers(tenants, "team-b/relu", token, style)
        assert theirs == answers(tenants, "team-b/unheard", token, style)
        assert theirs == answers(tenants, "team-b/forbidden", token, style)
    assert answers(tenants, "team-b/relu", tenants.b, style) != theirs


@pytest.mark.parametrize("style", DenyStyle)
def test_t18_each_tenant_reads_its_own(tenants: Tenants, style: DenyStyle) -> None:
    for org, token in (("team-a", tenants.a), ("team-b", tenants.b)):
        place = f"/kernels/{org}/relu/resolve/v1/build/{VARIANT}/metadata.json"
        reply = asked(tenants, place, token, style)
        assert reply.body == b'{"name":"' + org.encode() + b'"}'


def test_t18_style_error_does_not_tell_who_publishes(tenants: Tenants) -> None:
    for token, trusted in ((tenants.a, False), (tenants.b, True), (None, False)):
        reply = asked(tenants, "/api/organizations/team-b/overview", token, DenyStyle.ERROR)
        assert reply.json["trustedKernelPublisher"] is trusted


def test_t18_bad_credentials_are_refused_everywhere(tenants: Tenants) -> None:
    for target in ("/api/kernels/team-a/relu/refs", "/api/whoami-v2", "/nothing", "/k/team-a/relu"):
        reply = asked(tenants, target, tenants.a[:-1] + "~", DenyStyle.FALLBACK)
        assert reply.status == 401
        assert "Invalid credentials" in reply.headers["x-error-message"]
        assert reply.headers["www-authenticate"] == "Bearer"


def test_t18_the_stock_client_with_one_token_gets_one_tenants_kernels(tmp_path: Path) -> None:
    tenants = Tenants(make_mirror(tmp_path / "mirror"))
    program = """
import json, kernels
from huggingface_hub import HfApi
api, found = HfApi(), []
for repo in ("team-a/relu", "team-b/relu"):
    tree = api.list_repo_tree(repo, "build", repo_type="kernel", revision="v1")
    found.append([entry.path for entry in tree])
print(json.dumps([api.whoami()["name"], *found, kernels.has_kernel("team-b/relu", version=1)]))
"""
    settings = replace(tenants.kit.settings, access=AccessSettings(tokens=True))
    with served(settings) as address:
        said = run_ungated(program, tmp_path, endpoint=address, HF_TOKEN=tenants.a)
        assert said == ["team-a", [f"build/{VARIANT}"], [], False]
        # A revoked token is refused within a second.
        tenants.tokens.revoke(tenants.identifier, now=tenants.kit.trust.now + timedelta(seconds=1))
        program = """
import json, time
from huggingface_hub import HfApi
for _ in range(50):
    try:
        HfApi().whoami()
    except Exception as exc:
        print(json.dumps(exc.response.status_code))
        break
    time.sleep(0.1)
"""
        said = run_ungated(program, tmp_path, endpoint=address, HF_TOKEN=tenants.a)
        assert said == 401


def test_t55_a_lane_may_show_kernels_only_beside_the_shim(tenants: Tenants) -> None:
    app = tenants.kit.app(marked_lanes=frozenset({"experimental"}))
    target = "/api/kernels/team-a/relu/tree/v1/build"
    assert ask(app, target).json == []
    marked = {"user-agent": "kernels/0.17.2; hf_hub/2.4.0; origin/kgate-client"}
    assert len(ask(app, target, headers=marked).json) == 1
    attested = f"/api/kgate/v1/attestations/team-a/relu/{COMMIT}/{VARIANT}"
    assert ask(app, attested).status == 200

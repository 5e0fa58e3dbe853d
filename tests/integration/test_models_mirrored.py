"""Models pinned in kgate.yaml, fetched, judged, signed and served like kernels (T49, T53, T58)."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from kgate_core.kernel import WHOLE, KernelId, KernelRef, RepoType, Revision
from kgate_core.verify import Expected, Rejected, Verified, verify
from kgate_mirror_server.hubsim import HubSimulator
from kgate_mirror_server.hubsim.faults import Corrupt
from kgate_mirror_server.trust.founding import Founding, found_site
from tests.clients import run_ungated
from tests.mirrorkit import FILES, VARIANT, served
from tests.sitekit import Site, time_now

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kgate_mirror_server.ingest.sync import SyncResult

MAKE_TINY = """
import sys
from transformers import BertConfig, BertModel
config = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1,
                    intermediate_size=8, vocab_size=16, max_position_embeddings=8)
BertModel(config).save_pretrained(sys.argv[1])
"""
CODE = {
    "config.json": b'{"auto_map": {"AutoModel": "modeling.Model"}}',
    "modeling.py": b"print('owned')",
    "pytorch_model.bin": b"\\x80\\x04owned",
    "model.safetensors": b"safe" * 1000,
}
TWIN = {"config.json": b'{"model_type": "tiny"}', "model.safetensors": b"twin" * 3000}


def lay(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "model"
    subprocess.run([sys.executable, "-c", MAKE_TINY, str(folder)], check=True, timeout=120)
    return folder


@pytest.fixture
def hub() -> Iterator[HubSimulator]:
    with HubSimulator() as hub:
        yield hub


def make_site(folder: Path, hub: HubSimulator, models: str, kernels: str = "[]") -> Site:
    found_site(folder, Founding(upstream=hub.url, site="https://models.test"), time_now())
    site = Site(folder)
    text = site.config.read_text(encoding="utf-8").replace("kernels: []", f"kernels: {kernels}")
    site.config.write_text(f"{text}\nmodels: {models}\n", encoding="utf-8")
    return site


def pin(repo: str, commit: str, **more: Any) -> dict[str, Any]:
    return {"repo": repo, "revision": commit, **more}


def models(*pins: dict[str, Any], **more: Any) -> str:
    return json.dumps({"mirror": list(pins), **more})


def outcome(result: SyncResult) -> list[tuple[str, bool, list[str]]]:
    return [
        (
            item.pin.repo,
            item.decision.allowed,
            [said.rule for said in (*item.decision.denials, *item.decision.warnings)],
        )
        for item in result.models.models
    ]


def get(url: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(url, timeout=20) as reply:
            return reply.status, reply.read()
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code, exc.read()


LOAD = """
import json, sys
from pathlib import Path
from huggingface_hub import HfApi, snapshot_download
from transformers import AutoModel
folder = Path(snapshot_download("acme/tiny"))
names = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
checked = HfApi().verify_repo_checksums("acme/tiny")
info = HfApi().model_info("acme/tiny", files_metadata=True)
only = Path(snapshot_download("acme/tiny", revision=info.sha, allow_patterns=["*.json"]))
model = AutoModel.from_pretrained("acme/tiny")
print(json.dumps([names, len(checked.mismatches), info.sha, folder.name,
                  sum(p.numel() for p in model.parameters()) > 0]))
"""


def test_a_pinned_model_is_fetched_signed_and_loaded_by_real_clients(
    tmp_path: Path, hub: HubSimulator, tiny: Path
) -> None:
    commit = hub.publish("acme/tiny", tiny, branch="main")
    site = make_site(tmp_path / "site", hub, models(pin("acme/tiny", commit)))

    assert outcome(site.sync()) == [("acme/tiny", True, [])]

    hub.take_down("acme/tiny")
    hub.forget_requests()
    with served(site.mirror().serve_settings()) as address:
        home = tmp_path / "home"
        home.mkdir()
        names, bad, sha, folder, loaded = run_ungated(LOAD, home, endpoint=address)
    assert names == sorted(path.name for path in tiny.iterdir())
    assert (bad, sha, folder, loaded) == (0, commit, commit, True)
    assert hub.requests == ()


def test_a_model_that_was_published_costs_no_request_the_next_time(
    tmp_path: Path, hub: HubSimulator
) -> None:
    commit = hub.publish("acme/twin", lay(tmp_path / "twin", TWIN), branch="main")
    site = make_site(tmp_path / "site", hub, models(pin("acme/twin", commit)))
    first = site.sync()
    hub.forget_requests()

    again = site.sync()

    assert [item.fresh for item in (*first.models.models, *again.models.models)] == [True, False]
    assert hub.requests == ()
    assert len(site.publications()) == 1


def test_t53_code_in_a_model_is_named_in_experimental_and_refused_in_production(
    tmp_path: Path, hub: HubSimulator
) -> None:
    commit = hub.publish("acme/code", lay(tmp_path / "code", CODE), branch="main")
    site = make_site(
        tmp_path / "site",
        hub,
        models(pin("acme/code", commit), pin("acme/code", commit, lane="production")),
    )

    result = site.sync()

    rules = ["model-no-code", "model-no-auto-map"]
    assert outcome(result) == [("acme/code", True, rules), ("acme/code", False, rules)]
    refused = result.models.models[1].decision.denials[0]
    assert "modeling.py is code" in refused.seen
    assert "pytorch_model.bin may be a pickle" in refused.seen
    assert {(item.repo_type, item.lane) for item in site.publications()} == {
        (RepoType.MODEL, "experimental")
    }
    with served(site.mirror().serve_settings()) as address:
        place = "acme/code/resolve/main/modeling.py"
        assert get(f"{address}/{place}") == (200, CODE["modeling.py"])
        assert get(f"{address}/l/production/{place}")[0] == 404
        status, page = get(f"{address}/l/production/k/acme/code")
    assert status == 200
    assert b"model-no-auto-map" in page


def test_t53_weights_of_a_refused_model_are_never_fetched(
    tmp_path: Path, hub: HubSimulator
) -> None:
    commit = hub.publish("acme/code", lay(tmp_path / "code", CODE), branch="main")
    site = make_site(tmp_path / "site", hub, models(pin("acme/code", commit, lane="production")))
    hub.forget_requests()

    assert outcome(site.sync())[0][1] is False

    assert not any("safetensors" in request.path for request in hub.requests)


def test_t53_an_allowed_model_and_one_without_its_code_come_into_production(
    tmp_path: Path, hub: HubSimulator
) -> None:
    commit = hub.publish("acme/code", lay(tmp_path / "code", CODE), branch="main")
    lane = {"lane": "production"}
    allowed = make_site(
        tmp_path / "one",
        hub,
        models(pin("acme/code", commit, **lane), code_allowed=["acme/*"]),
    )
    filtered = make_site(
        tmp_path / "two", hub, models(pin("acme/code", commit, files=["*.safetensors"], **lane))
    )

    assert [item[1] for item in (*outcome(allowed.sync()), *outcome(filtered.sync()))] == [
        True, True,
    ]  # fmt: skip
    (only,) = filtered.publications()
    assert [file.path for file in only.variants[0].files] == ["model.safetensors"]


def test_t58_a_repository_of_kernel_builds_is_no_model(tmp_path: Path, hub: HubSimulator) -> None:
    build = {f"build/{VARIANT}/{name}": data for name, data in FILES.items()}
    commit = hub.publish("acme/relu", lay(tmp_path / "relu", build), branch="main")
    site = make_site(tmp_path / "site", hub, models(pin("acme/relu", commit), code_allowed=["*"]))

    ((_, allowed, rules),) = outcome(site.sync())

    assert not allowed
    assert "model-no-kernel" in rules
    assert site.publications() == []


def test_t49_a_model_and_a_kernel_of_one_name_never_stand_for_one_another(
    tmp_path: Path, hub: HubSimulator
) -> None:
    commit = hub.publish("acme/twin", lay(tmp_path / "twin", TWIN), branch="main")
    site = make_site(tmp_path / "site", hub, models(pin("acme/twin", commit)))
    site.sync()
    mirror = site.mirror()
    (publication,) = mirror.catalog.publications()
    (variant,) = publication.variants
    manifest = mirror.room.manifest(variant.evidence)
    bundles = [mirror.room.read(digest) for digest in variant.bundles]
    trusted, now = mirror.trusted(time_now()), time_now()
    asked = Expected(WHOLE, "experimental", publication.repo, publication.served, RepoType.MODEL)

    assert isinstance(verify(asked, manifest, bundles, trusted, now=now), Verified)
    for lie in (
        replace(asked, repo_type=RepoType.KERNEL),
        replace(asked, variant=VARIANT),
        replace(asked, repo=KernelRef("acme", "other")),
        replace(asked, lane="production"),
    ):
        assert isinstance(verify(lie, manifest, bundles, trusted, now=now), Rejected), lie
    with served(mirror.serve_settings()) as address:
        assert get(f"{address}/api/kernels/acme/twin/tree/v1/build") == (200, b"[]")
        assert get(f"{address}/kernels/acme/twin/resolve/{commit}/config.json")[0] == 404
        assert get(f"{address}/acme/twin/resolve/{commit}/config.json")[0] == 200
    mirror.close()


def test_files_of_a_model_that_widen_get_a_revision_of_their_own(
    tmp_path: Path, hub: HubSimulator
) -> None:
    commit = hub.publish("acme/twin", lay(tmp_path / "twin", TWIN), branch="main")
    site = make_site(tmp_path / "site", hub, models(pin("acme/twin", commit, files=["*.json"])))
    site.sync()
    text = site.config.read_text(encoding="utf-8")
    site.config.write_text(text.replace('"files": ["*.json"]', '"files": ["*"]'), encoding="utf-8")

    (widened,) = site.sync().models.models

    assert widened.fresh
    assert widened.served not in {None, Revision(commit)}
    assert {str(item.served): len(item.variants[0].files) for item in site.publications()} == {
        commit: 1,
        str(widened.served): 2,
    }


def test_bytes_that_upstream_did_not_promise_publish_nothing(
    tmp_path: Path, hub: HubSimulator
) -> None:
    commit = hub.publish("acme/twin", lay(tmp_path / "twin", TWIN), branch="main")
    site = make_site(tmp_path / "site", hub, models(pin("acme/twin", commit)))
    hub.inject(Corrupt(), "*model.safetensors")

    result = site.sync()

    assert [item.error.code for item in result.failed] == ["integrity"]
    assert site.publications() == []


def test_the_command_line_says_what_became_of_models(
    tmp_path: Path, hub: HubSimulator, capsys: pytest.CaptureFixture[str]
) -> None:
    commit = hub.publish("acme/code", lay(tmp_path / "code", CODE), branch="main")
    site = make_site(tmp_path / "site", hub, models(pin("acme/code", commit, lane="production")))

    assert site.kgate("sync") == 1
    said = capsys.readouterr().out
    assert "model acme/code@" in said
    assert "deny: model-no-code: modeling.py is code" in said
    assert site.kgate("sync", "--json") == 1
    (model,) = json.loads(capsys.readouterr().out)["models"]
    assert (model["allowed"], model["reasons"][0]["rule"]) == (False, "model-no-code")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('{"mirror": [{"repo": "acme/x", "revision": "main"}]}', "not a commit"),
        ('{"mirror": [{"repo": "acme", "revision": "%s"}]}' % ("0" * 40), "not a repository name"),
        ("{}", "give mirror: pins or delegate"),
        ('{"mirror": [{"repo": "acme/x", "revision": "%s", "x": 1}]}' % ("0" * 40), "not known"),
    ],
)
def test_a_model_pin_that_moves_or_is_misspelt_is_refused(
    tmp_path: Path, hub: HubSimulator, text: str, complaint: str
) -> None:
    from kgate_core.errors import InvalidInput

    site = make_site(tmp_path / "site", hub, text)
    with pytest.raises(InvalidInput, match=complaint):
        site.mirror()


def test_a_model_is_named_without_a_build_folder() -> None:
    model = KernelId(
        "https://huggingface.co",
        RepoType.MODEL,
        KernelRef("acme", "tiny"),
        Revision("0" * 40),
        WHOLE,
    )
    assert KernelId.parse_purl(model.purl) == model
    assert "#" not in model.purl

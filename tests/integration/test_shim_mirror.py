"""Through a real mirror, from the first download on: load, revoke, fall back, keep, follow a lock.

The mirror is `kgate serve` in a process of its own, its catalog and trust folder on disk; the pods
start with the pinned root and empty caches, the client is the stock one with the shim.
"""

from __future__ import annotations

import json
import time
import urllib.request
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from kgate_core.kernel import KernelRef, Revision
from kgate_core.lock import LockedVariant
from kgate_core.ondeny import OnDeny
from kgate_mirror_server.trust.files import write_trust
from kgate_signer import trustchanges
from tests.integration.test_shim_matrix import NORM
from tests.mirrorkit import MirrorKit, commit_of, make_mirror, served
from tests.podkit import FILES, MODEL, REPO, VARIANT, Pod, lock_of
from tests.trustkit import EXPERIMENTAL, manifest_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from kgate_core.digest import Digest
    from kgate_signer.trustwriter import TrustSet

MOVING = "acme/moving"
MINTED = "acme/minted"
SLOW = 10  # seconds that a mirror may take to notice a change


def _files(name: str, factor: int) -> dict[str, bytes]:
    metadata = json.loads(FILES["metadata.json"]) | {"id": f"_{name}_0001", "name": name}
    return FILES | {
        "metadata.json": json.dumps(metadata).encode(),
        "numbers.py": b"FACTOR = %d\n" % factor,
    }


LLAMA = _files("norm", 2) | {"layers.py": NORM}
FIRST, SECOND = _files("moving", 2), _files("moving", 20)
NARROW = _files("minted", 3)

# A model is run on its own layers, then on the hub's kernel, if that is to be had.
TRANSFORMERS = f"""
import json
import torch
from kernels import LayerRepository, use_kernel_mapping
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.integrations import hub_kernels

torch.manual_seed(0)
model = LlamaForCausalLM(LlamaConfig(
    vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
    num_attention_heads=2, num_key_value_heads=2)).eval()
own = model.model.norm.forward.__func__
with torch.no_grad():
    plain = model(torch.arange(8).unsqueeze(0)).logits
repo = LayerRepository({REPO!r}, layer_name="LlamaRMSNorm", version=1)
with use_kernel_mapping({{"RMSNorm": {{"cpu": repo}}}}, inherit_mapping=False):
    hub_kernels.kernelize(model)
with torch.no_grad():
    logits = model(torch.arange(8).unsqueeze(0)).logits
print(json.dumps(["own" if model.model.norm.forward.__func__ is own else "kernel",
                  torch.equal(plain, logits), logits.double().tolist()]))
"""
GET = """
import json
from kernels import get_kernel
from kgate_client import KgateRefusal
try:
    print(json.dumps(get_kernel({repo!r}, version=1).double(1)))
except KgateRefusal as exc:
    print(json.dumps(exc.reason))
"""


class _Site:
    """A mirror, and what its operator does to it while it runs."""

    def __init__(self, kit: MirrorKit, address: str) -> None:
        self._kit = kit
        self.trust = kit.trust
        self.address = address

    def publish(self, repo: str, served_as: str, *variants: str, **changes: Any) -> Revision:
        """Publish files as v1 of a kernel under a made-up commit, and return that."""
        files: Mapping[str, bytes] = changes.pop("files")
        revision, ref = commit_of(served_as), KernelRef.parse(repo)
        upstream = commit_of(changes.pop("upstream", served_as))
        signed = [
            self._kit.variant(
                files,
                repo=ref,
                served=revision,
                variant=variant,
                metadata_id=json.loads(files["metadata.json"])["id"],
                upstream_revision=upstream,
            )
            for variant in variants
        ]
        self._kit.publish(*signed, repo=ref, served=revision, upstream=upstream)
        self._until(lambda: str(revision) in self._branches(repo))
        return revision

    def revoke(self, digest: Digest, repo: str, revision: Revision) -> None:
        """Sign that a manifest is revoked, and wait until it is no longer listed."""
        offline, now = self.trust.offline, self.trust.now
        self.sign(trustchanges.revoke_digest(self.trust.trust, digest, "CVE-1", offline, now=now))
        tree = f"/api/kernels/{repo}/tree/{revision}/build?recursive=false&expand=false"
        self._until(lambda: self._get(tree) == [])

    def choose(self, repo: str, choice: OnDeny) -> None:
        """Sign what becomes of a refused kernel."""
        lane = replace(self.trust.trusted().lanes[EXPERIMENTAL], on_deny={repo: choice})
        offline, now = self.trust.offline, self.trust.now
        self.sign(trustchanges.set_lane(self.trust.trust, lane, offline, now=now))

    def sign(self, trust: TrustSet) -> None:
        """Publish changed trust metadata."""
        self.trust = self.trust.changed(trust)
        write_trust(self._kit.root / "trust", self.trust.trust)

    def pod(self, home: Path) -> Pod:
        """Return a pod that has pinned the root and nothing else."""
        pod = Pod(home, self.trust)
        pod.root.write_bytes(self.trust.pinned)
        return pod

    def online(self, **changes: str | None) -> dict[str, str | None]:
        """Return a pod's settings."""
        return {"HF_HUB_OFFLINE": None, "HF_ENDPOINT": self.address, **changes}

    def _branches(self, repo: str) -> set[str]:
        refs = self._get(f"/api/kernels/{repo}/refs")
        return {branch["targetCommit"] for branch in refs["branches"]}

    def _get(self, path: str) -> Any:
        with urllib.request.urlopen(self.address + path, timeout=SLOW) as response:
            return json.load(response)

    @staticmethod
    def _until(happened: Callable[[], bool]) -> None:
        end = time.monotonic() + SLOW
        while not happened():
            assert time.monotonic() < end, "the mirror did not take notice"
            time.sleep(0.05)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Site]:
    kit = make_mirror(tmp_path_factory.mktemp("mirror"))
    with served(kit.settings) as address:
        yield _Site(kit, address)


def test_a_transformers_model_runs_with_the_kernel_and_after_its_revocation_without(
    site: _Site, tmp_path: Path
) -> None:
    """The same numbers all along; and a pod that is offline later still knows of the revocation."""
    revision = site.publish(REPO, "llama", VARIANT, files=LLAMA)
    pod = site.pod(tmp_path)

    loaded = pod.run(TRANSFORMERS, **site.online())
    site.revoke(manifest_of(LLAMA).digest, REPO, revision)
    cached = pod.run(TRANSFORMERS)
    refused = pod.run(TRANSFORMERS, **site.online())
    offline = pod.run(TRANSFORMERS)

    # The client asked for the kernel in its cache: nothing told this pod of the revocation yet,
    # and its metadata is younger than the lane's window.
    assert (loaded.value[0], cached.value[0]) == ("kernel", "kernel")
    # The mirror no longer lists a build: the load fails before the gate, and that hurries trust.
    assert (refused.value[0], offline.value[0]) == ("own", "own")
    assert {report["reason"] for report in refused.reports} == {"no-build"}
    assert {report["reason"] for report in offline.reports} == {"revoked"}
    assert "kernel ran from " + str(pod.cache / "sealed") in loaded.stdout
    assert "kernel ran" not in refused.stdout + offline.stdout
    runs = (loaded, cached, refused, offline)
    assert [run.value[1:] for run in runs] == [[True, loaded.value[2]]] * 4


def test_a_layer_keeps_the_version_of_before_when_its_branch_moved_to_a_revoked_one(
    site: _Site, tmp_path: Path
) -> None:
    first = site.publish(MOVING, "moving, first", VARIANT, files=FIRST)
    site.choose(MOVING, OnDeny.KEEP_PREVIOUS)
    pod = site.pod(tmp_path)
    layer = MODEL + f"\nprint(json.dumps(run(repo={MOVING!r}, version=1)))"
    before = pod.run(layer, **site.online())

    second = site.publish(MOVING, "moving, second", VARIANT, files=SECOND)
    site.revoke(manifest_of(SECOND).digest, MOVING, second)
    kept = pod.run(layer, **site.online())
    function = pod.run(GET.format(repo=MOVING), **site.online())
    nothing = tmp_path / "another"
    nothing.mkdir()
    fresh = site.pod(nothing).run(layer, **site.online())

    assert before.value == kept.value == {"outcome": "loaded", "value": [2.0, 2.0]}
    assert {(r["outcome"], r["revision"]) for r in kept.reports} == {("kept", str(first))}
    assert function.value == 2
    assert fresh.value == {"outcome": "fallback", "value": [2.0, 2.0]}


def test_a_lock_holds_where_the_mirror_minted_a_revision_for_more_variants(
    site: _Site, tmp_path: Path
) -> None:
    """The locked files are found under the minted revision; another pod's lock leads back."""
    narrow = site.publish(MINTED, "narrow", VARIANT, files=NARROW)
    wide = site.publish(MINTED, "wide", VARIANT, "torch-cuda", files=NARROW, upstream="narrow")
    lock = tmp_path / "kgate.lock"
    locked = LockedVariant(manifest_of(NARROW).digest, 1, 1)
    lock.write_bytes(
        lock_of(repo=KernelRef.parse(MINTED), commit=narrow, variants={VARIANT: locked})
    )
    get = GET.format(repo=MINTED)
    pod = site.pod(tmp_path)

    minted = pod.run(get, **site.online(KGATE_LOCK=str(lock)))
    moved = site.publish(MINTED, "moved on", VARIANT, files=_files("minted", 30))
    back = pod.run(get, **site.online(KGATE_LOCK=str(lock)))
    unlocked = pod.run(get, **site.online())

    assert [run.value for run in (minted, back, unlocked)] == [3, 3, 30]
    revisions = [run.reports[0]["revision"] for run in (minted, back, unlocked)]
    assert revisions == [str(wide), str(narrow), str(moved)]

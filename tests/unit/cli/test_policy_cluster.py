"""`kgate policy eval --cluster`: a dump is asked about, workload by workload."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from kgate_cli.main import main
from kgate_mirror_server.examples import default_cache
from kgate_mirror_server.examples.build import build_gelu_and_mul
from tests import repos
from tests.ingestkit import make_site

if TYPE_CHECKING:
    from pathlib import Path

    from tests.ingestkit import Site

REPO = "kernels-community/gelu-and-mul"
PODS = """\
apiVersion: kgate.dev/v1
kind: KernelPolicy
metadata: {name: internal-images}
spec:
  matchConstraints:
    resourceRules: [{apiGroups: [""], apiVersions: [v1], resources: [pods], operations: [CREATE]}]
  validations:
    - expression: object.spec.containers.all(c, c.image.startsWith('registry.internal/'))
      message: images come from registry.internal
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    folder = tmp_path_factory.mktemp("cluster")
    built = build_gelu_and_mul(default_cache(os.environ), native=False, cuda=False)
    repos.copy_repo(built, folder / "built" / REPO)
    made = make_site(folder / "site", str(folder / "built"))
    made.pin(f"repo: {REPO}, version: 1")
    made.sync()
    return made


def pod(name: str, *, kernels: str = "", image: str = "registry.internal/x", **env: str) -> Any:
    head: dict[str, Any] = {"name": name, "namespace": "chat"}
    if kernels:
        head["annotations"] = {"kgate.dev/kernels": kernels}
    variables = [{"name": key, "value": value} for key, value in env.items()]
    container = {"name": "main", "image": image, "env": variables}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": head,
        "spec": {"containers": [container]},
    }


def ask(
    site: Site, folder: Path, capsys: pytest.CaptureFixture[str], *words: str, pods: list[Any]
) -> tuple[int, Any]:
    dump = folder / "dump.json"
    dump.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": pods}))
    command = ["policy", "eval", "--cluster", str(dump), "--config", str(site.config_path)]
    code = main([*command, "--json", *words])
    return code, json.loads(capsys.readouterr().out)


def test_a_mirrored_kernel_of_a_pod_is_decided_and_others_are_counted(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pods = [pod("vllm", kernels=f"{REPO}@v1"), pod("coredns")]
    code, said = ask(site, tmp_path, capsys, pods=pods)
    assert (code, said["schema"], said["others"]) == (0, "kgate.dev/policy-eval/v1", 1)
    (answer,) = said["workloads"]
    assert answer["workload"] == "Pod chat/vllm"
    assert [item["allowed"] for item in answer["kernels"]] == [True]
    strict = tmp_path / "strict.yaml"
    strict.write_text("apiVersion: kgate.dev/v1\nkind: Policy\nname: s\nextends: production\n")
    code, said = ask(site, tmp_path, capsys, "--policy", str(strict), pods=pods)
    assert code == 1
    assert said["workloads"][0]["kernels"][0]["policy"] == "s"


@pytest.mark.parametrize(
    ("kernels", "env"),
    [
        ("acme/relu@v1", {}),
        (f"{REPO}@v2", {}),
        (REPO, {}),
        ("nonsense", {}),
        (f"{REPO}@main", {}),
        (f"{REPO}@v1", {"KGATE_LANE": "production"}),
    ],
)
def test_a_kernel_that_is_not_mirrored_in_the_lane_or_not_pinned_is_a_no(
    site: Site,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    kernels: str,
    env: dict[str, str],
) -> None:
    code, said = ask(site, tmp_path, capsys, pods=[pod("vllm", kernels=kernels, **env)])
    assert code == 1
    assert said["workloads"][0]["not_mirrored"] == [kernels]


def test_policies_about_pods_are_asked_about_every_pod(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = tmp_path / "policy.yaml"
    head = "apiVersion: kgate.dev/v1\nkind: Policy\nname: s\nextends: dev\n"
    policy.write_text(f"{head}---\n{PODS}")
    pods = [pod("inside"), pod("outside", image="docker.io/x")]
    code, said = ask(site, tmp_path, capsys, "--policy", str(policy), pods=pods)
    assert code == 1
    assert {item["workload"]: item["allowed"] for item in said["workloads"]} == {
        "Pod chat/inside": True,
        "Pod chat/outside": False,
    }
    seen = said["workloads"][1]["results"][0]["seen"]
    assert "images come from registry.internal" in seen


def test_what_gets_around_the_mirror_is_named(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pods = [pod("vllm", LOCAL_KERNELS="a/b=/tmp", HF_ENDPOINT="https://huggingface.co")]
    code, said = ask(site, tmp_path, capsys, pods=pods)
    assert code == 0
    seen = " ".join(item["seen"] for item in said["workloads"][0]["findings"])
    assert "LOCAL_KERNELS" in seen
    assert "huggingface.co" in seen
    assert main(["policy", "eval", "--cluster", "nowhere.json", "--config", str(site.config_path)])
    assert main(["policy", "eval", REPO, "--cluster", "nowhere.json"]) == 2


def test_people_read_workload_lane_and_reason(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dump = tmp_path / "dump.json"
    dump.write_text(json.dumps(pod("vllm", kernels=f"{REPO}@v1, acme/relu@v1")))
    command = ["policy", "eval", "--cluster", str(dump), "--config", str(site.config_path)]
    assert main(command) == 1
    out = capsys.readouterr().out
    assert "Pod chat/vllm (lane experimental, annotation kgate.dev/kernels): denied" in out
    assert "acme/relu@v1: not mirrored in lane experimental" in out

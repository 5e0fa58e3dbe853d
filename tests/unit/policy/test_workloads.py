"""Objects of a cluster: found in dumps of any kind, with what they state about kernels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from kgate_core.errors import InvalidInput
from kgate_core.evidence import Outcome
from kgate_policy.document import load_expressions, read_all
from kgate_policy.expressions.running import judge
from kgate_policy.workloads import Workload, read_workloads
from tests.policykit import NOW

UPSTREAM = Path(__file__).parents[2] / "assets" / "upstream"
COMMIT = "8f3e" * 10


def pod(name: str = "vllm", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "chat", "uid": name},
        "spec": {"containers": [{"name": "main", "image": "registry.internal/vllm:1"}]} | spec,
    }


def read(*objects: Any) -> tuple[Workload, ...]:
    dump = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
    return read_workloads(json.dumps(dump).encode(), source="dump.json")


def test_an_annotation_on_a_pod_or_its_template_names_the_kernels() -> None:
    kernels = f"acme/relu@v1, acme/gelu@{COMMIT},"
    plain = pod() | {"metadata": {"name": "a", "annotations": {"kgate.dev/kernels": kernels}}}
    template = {"metadata": {"annotations": {"kgate.dev/kernels": kernels}}, "spec": pod()["spec"]}
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "b", "namespace": "chat"},
        "spec": {"template": template},
    }
    first, second = read(plain, deployment)
    assert first.kernels == second.kernels == ("acme/relu@v1", f"acme/gelu@{COMMIT}")
    assert (first.name, second.name) == ("Pod a", "Deployment chat/b")
    assert second.request == {
        "operation": "CREATE",
        "group": "apps",
        "version": "v1",
        "resource": "deployments",
        "namespace": "chat",
        "name": "b",
    }


def test_a_lock_in_a_config_map_names_the_kernels_by_digest() -> None:
    manifest = f"sha256:{'ab' * 32}"
    kernel = {
        "repo": "acme/relu",
        "pin": "v1",
        "commit": COMMIT,
        "lane": "production",
        "origin": "https://huggingface.co",
        "type": "kernel",
        "variants": {"torch-cpu": {"manifest": manifest, "size": 1, "files": 1}},
        "depends": [],
        "patterns": ["*"],
    }
    lock = {"schema": "kgate.dev/lock/v1", "kernels": [kernel]}
    config = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "kernels", "namespace": "chat"},
        "data": {"kgate.lock": json.dumps(lock)},
    }
    mounted = pod(volumes=[{"name": "lock", "configMap": {"name": "kernels"}}])
    (found,) = read(config, mounted)
    assert found.kernels == (manifest,)
    assert found.source == "kgate.lock in the ConfigMap kernels"
    elsewhere = mounted | {"metadata": {"name": "x", "namespace": "other"}}
    assert read(config, elsewhere)[0].kernels == ()


@pytest.mark.parametrize(
    ("env", "lane"),
    [
        ({"KGATE_LANE": "production"}, "production"),
        ({"HF_ENDPOINT": "http://kgate:8800/l/staging"}, "staging"),
        ({"HF_ENDPOINT": "http://kgate:8800"}, None),
        ({"HF_ENDPOINT": "http://kgate:8800/l/staging", "KGATE_LANE": "production"}, "production"),
    ],
)
def test_the_lane_comes_from_the_environment(env: dict[str, str], lane: str | None) -> None:
    variables = [{"name": name, "value": value} for name, value in env.items()]
    (found,) = read(pod(containers=[{"image": "x", "env": variables}]))
    assert found.lane == lane
    assert found.concerned


def test_a_pod_is_left_out_if_its_owner_speaks_for_it() -> None:
    owner = pod("owner")
    owned = pod("owned")
    owned["metadata"]["ownerReferences"] = [{"uid": "owner"}]
    stray = pod("stray")
    stray["metadata"]["ownerReferences"] = [{"uid": "not in the dump"}]
    assert [item.name for item in read(owner, owned, stray)] == ["Pod chat/owner", "Pod chat/stray"]


def test_a_gpu_makes_a_pod_one_to_ask_about_and_nothing_else_does() -> None:
    for resource, concerned in (("nvidia.com/gpu", True), ("amd.com/gpu", True), ("cpu", False)):
        resources = {"limits": {resource: 1}}
        (found,) = read(pod(containers=[{"image": "x", "resources": resources}]))
        assert found.concerned is concerned


@pytest.mark.parametrize("path", sorted(UPSTREAM.glob("[kgl]*-*.yaml")), ids=lambda p: p.stem)
def test_manifests_of_other_projects_are_read_as_yaml_and_as_json(path: Path) -> None:
    found = read_workloads(path.read_bytes(), source=path.name)
    documents = [item for item in yaml.safe_load_all(path.read_bytes()) if item]
    assert found
    assert len(found) <= len(documents)
    as_json = read_workloads(json.dumps(documents, default=str).encode(), source="json")
    assert [item.name for item in as_json] == [item.name for item in found]


@pytest.mark.parametrize(
    "text", ["[1]", '{"items": [{"kind": "Pod"}]}', "kind: Pod\n", "a: &a [*a]\n", "{", "- a\n"]
)
def test_what_is_no_dump_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        read_workloads(text.encode(), source="dump")


def test_ten_thousand_levels_in_an_object_are_refused_and_end_nothing() -> None:
    deep = '{"a":' * 10_000 + "1" + "}" * 10_000
    with pytest.raises(InvalidInput):
        read_workloads(deep.encode(), source="dump")


POLICY = """\
apiVersion: kgate.dev/v1
kind: KernelPolicy
metadata: {name: internal}
spec:
  matchConstraints:
    resourceRules: [{apiGroups: [""], apiVersions: [v1], resources: [pods], operations: [CREATE]}]
  validations:
    - expression: object.spec.containers.all(c, c.image.startsWith(params.registry))
  params: {registry: registry.internal/}
"""


def test_a_policy_about_objects_alone_is_asked_once_with_or_without_kernels() -> None:
    (policy,) = load_expressions(read_all(POLICY.encode()))
    inside, outside = read(pod(), pod(containers=[{"image": "docker.io/x"}]))
    for workload, outcome in ((inside, Outcome.PASS), (outside, Outcome.DENY)):
        around = {"request": workload.request, "object": workload.object}
        (result,) = judge(policy, [], now=NOW, surroundings=around)
        assert result.outcome is outcome


def test_a_policy_about_kernels_is_not_satisfied_by_a_pod_that_names_none() -> None:
    text = POLICY.replace(
        "object.spec.containers.all(c, ", "kernel.backend == 'cuda' || ("
    ).replace("c.image.startsWith(params.registry))", "false)")
    (policy,) = load_expressions(read_all(text.encode()))
    (workload,) = read(pod())
    around = {"request": workload.request, "object": workload.object}
    (result,) = judge(policy, [], now=NOW, surroundings=around)
    assert result.outcome is Outcome.DENY
    assert "empty set" in result.seen

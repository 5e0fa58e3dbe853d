"""What deploy/kustomize renders to: Kubernetes' own schemas, and rules of our own.

Nothing is applied to a cluster here.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import click
import jsonschema
import kubernetes_validate
import pytest
import yaml

from kgate_core.lock import Lock
from kgate_mirror_server.settings.site import load_config
from kgate_mirror_server.trust.founding import Founding, found_site
from tests.commandlines import check_command
from tests.kustomization import FOLDER, MERGE_KEYS, OVERLAYS, Object, containers, pods, render
from tests.sitekit import time_now

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ROOT: Final = FOLDER.parents[1]
# The oldest with all that is used here, one between, and the newest whose schemas are there.
VERSIONS: Final = ("1.28", "1.32", "1.37")
# What operators of a cluster make themselves, as docs/deploy.md says.
GIVEN: Final = {
    "ConfigMap": {"kgate-trust"},
    "Secret": {
        "kgate-admit-key", "kgate-timestamp-key",
        "kgate-database-owner", "kgate-database-ingest", "kgate-database-signer",
        "kgate-database-serve", "kgate-store-read", "kgate-store-write",
    },
}  # fmt: skip
CUSTOM: Final[dict[str, Object]] = {
    "Route": {
        "type": "object",
        "required": ["to", "port", "tls"],
        "additionalProperties": False,
        "properties": {
            "to": {"properties": {"kind": {"const": "Service"}}, "required": ["kind", "name"]},
            "port": {"required": ["targetPort"]},
            "tls": {
                "properties": {
                    "termination": {"enum": ["edge", "passthrough", "reencrypt"]},
                    "insecureEdgeTerminationPolicy": {"enum": ["None", "Redirect"]},
                },
                "additionalProperties": False,
            },
        },
    },
    "ServiceMonitor": {
        "type": "object",
        "required": ["selector", "endpoints"],
        "additionalProperties": False,
        "properties": {
            "selector": {"required": ["matchLabels"]},
            "endpoints": {"items": {"required": ["port", "path"]}, "minItems": 1},
        },
    },
}

everywhere = pytest.mark.parametrize("overlay", OVERLAYS)


@cache
def _rendered(overlay: str) -> str:
    return json.dumps(render(FOLDER / "overlays" / overlay))


def objects(overlay: str, kind: str = "") -> list[Object]:
    """Return an overlay's objects of one kind, or all."""
    return [item for item in json.loads(_rendered(overlay)) if kind in {"", item["kind"]}]


def every_container(overlay: str) -> Iterator[tuple[str, Object, Object]]:
    for name, template in pods(objects(overlay)):
        for container in containers(template):
            yield f"{name}/{container['name']}", template, container


def component(template: Object) -> str:
    return str(template["metadata"]["labels"]["app.kubernetes.io/component"])


def secrets(template: Object) -> set[str]:
    """Return the names of all Secrets that a pod mounts."""
    found = set()
    for volume in template["spec"]["volumes"]:
        found.add(volume.get("secret", {}).get("secretName"))
        for source in volume.get("projected", {}).get("sources", ()):
            found.add(source["secret"]["name"])
    return found - {None}


def matches(selector: Object, labels: Object) -> bool:
    return all(labels.get(k) == v for k, v in selector.get("matchLabels", {}).items()) and all(
        labels.get(wanted["key"]) in wanted["values"]
        for wanted in selector.get("matchExpressions", ())
    )


# ------------------------------------------------------------------ what they are


@pytest.fixture(scope="module", autouse=True)
def _schemas_are_read_once() -> Iterator[None]:
    # The library reads megabytes of definitions again for each object.
    once = cache(kubernetes_validate.utils.schema_contents)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kubernetes_validate.utils, "schema_contents", once)
        yield


@everywhere
@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_what_kubernetes_knows_and_nothing_more(overlay: str, version: str) -> None:
    own = [item for item in objects(overlay) if item["kind"] not in CUSTOM]
    assert len(own) > 8
    for item in own:
        kubernetes_validate.validate(item, version, strict=True)


def test_a_field_that_kubernetes_does_not_know_would_be_found() -> None:
    (deployment,) = objects("embedded", "Deployment")
    deployment["spec"]["template"]["spec"]["readOnly"] = True
    with pytest.raises(kubernetes_validate.ValidationError, match="readOnly"):
        kubernetes_validate.validate(deployment, VERSIONS[-1], strict=True)


@everywhere
def test_custom_resources_have_the_fields_that_are_used(overlay: str) -> None:
    for item in objects(overlay):
        if item["kind"] in CUSTOM:
            jsonschema.validate(item["spec"], CUSTOM[item["kind"]])


@pytest.mark.parametrize("version", ["1.33", "1.37"])
def test_the_prepulling_daemon_set_is_what_kubernetes_knows(version: str) -> None:
    text = (ROOT / "deploy" / "registry" / "prepull.yaml").read_text("utf-8")
    (item,) = yaml.safe_load_all(text)
    kubernetes_validate.validate(item, version, strict=True)


def _in_order(value: Any, field: str = "") -> Any:
    """Sort the lists whose order means nothing; cut the suffix off generated names."""
    if isinstance(value, dict):
        return {name: _in_order(item, name) for name, item in value.items()}
    if isinstance(value, list):
        items = [_in_order(item) for item in value]
        return (
            sorted(items, key=lambda i: str(i.get(MERGE_KEYS[field])))
            if field in MERGE_KEYS
            else items
        )
    if isinstance(value, str):
        return re.sub(r"^(kgate-(?:site|nginx))-[0-9a-z]{10}$", r"\1", value)
    return value


def _kubectl() -> str | None:
    program = shutil.which("kubectl")
    if program is None:
        return None
    said = subprocess.run(
        [program, "version", "--client"], capture_output=True, text=True, check=False, timeout=60
    ).stdout
    found = re.search(r"Kustomize Version: v(\d+)", said)
    return program if found and int(found[1]) >= 5 else None


@everywhere
def test_kubectl_renders_the_same(overlay: str) -> None:
    program = _kubectl()
    if program is None:
        pytest.skip("no kubectl with kustomize 5 here; all other tests use our own renderer")
    done = subprocess.run(
        [program, "kustomize", str(FOLDER / "overlays" / overlay)],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip

    def keyed(items: list[Object]) -> Object:
        return {f"{i['kind']}/{i['metadata']['name']}": i for i in map(_in_order, items)}

    theirs = keyed(list(yaml.safe_load_all(done.stdout)))
    assert keyed(objects(overlay)) == theirs


# ------------------------------------------------------------------ our own rules


@everywhere
def test_nothing_runs_as_root_or_may_become_it(overlay: str) -> None:
    for name, template in pods(objects(overlay)):
        context = template["spec"]["securityContext"]
        assert context["runAsNonRoot"] is True, name
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert "runAsUser" not in context, "OpenShift chooses the number"
        for field in ("hostNetwork", "hostPID", "hostIPC", "hostUsers"):
            assert field not in template["spec"], name
    for name, _, container in every_container(overlay):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, name


@everywhere
def test_no_pod_holds_a_token_of_the_cluster(overlay: str) -> None:
    accounts = {item["metadata"]["name"]: item for item in objects(overlay, "ServiceAccount")}
    assert all(item["automountServiceAccountToken"] is False for item in accounts.values())
    for name, template in pods(objects(overlay)):
        assert template["spec"]["automountServiceAccountToken"] is False, name
        assert template["spec"]["enableServiceLinks"] is False, name
        assert template["spec"]["serviceAccountName"] in accounts, name
    assert not [i for i in objects(overlay) if i["kind"].endswith(("Role", "RoleBinding"))]


@everywhere
def test_what_each_may_use_is_bounded(overlay: str) -> None:
    for name, _, container in every_container(overlay):
        resources = container["resources"]
        for kind in ("requests", "limits"):
            assert {"cpu", "memory"} <= set(resources[kind]), name
    for name, template in pods(objects(overlay)):
        for volume in template["spec"]["volumes"]:
            if "emptyDir" in volume:
                assert "sizeLimit" in volume["emptyDir"], f"{name}: {volume['name']}"


@everywhere
def test_volumes_are_none_of_the_hosts_and_all_used(overlay: str) -> None:
    kinds = {"configMap", "secret", "projected", "emptyDir", "persistentVolumeClaim"}
    for name, template in pods(objects(overlay)):
        volumes = {volume["name"]: volume for volume in template["spec"]["volumes"]}
        used = {
            mount["name"]
            for container in containers(template)
            for mount in container.get("volumeMounts", ())
        }
        assert used == set(volumes), name
        for volume in volumes.values():
            assert set(volume) - {"name"} <= kinds, name
            assert len(volume) == 2, f"{name}: {volume}"


@everywhere
def test_every_image_is_named_by_digest(overlay: str) -> None:
    for name, _, container in every_container(overlay):
        assert re.fullmatch(r"[a-z0-9./-]+@sha256:[0-9a-f]{64}", container["image"]), name


@everywhere
def test_what_pods_name_is_there(overlay: str) -> None:
    items = objects(overlay)
    have = {(item["kind"], item["metadata"]["name"]) for item in items}
    have |= {(kind, name) for kind, names in GIVEN.items() for name in names}
    for name, template in pods(items):
        named = {("Secret", secret) for secret in secrets(template)}
        for volume in template["spec"]["volumes"]:
            if "configMap" in volume:
                named.add(("ConfigMap", volume["configMap"]["name"]))
            if "persistentVolumeClaim" in volume:
                claim = volume["persistentVolumeClaim"]["claimName"]
                named.add(("PersistentVolumeClaim", claim))
        assert named <= have, name
    for scaler in objects(overlay, "HorizontalPodAutoscaler"):
        target = scaler["spec"]["scaleTargetRef"]
        assert (target["kind"], target["name"]) in have
    for item in items:
        assert item["kind"] == "Namespace" or item["metadata"]["namespace"] == "kgate"


@everywhere
def test_whatever_selects_pods_finds_some(overlay: str) -> None:
    labels = [template["metadata"]["labels"] for _, template in pods(objects(overlay))]
    selectors = [i["spec"]["podSelector"] for i in objects(overlay, "NetworkPolicy")]
    selectors += [i["spec"]["selector"] for i in objects(overlay, "PodDisruptionBudget")]
    assert [s for s in selectors if not any(matches(s, item) for item in labels)] == []
    for item in objects(overlay, "Deployment"):
        assert matches(item["spec"]["selector"], item["spec"]["template"]["metadata"]["labels"])


@everywhere
def test_the_service_leads_to_the_one_open_port(overlay: str) -> None:
    (service,) = objects(overlay, "Service")
    (port,) = service["spec"]["ports"]
    chosen = [
        template
        for _, template in pods(objects(overlay))
        if matches({"matchLabels": service["spec"]["selector"]}, template["metadata"]["labels"])
    ]
    assert [component(template) for template in chosen] == ["serve"]
    ports = [p["name"] for c in containers(chosen[0]) for p in c.get("ports", ())]
    assert ports == [port["targetPort"]]


@everywhere
def test_the_namespace_asks_for_the_restricted_standard(overlay: str) -> None:
    (namespace,) = objects(overlay, "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


@everywhere
def test_the_server_is_probed_and_nobody_else_can_be_reached(overlay: str) -> None:
    (serve,) = [t for _, t in pods(objects(overlay)) if component(t) == "serve"]
    (server,) = [c for c in serve["spec"]["containers"] if c["name"] == "serve"]
    probes = {
        n: server[f"{n}Probe"]["httpGet"]["path"] for n in ("startup", "liveness", "readiness")
    }
    assert probes == {"startup": "/healthz", "liveness": "/healthz", "readiness": "/readyz"}
    policies = {
        item["metadata"]["name"]: item["spec"] for item in objects(overlay, "NetworkPolicy")
    }
    assert policies["kgate-default-deny"] == {
        "podSelector": {},
        "policyTypes": ["Ingress", "Egress"],
    }
    assert [name for name, spec in policies.items() if spec.get("ingress")] == ["kgate-serve"]


# ------------------------------------------------------------------ three identities


def _egress(overlay: str, template: Object) -> list[Object]:
    """Return the rules of egress that hold for a pod."""
    return [
        rule
        for item in objects(overlay, "NetworkPolicy")
        if matches(item["spec"]["podSelector"], template["metadata"]["labels"])
        for rule in item["spec"].get("egress", ())
    ]


def _reaches_upstream(overlay: str, template: Object) -> bool:
    return any(
        to.get("ipBlock", {}).get("cidr") == "0.0.0.0/0"
        for rule in _egress(overlay, template)
        for to in rule["to"]
    )


@pytest.mark.parametrize("overlay", ["scaled", "openshift"])
def test_the_signer_alone_has_keys_and_ingest_alone_reaches_upstream(overlay: str) -> None:
    templates = {component(template): template for _, template in pods(objects(overlay))}
    assert set(templates) == {"serve", "ingest", "signer", "migrate"}
    keys = {"kgate-admit-key", "kgate-timestamp-key"}
    assert [name for name, t in templates.items() if secrets(t) & keys] == ["signer"]
    assert [name for name, t in templates.items() if _reaches_upstream(overlay, t)] == ["ingest"]
    accounts = {template["spec"]["serviceAccountName"] for template in templates.values()}
    assert len(accounts) == len(templates)
    # Names, database and object store: nothing else is open to who serves and who signs.
    for name in ("serve", "signer"):
        open_ = {p["port"] for rule in _egress(overlay, templates[name]) for p in rule["ports"]}
        assert open_ == {53, 5353, 5432, 443}
    assert "kgate-store-write" not in secrets(templates["serve"])
    for name in ("serve", "ingest"):
        (container,) = templates[name]["spec"]["containers"]
        (trust,) = [m for m in container["volumeMounts"] if m["name"] == "trust"]
        assert trust["readOnly"] is True


@pytest.mark.parametrize("overlay", ["embedded", "embedded-nginx"])
def test_where_one_pod_does_it_all_the_server_still_reaches_nobody(overlay: str) -> None:
    templates = {component(template): template for _, template in pods(objects(overlay))}
    assert set(templates) == {"serve", "sync"}
    assert _egress(overlay, templates["serve"]) == []
    assert secrets(templates["serve"]) == {"kgate-timestamp-key"}
    assert _reaches_upstream(overlay, templates["sync"])
    # SQLite: one host, one server.
    (deployment,) = objects(overlay, "Deployment")
    assert deployment["spec"]["replicas"] == 1
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}
    assert "podAffinity" in templates["sync"]["spec"]["affinity"]


def test_openshift_chooses_user_and_group_itself() -> None:
    for name, template in pods(objects("openshift")):
        assert "fsGroup" not in template["spec"]["securityContext"], name
    for name, template in pods(objects("scaled")):
        assert template["spec"]["securityContext"]["fsGroup"] == 10001, name


# ------------------------------------------------------------------ what is ours in them


@everywhere
def test_every_command_in_the_manifests_is_one_of_kgates(overlay: str) -> None:
    checked = 0
    for name, _, container in every_container(overlay):
        if not container["image"].startswith("registry.example/kgate@"):
            continue
        lines = [container["args"]] if "args" in container else []
        script = container.get("command", [""])[-1]
        lines += [
            line.split() for line in re.findall(r"(?m)\bkgate ((?:[a-z]+ ?)+)(?=\|\|)", script)
        ]
        for line in lines:
            check_command([str(word) for word in line])
            checked += 1
        assert lines or container["name"] == "found", name
    assert checked >= 2


def test_an_option_that_kgate_does_not_have_would_be_found() -> None:
    with pytest.raises(click.UsageError, match="--no-such"):
        check_command(["serve", "--no-such"])
    with pytest.raises(AssertionError, match="no command 'rewind'"):
        check_command(["trust", "rewind"])


@everywhere
def test_the_site_in_the_config_map_is_one_that_kgate_takes(overlay: str, tmp_path: Path) -> None:
    (site,) = [i for i in objects(overlay, "ConfigMap") if i["metadata"]["name"] == "kgate-site"]
    assert set(site["data"]) == {"kgate.yaml", "kgate.lock", "baseline.yaml"}
    for name, text in site["data"].items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    config = load_config(tmp_path / "kgate.yaml")
    assert Lock.parse(site["data"]["kgate.lock"].encode()).kernels == ()
    assert config.path(config.policy) == tmp_path / "baseline.yaml"

    # What the file names is mounted where it is read or written.
    (serve,) = [t for _, t in pods(objects(overlay)) if component(t) == "serve"]
    (server,) = [c for c in serve["spec"]["containers"] if c["name"] == "serve"]
    mounts = {mount["mountPath"] for mount in server["volumeMounts"]}
    assert {"name": "KGATE_CONFIG", "value": "/etc/kgate/kgate.yaml"} in server["env"]
    writable = {m["mountPath"] for m in server["volumeMounts"] if not m.get("readOnly")}
    assert str(config.serve.kept) == "/data/served"
    assert "/data" in writable
    trust = str(config.trust)
    if overlay in {"scaled", "openshift"}:
        assert trust in mounts
        assert str(config.object_store.cache).startswith("/data/")
        assert str(config.object_store.credentials) == "/etc/kgate-store/credentials"
        assert config.sync.every is not None
    else:
        assert [p.rpartition("/")[0] for p in (trust, config.store)] == ["/data", "/data"]
        assert config.database == "sqlite:////data/kgate.db"


def test_the_policy_is_the_one_that_init_writes(tmp_path: Path) -> None:
    found_site(
        tmp_path, Founding("https://huggingface.co", "https://kgate.local", None, ""), time_now()
    )
    ours = (FOLDER / "base" / "site" / "baseline.yaml").read_text("utf-8")
    assert ours == (tmp_path / "policy" / "baseline.yaml").read_text("utf-8")


def test_nginx_beside_the_server_has_the_shipped_configuration() -> None:
    shipped = (ROOT / "deploy" / "nginx" / "kgate.conf").read_text("utf-8")
    here = (FOLDER / "components" / "nginx" / "kgate.conf").read_text("utf-8")
    store = "/var/lib/kgate/blobs/sha256/;   "
    assert store in shipped
    assert here == shipped.replace(store, "/data/store/blobs/sha256/;      ")


def test_the_page_names_everything_that_operators_make() -> None:
    page = (ROOT / "docs" / "deploy.md").read_text("utf-8")
    missing = {name for names in GIVEN.values() for name in names if name not in page}
    assert missing == set()
    used = {s for o in OVERLAYS for _, t in pods(objects(o)) for s in secrets(t)}
    assert used == GIVEN["Secret"]

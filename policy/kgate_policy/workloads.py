"""Kubernetes objects out of a dump, and what each states about the kernels that it would load.

Reads what `kubectl get -o json` or `-o yaml` wrote. Pod specs are found without knowing the kinds:
wherever a list of containers stands. What a program asks for at run time is not in a manifest; a
workload states its kernels in the annotation `kgate.dev/kernels`, or mounts a ConfigMap with a
`kgate.lock`. Nothing is asked of a cluster and nothing is decided here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from kgate_core import strictjson
from kgate_core.errors import InvalidInput
from kgate_core.lock import Lock
from kgate_policy.located import read_documents

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kgate_core.evidence import Facts

KERNELS: Final = "kgate.dev/kernels"
LOCK: Final = "kgate.lock"
MAX_JSON: Final = 256 * 1024**2  # bytes of a dump
MAX_YAML: Final = 16 * 1024**2  # bytes; a YAML dump is read a hundred times slower
MAX_DEPTH: Final = 64  # nested containers; managedFields and CRDs nest deeply
_TELLING: Final = ("HF_", "KGATE_", "KERNELS_", "LOCAL_KERNELS")
_PLURALS: Final = {"Ingress": "ingresses", "NetworkPolicy": "networkpolicies"}


@dataclass(frozen=True, slots=True)
class Workload:
    """One object of a cluster that runs pods, or is one."""

    object: Facts
    kernels: tuple[str, ...]
    """What it states to load: `org/name@v1`, `org/name@commit`, or manifest digests."""
    source: str
    """Where that is stated; empty if nothing is."""
    env: dict[str, str] = field(default_factory=dict)
    """Variables with a literal value, of all its containers together."""
    gpu: bool = False
    """True if a container asks for a GPU."""

    @property
    def name(self) -> str:
        """Kind, namespace and name, as people write them."""
        head = _mapping(self.object.get("metadata"))
        namespace = head.get("namespace")
        place = f"{namespace}/" if namespace else ""
        return f"{self.object.get('kind')} {place}{head.get('name', '')}"

    @property
    def lane(self) -> str | None:
        """The lane that it names: `KGATE_LANE`, or the path of `HF_ENDPOINT`."""
        parts = urlsplit(self.env.get("HF_ENDPOINT", "")).path.strip("/").split("/")
        lane = parts[1] if len(parts) > 1 and parts[0] == "l" else None
        return self.env.get("KGATE_LANE") or lane

    @property
    def concerned(self) -> bool:
        """True if it may load kernels: it states some, asks for a GPU, or talks to a Hub."""
        return bool(self.source) or self.gpu or any(k.startswith(_TELLING) for k in self.env)

    @property
    def request(self) -> Facts:
        """The facts `request`, as if the object were created now."""
        head = _mapping(self.object.get("metadata"))
        group, _, version = str(self.object.get("apiVersion", "")).rpartition("/")
        kind = str(self.object.get("kind", ""))
        return {
            "operation": "CREATE",
            "group": group,
            "version": version,
            "resource": _PLURALS.get(kind, f"{kind.lower()}s"),
            "namespace": str(head.get("namespace", "")),
            "name": str(head.get("name", "")),
        }


def read_workloads(data: bytes, *, source: str) -> tuple[Workload, ...]:
    """Return every object of a dump that holds a pod spec; raises InvalidInput.

    An object whose owner is in the dump too is left out: the owner speaks for it.
    """
    objects = list(_objects(data, source))
    locks = {
        (_namespace(item), _named(item)): text
        for item in objects
        if item.get("kind") == "ConfigMap"
        and isinstance(text := _mapping(item.get("data")).get(LOCK), str)
    }
    uids = {_mapping(item.get("metadata")).get("uid") for item in objects} - {None}
    return tuple(
        _workload(item, specs, locks)
        for item in objects
        if item.get("kind") != "ConfigMap" and (specs := list(_pod_specs(item)))
        if not _owners(item) & uids
    )


def _objects(data: bytes, source: str) -> Iterator[Facts]:
    if data.lstrip()[:1] in {b"{", b"["}:
        read = strictjson.loads(data, what=source, max_bytes=MAX_JSON, floats=True)
        documents: list[Any] = [read]
    else:
        documents = [
            item.plain()
            for item in read_documents(data, source=source, max_depth=MAX_DEPTH, max_bytes=MAX_YAML)
        ]
    for document in documents:
        items = document.get("items") if isinstance(document, dict) else document
        for item in items if isinstance(items, list) else [document]:
            if not isinstance(item, dict) or not {"apiVersion", "kind"} <= item.keys():
                raise InvalidInput(
                    f"{source}: not a Kubernetes object",
                    hint="write it with `kubectl get pods,configmaps -A -o json`",
                )
            yield item


def _workload(item: Facts, specs: list[Facts], locks: dict[tuple[str, str], str]) -> Workload:
    containers = [
        container
        for spec in specs
        for key in ("initContainers", "containers", "ephemeralContainers")
        for container in _dicts(spec.get(key))
    ]
    env = {
        str(entry.get("name")): str(entry["value"])
        for container in containers
        for entry in _dicts(container.get("env"))
        if "value" in entry
    }
    asked = (
        name
        for container in containers
        for part in ("limits", "requests")
        for name in _mapping(_mapping(container.get("resources")).get(part))
    )
    kernels, source = _stated(item, specs, locks)
    # nvidia.com/gpu, amd.com/gpu, gpu.intel.com/i915, nvidia.com/mig-1g.5gb
    gpu = any("/" in name and ("gpu" in name or "/mig-" in name) for name in asked)
    return Workload(item, kernels, source, env, gpu)


def _stated(
    item: Facts, specs: list[Facts], locks: dict[tuple[str, str], str]
) -> tuple[tuple[str, ...], str]:
    """Return which kernels an object names, and where."""
    for head in _heads(item):
        text = _mapping(head.get("annotations")).get(KERNELS)
        if isinstance(text, str):
            names = tuple(part.strip() for part in text.split(",") if part.strip())
            return names, f"annotation {KERNELS}"
    for spec in specs:
        for volume in _dicts(spec.get("volumes")):
            name = _mapping(volume.get("configMap")).get("name")
            lock = locks.get((_namespace(item), str(name)))
            if lock is not None:
                kernels = Lock.parse(lock.encode()).kernels
                digests = (str(v.manifest) for k in kernels for v in k.variants.values())
                return tuple(dict.fromkeys(digests)), f"{LOCK} in the ConfigMap {name}"
    return (), ""


def _pod_specs(item: object) -> Iterator[Facts]:
    """Yield every mapping that holds a list of containers, without recursion."""
    waiting: list[object] = [item]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            if isinstance(node.get("containers"), list):
                yield node
            waiting.extend(node.values())
        elif isinstance(node, list):
            waiting.extend(node)


def _heads(item: object) -> Iterator[Facts]:
    """Yield the object's metadata and those of its pod templates."""
    waiting: list[object] = [item]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            if isinstance(node.get("metadata"), dict):
                yield node["metadata"]
            waiting.extend(node.values())
        elif isinstance(node, list):
            waiting.extend(node)


def _owners(item: Facts) -> set[object]:
    return {o.get("uid") for o in _dicts(_mapping(item.get("metadata")).get("ownerReferences"))}


def _namespace(item: Facts) -> str:
    return str(_mapping(item.get("metadata")).get("namespace", ""))


def _named(item: Facts) -> str:
    return str(_mapping(item.get("metadata")).get("name", ""))


def _mapping(value: object) -> Facts:
    return value if isinstance(value, dict) else {}


def _dicts(value: object) -> list[Facts]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []

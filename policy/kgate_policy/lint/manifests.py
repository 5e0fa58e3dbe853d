"""Reads KernelPort manifests and Kubernetes YAML.

Kubernetes objects are walked without knowing their kinds: wherever containers, environment
variables and images stand, they are looked at. So new kinds need no new code. Templates that are
not YAML yet are named as not read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from kgate_core.errors import InvalidInput
from kgate_policy.lint.dockerfiles import image_findings
from kgate_policy.lint.findings import Fix, LintFinding, found
from kgate_policy.lint.references import hf_addresses, is_commit, locked
from kgate_policy.located import read_documents

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kgate_core.lock import Lock
    from kgate_policy.located import Located

MAX_DEPTH: Final = 64  # custom resource definitions nest deeply
_CONTAINERS: Final = frozenset({"containers", "initContainers", "ephemeralContainers"})
_CACHES: Final = frozenset({"GKMCache", "ClusterGKMCache"})
_PUBLIC: Final = frozenset({"huggingface.co", "www.huggingface.co", "hf.co", "hf-mirror.com"})
_FIRST: Final = frozenset({"PYTHONPATH", "PYTHONHOME", "LD_PRELOAD", "LD_LIBRARY_PATH"})


def lint_yaml(data: bytes, path: str, lock: Lock | None) -> list[LintFinding]:
    """Return what the documents of a YAML file say, if they are of a kind that is known."""
    try:
        documents = read_documents(data, source=path, max_depth=MAX_DEPTH)
    except InvalidInput as exc:
        return [found(18, path, 1, exc.message)]
    findings: list[LintFinding] = []
    for document in documents:
        if not isinstance(document.value, dict):
            continue
        if {"apiVersion", "kind"} <= document.value.keys():
            findings += _object(document, path)
        elif {"id", "source"} <= document.value.keys():
            findings += _kernelport(document, path, data, lock)
    return findings


def _kernelport(
    document: Located, path: str, data: bytes, lock: Lock | None
) -> Iterator[LintFinding]:
    source = document.value["source"]
    if not isinstance(source.value, dict) or "repo" not in source.value:
        return
    repo, revision = source.value["repo"], source.value.get("revision")
    if revision is None:
        yield found(13, path, source.line, f"{repo.value} has no revision")
    elif not is_commit(str(revision.value)):
        entry = locked(lock, str(repo.value))
        fix = None
        if entry is not None:
            fix = _replace_value(data, revision, str(entry.commit))
        seen = f"{repo.value} follows {revision.value!r}"
        yield found(13, path, revision.line, seen, fix=fix)
    files = document.value.get("files")
    if files is None or not files.value:
        yield found(14, path, document.line, f"{document.value['id'].value} lists no files")


def _replace_value(data: bytes, item: Located, new: str) -> Fix | None:
    """Return a fix that replaces a plain scalar on its line."""
    text = data.decode("utf-8")
    start = 0
    for _ in range(item.line - 1):
        start = text.index("\n", start) + 1
    end = text.find("\n", start)
    line = text[start:] if end < 0 else text[start:end]
    old = str(item.value)
    head, colon, tail = line.partition(":")
    if not colon or tail.strip().strip("\"'") != old:
        return None  # a comment or another notation: better by hand
    at = start + len(head) + 1 + tail.index(old)
    return Fix(at, at + len(old), new)


def _object(item: Located, path: str) -> Iterator[LintFinding]:
    spec = item.value.get("spec")
    if item.value["kind"].value in _CACHES and spec is not None and isinstance(spec.value, dict):
        yield from _container(spec, path)  # its image holds compiled kernels
    waiting = [item]
    while waiting:
        node = waiting.pop()
        if isinstance(node.value, dict):
            yield from _listed(node.value, path)
            waiting.extend(node.value.values())
        elif isinstance(node.value, list):
            waiting.extend(node.value)
        elif isinstance(node.value, str):
            for _, address, pin in hf_addresses(node.value):
                if not is_commit(pin):
                    yield found(6, path, node.line, f"{address} names no commit")


def _listed(fields: Mapping[str, Located], path: str) -> Iterator[LintFinding]:
    for key, value in fields.items():
        entries = value.value if isinstance(value.value, list) else []
        if key in _CONTAINERS:
            for entry in entries:
                yield from _container(entry, path)
        elif key == "env":
            for entry in entries:
                yield from _variable(entry, path)


def _container(item: Located, path: str) -> Iterator[LintFinding]:
    fields = item.value if isinstance(item.value, dict) else {}
    image = fields.get("image")
    if image is not None and isinstance(image.value, str) and "$" not in image.value:
        yield from image_findings(image.value, path, image.line)
    policy = fields.get("imagePullPolicy")
    if policy is not None and policy.value == "Always":
        name = fields["name"].value if "name" in fields else "a container"
        yield found(15, path, policy.line, f"{name} is pulled at every start")


def _variable(item: Located, path: str) -> Iterator[LintFinding]:
    fields = item.value if isinstance(item.value, dict) else {}
    if "name" not in fields:
        return
    name, value = fields["name"], fields.get("value")
    if name.value == "LOCAL_KERNELS":
        yield found(4, path, name.line, "LOCAL_KERNELS is set")
    elif name.value in _FIRST:
        yield found(17, path, name.line, f"{name.value} is set")
    elif name.value in {"HF_ENDPOINT", "HF_HUB_ENDPOINT"} and value is not None:
        host = (urlsplit(str(value.value)).hostname or "").lower()
        if host in _PUBLIC:
            yield found(16, path, name.line, f"{name.value} is {value.value}")

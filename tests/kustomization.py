"""Renders deploy/kustomize as `kubectl kustomize` does, as far as those files use it.

Knows resources, components, configMapGenerator (without the suffix of the name), labels,
namespace, images and patches (strategic merge, and JSON patches that remove). Any other field is
an error. A test compares it with the real program where that is installed.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, Final

import yaml

Object = dict[str, Any]

FOLDER: Final = Path(__file__).parents[1] / "deploy" / "kustomize"
OVERLAYS: Final = tuple(sorted(path.name for path in (FOLDER / "overlays").iterdir()))
MERGE_KEYS: Final = {
    "containers": "name",
    "initContainers": "name",
    "volumes": "name",
    "env": "name",
    "ports": "containerPort",
    "volumeMounts": "mountPath",
}
_FIELDS: Final = {
    "apiVersion", "kind", "resources", "components", "configMapGenerator", "labels", "namespace",
    "images", "patches",
}  # fmt: skip


def render(folder: Path) -> list[Object]:
    """Return the objects of a kustomization."""
    return _apply(folder, [])


def pods(objects: list[Object]) -> list[tuple[str, Object]]:
    """Return kind/name and pod template of every object that makes pods."""
    found = []
    for item in objects:
        spec = item.get("spec", {})
        template = spec.get("jobTemplate", {}).get("spec", spec).get("template")
        if template is not None:
            found.append((f"{item['kind']}/{item['metadata']['name']}", template))
    return found


def containers(template: Object) -> list[Object]:
    """Return every container of a pod template."""
    return [*template["spec"].get("initContainers", ()), *template["spec"]["containers"]]


def _apply(folder: Path, objects: list[Object]) -> list[Object]:
    wanted = _read(folder / "kustomization.yaml")[0]
    assert set(wanted) <= _FIELDS, f"{folder}: {set(wanted) - _FIELDS}"
    for name in wanted.get("resources", ()):
        path = folder / name
        objects += _apply(path, []) if path.is_dir() else _read(path)
    for name in wanted.get("components", ()):
        objects = _apply(folder / name, objects)
    for generator in wanted.get("configMapGenerator", ()):
        _generate(folder, generator, objects)
    for patch in wanted.get("patches", ()):
        text = (folder / patch["path"]).read_text("utf-8") if "path" in patch else patch["patch"]
        for change in yaml.safe_load_all(text):
            _patch(change, patch.get("target"), objects)
    _transform(wanted, objects)
    return objects


def _transform(wanted: Object, objects: list[Object]) -> None:
    templates = [template for _, template in pods(objects)]
    for labels in wanted.get("labels", ()):
        assert set(labels) == {"pairs", "includeTemplates"}
        for place in (*objects, *templates):
            place["metadata"]["labels"] = place["metadata"].get("labels", {}) | labels["pairs"]
    if "namespace" in wanted:
        for item in objects:
            if item["kind"] != "Namespace":
                item["metadata"]["namespace"] = wanted["namespace"]
    for image in wanted.get("images", ()):
        for container in (c for template in templates for c in containers(template)):
            if container["image"] == image["name"]:
                container["image"] = f"{image['newName']}@{image['digest']}"


def _read(path: Path) -> list[Object]:
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


def _generate(folder: Path, generator: Object, objects: list[Object]) -> None:
    data = {Path(name).name: (folder / name).read_text("utf-8") for name in generator["files"]}
    if generator.get("behavior") == "merge":
        (before,) = _selected({"kind": "ConfigMap", "name": generator["name"]}, objects)
        before["data"] |= data
        return
    name = {"name": generator["name"]}
    objects.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": name, "data": data})


def _selected(target: Object, objects: list[Object]) -> list[Object]:
    return [
        item
        for item in objects
        if item["kind"] == target["kind"]
        if target.get("name", item["metadata"]["name"]) == item["metadata"]["name"]
    ]


def _patch(change: Object | list[Object], target: Object | None, objects: list[Object]) -> None:
    if isinstance(change, list):
        assert target is not None
        for item in _selected(target, objects):
            for step in change:
                _remove(step, item)
        return
    named = {"kind": change["kind"], "name": change["metadata"]["name"]}
    (item,) = _selected(named, objects)
    merged = _merge(item, change)
    item.clear()
    item.update(merged)


def _remove(step: Object, item: Object) -> None:
    assert step["op"] == "remove"
    *way, last = step["path"].strip("/").split("/")
    place: Any = item
    for part in way:
        place = place[int(part)] if isinstance(place, list) else place[part]
    del place[last]


def _merge(old: Any, new: Any, field: str = "") -> Any:
    if isinstance(old, dict) and isinstance(new, dict):
        merged = {name: _merge(value, new.get(name, value), name) for name, value in old.items()}
        merged |= {name: copy.deepcopy(new[name]) for name in new.keys() - old.keys()}
        return {name: value for name, value in merged.items() if value is not None}
    if isinstance(old, list) and isinstance(new, list) and field in MERGE_KEYS:
        key = MERGE_KEYS[field]
        by = {item[key]: item for item in old}
        by |= {item[key]: _merge(by.get(item[key], {}), item) for item in new}
        return list(by.values())
    return copy.deepcopy(new)

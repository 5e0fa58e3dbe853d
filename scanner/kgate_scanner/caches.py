"""Finds compile caches among scanned files: whose they are, their entries, and what is wrong.

Caches are known by their layout: Triton's folders of one kernel each, Inductor's two-letter
folders, Helion's `*.best_config`, vLLM's `torch_compile_cache/<key>/rank_<i>_<j>`. Nothing here
reads bytes, and an entry that agrees with itself may still be hostile.
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from kgate_scanner import rules_caches as rules

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kgate_core.evidence import Facts, Finding

_MAX_ENTRIES: Final = 5000  # listed in a summary; all are checked
_SHOWN: Final = 3  # names in one finding
_CODE: Final = frozenset({"cubin", "ptx", "hsaco", "spirv", "zebin"})
_NUMBER: Final = re.compile(r"[0-9]+")
_TRITON_KEY: Final = re.compile(r"[A-Z2-7]{52}|[0-9a-f]{64}")
_TRITON_HOST: Final = re.compile(r"(?:cuda_utils|hip_utils|spirv_utils|__triton_launcher)\b.*\.so")
_INDUCTOR: Final = re.compile(r"(?:^|/)(?P<two>[a-z2-7]{2})/c(?P=two)[a-z2-7]{48,49}\.[\w.]+$")
_GRAPHS: Final = re.compile(r"(?:^|/)(?P<kind>fxgraph|aotautograd)/")
_VLLM: Final = re.compile(r"(?:^|/)(?:torch_compile_cache|torch_aot_compile)/[^/]+/rank_[0-9]+_")
_VLLM_RANK: Final = re.compile(
    r"(?P<root>(?:.*/)?rank_[0-9]+_[0-9]+/)(?:[^/]+/)?vllm_compile_cache\.py"
)
_HOST: Final = frozenset({"elf-shared-object", "elf-object", "elf-program"})


def find_caches(files: Mapping[str, Facts]) -> list[Facts]:
    """Return each kind of cache with its number of files, and Triton's entries one by one."""
    members = _members(files)
    entries = [*_entries(files)]
    found: list[Facts] = []
    for kind, paths in sorted(members.items()):
        cache: Facts = {
            "kind": kind,
            "files": len(paths),
            "hostLibraries": sum(files[path].get("kind") in _HOST for path in paths),
            "pickles": sum(files[path].get("kind") == "pickle" for path in paths),
        }
        if kind == "triton":
            cache["kernels"] = len(entries)
            cache["entries"] = entries[:_MAX_ENTRIES]
        found.append(cache)
    return found


def check_caches(files: Mapping[str, Facts]) -> Iterator[Finding]:
    """Yield what does not fit within an entry, and each host library in a cache."""
    owners: dict[str, list[str]] = defaultdict(list)
    for kind, paths in sorted(_members(files).items()):
        for path in paths:
            if files[path].get("kind") in _HOST:
                owners[path].append(kind)
    for path, kinds in owners.items():
        yield rules.HOST_CODE.finding(path, f"a library in a cache of {' and '.join(kinds)}")
    for path, facts in files.items():
        record = facts.get("record", {})
        if "children" in record:
            yield from _check_group(path, record["children"])
        elif "name" in record:
            yield from _check_entry(path, record, files)


def _members(files: Mapping[str, Facts]) -> dict[str, list[str]]:
    """Return the files of each kind of cache; one inside vLLM's counts for its compiler, too."""
    folders = {
        str(PurePosixPath(path).parent)
        for path, facts in files.items()
        if facts.get("record", {}).get("compiler") == "triton"
    }
    ranks = tuple({found["root"] for path in files if (found := _VLLM_RANK.fullmatch(path))})
    members: dict[str, list[str]] = defaultdict(list)
    for path, facts in files.items():
        place = PurePosixPath(path)
        launcher = _TRITON_KEY.fullmatch(place.parent.name) and _TRITON_HOST.fullmatch(place.name)
        if str(place.parent) in folders or launcher:
            members["triton"].append(path)
        if _INDUCTOR.search(path) or _GRAPHS.search(path):
            members["inductor"].append(path)
        if facts.get("record", {}).get("compiler") == "helion":
            members["helion"].append(path)
        if _VLLM.search(path) or path.startswith(ranks):
            members["vllm"].append(path)
    return members


def _entries(files: Mapping[str, Facts]) -> Iterator[Facts]:
    for path, facts in files.items():
        record = facts.get("record", {})
        if "name" not in record:
            continue
        images = list(_images(path, files))
        yield {
            "path": path,
            "name": record["name"],
            "target": f"{record['backend']} {record['arch']}".strip(),
            "compiled": sorted({str(image.get("target", "")) for image in images}),
            "version": record["version"],
            "options": record["options"],
            "code": sorted({str(image["kind"]) for image in images}),
        }


def _images(path: str, files: Mapping[str, Facts]) -> Iterator[Mapping[str, Any]]:
    """Yield the code of the entry that a record describes: beside it, with the same stem."""
    stem = path.removesuffix(".json")
    for kind in sorted(_CODE):
        device = files.get(f"{stem}.{kind}", {}).get("device", {})
        yield from (image for image in device.get("images", ()) if image.get("kind") in _CODE)


def _check_entry(
    path: str, record: Mapping[str, Any], files: Mapping[str, Facts]
) -> Iterator[Finding]:
    said = f"{record['backend']} {record['arch']}"
    for image in _images(path, files):
        target, kind = str(image.get("target", "")), image["kind"]
        if target and not _fits(record, target):
            seen = f"the record says {said}, the {kind} is for {target}"
            yield rules.OTHER_TARGET.finding(path, seen)
        names = [str(kernel["name"]) for kernel in image.get("kernels", ())]
        if names and record["name"] not in names:
            seen = f"the {kind} holds {', '.join(names[:_SHOWN])}, not {record['name']}"
            yield rules.OTHER_KERNEL.finding(path, seen)


def _fits(record: Mapping[str, Any], target: str) -> bool:
    match record["backend"]:
        case "cuda":
            return _NUMBER.findall(str(record["arch"])) == _NUMBER.findall(target)
        case "hip":
            return str(record["arch"]).partition(":")[0] == target.partition(":")[0]
        case _:
            return not target.startswith(("sm_", "compute_", "gfx"))


def _check_group(path: str, children: Mapping[str, str]) -> Iterator[Finding]:
    folder = PurePosixPath(path).parent.name
    away = []
    for name, place in sorted(children.items()):
        tail = PurePosixPath(place)
        # A cache that was copied keeps the old paths: their ends still name this entry.
        same = not tail.is_absolute() or not folder or tail.parent.name == folder
        if tail.name != name or not same or ".." in tail.parts:
            away.append(place)
    if away:
        more = f" and {len(away) - _SHOWN} more" if len(away) > _SHOWN else ""
        yield rules.LEADS_AWAY.finding(path, f"names {', '.join(away[:_SHOWN])}{more}")

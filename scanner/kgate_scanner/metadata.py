"""Reads `metadata.json` of a variant and says what is wrong with it.

The document is read strictly, by the shape that `kernels` 0.17 writes. Whether its signature is
good is for the signer to say; whether its dependencies are pinned is for the mirror to say.
"""

from __future__ import annotations

import base64
import binascii
import re
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from kgate_core import strictjson
from kgate_core.errors import InvalidInput
from kgate_scanner import rules_metadata as rules
from kgate_scanner.files import METADATA, SIGNATURE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from kgate_core.evidence import Facts, Finding
    from kgate_core.kernel import Variant
    from kgate_core.manifest import Manifest

_MAX: Final = 4 * 1024 * 1024  # bytes; digests of 20,000 files stay under 3 MB
_ID: Final = re.compile(r"_[a-z][a-z0-9_]*_[A-Za-z0-9]{4,64}", re.ASCII)
_KNOWN: Final = frozenset(
    {
        "name", "id", "version", "license", "upstream", "source", "python-depends",
        "kernel-depends", "backend", "digest", "provenance", "kernels-minver", "kernels_minver",
    }
)  # fmt: skip
_SHAPE: Final[dict[str, type]] = {
    "id": str,
    "version": int,
    "license": str,
    "upstream": str,
    "source": str,
    "kernel-depends": list,
    "digest": dict,
    "provenance": dict,
    "provenance/kernel": dict,
    "provenance/kernel-builder": dict,
}
"""Fields that may be missing or null but, where present, have this type."""
_MODULES: Final = frozenset(sys.stdlib_module_names) | {
    "accelerate", "aiohttp", "apex", "bitsandbytes", "cryptography", "cuda", "cupy", "diffusers",
    "einops", "fastapi", "flash_attn", "huggingface_hub", "jax", "kernels", "kgate", "kgate_client",
    "kgate_core", "numba", "numpy", "nvidia", "packaging", "pandas", "peft", "PIL", "pydantic",
    "requests", "safetensors", "scipy", "setuptools", "sigstore", "tensorflow", "tokenizers",
    "torch", "torchaudio", "torchvision", "tqdm", "transformers", "triton", "urllib3", "vllm",
    "xformers", "yaml", "pip", "pkg_resources", "site", "sitecustomize", "usercustomize",
}  # fmt: skip
_DIGEST_BYTES: Final = {"sha256": 32, "sha512": 64}


@dataclass(frozen=True, slots=True)
class MetadataFacts:
    """What the document says, and findings about it; `facts` is empty if it could not be read."""

    facts: Facts
    findings: tuple[Finding, ...]


def read_metadata(data: memoryview, path: str) -> MetadataFacts:
    """Return the parsed document and what is wrong with it on its own."""
    if len(data) > _MAX:
        seen = f"{len(data)} bytes are more than the {_MAX} allowed"
        return MetadataFacts({}, (rules.BAD_METADATA.finding(path, seen),))
    try:
        document = strictjson.loads(bytes(data), what=METADATA)
        _check_shape(document)
    except InvalidInput as exc:
        return MetadataFacts({}, (rules.BAD_METADATA.finding(path, exc.message),))
    return MetadataFacts(document, tuple(_on_its_own(document, path)))


def check_metadata(
    document: Mapping[str, Any],
    manifest: Manifest,
    variant: Variant | None,
    device_archs: Mapping[str, Iterable[str]],
) -> Iterator[Finding]:
    """Yield what does not fit between metadata.json, the files and the variant's name.

    `device_archs` maps a backend (`cuda`, `rocm`, ...) to the architectures found in the files.
    """
    if METADATA not in manifest.by_path:
        yield rules.NO_METADATA.finding(METADATA, "the variant has no metadata.json")
        return
    if not document:
        return
    yield from _check_digests(document.get("digest"), manifest)
    if variant is not None:
        yield from _check_backend(document["backend"], variant, device_archs)


def _check_shape(document: Any) -> None:  # noqa: ANN401  # JSON has no static shape
    strictjson.take(document, "name", str, what=METADATA)
    strictjson.take(document, "backend", dict, what=METADATA)
    for place, kind in _SHAPE.items():
        parent, _, key = place.rpartition("/")
        holder = (document.get(parent) or {}) if parent else document
        if holder.get(key) is not None:
            strictjson.take(holder, key, kind, what=METADATA)
    strictjson.take(document["backend"], "type", str, what=METADATA)
    for holder, key in ((document, "python-depends"), (document["backend"], "archs")):
        if holder.get(key) is not None:
            strictjson.take_strings(holder, key, what=METADATA)
    for dependency in document.get("kernel-depends") or []:
        strictjson.take(dependency, "repo-id", str, what=METADATA)
    if digest := document.get("digest"):
        strictjson.take(digest, "algorithm", str, what=METADATA)
        files = strictjson.take(digest, "files", dict, what=METADATA)
        if not all(isinstance(value, str) for value in files.values()):
            raise InvalidInput(f"{METADATA}: a digest is a text")


def _on_its_own(document: dict[str, Any], path: str) -> Iterator[Finding]:
    yield from _check_id(document, path)
    provenance = document.get("provenance")
    if not provenance:
        yield rules.NO_PROVENANCE.finding(path, "there is no provenance")
    else:
        for part in ("kernel", "kernel-builder"):
            if (provenance.get(part) or {}).get("dirty") not in {False, None}:
                commit = provenance[part].get("commit") or provenance[part].get("sha")
                yield rules.DIRTY.finding(path, f"{part} had uncommitted changes on {commit}")
    if depends := document.get("kernel-depends"):
        names = ", ".join(sorted(str(item["repo-id"]) for item in depends))
        yield rules.DEPENDS.finding(path, f"loading this kernel loads {names}")
    if not document.get("license"):
        yield rules.NO_LICENCE.finding(path, "there is no licence")
    if unknown := sorted(document.keys() - _KNOWN):
        yield rules.UNKNOWN_FIELD.finding(path, f"unknown fields: {', '.join(unknown)[:200]}")


def _check_id(document: dict[str, Any], path: str) -> Iterator[Finding]:
    identity = document.get("id")
    if identity is None:
        yield rules.ODD_ID.finding(path, "there is no id")
    elif identity.partition(".")[0] in _MODULES:
        seen = f"loading it replaces the module {identity!r} of the process"
        yield rules.SHADOWING_ID.finding(path, seen)
    elif _ID.fullmatch(identity) is None:
        yield rules.ODD_ID.finding(path, f"the id is {identity[:100]!r}")


def _check_digests(digest: dict[str, Any] | None, manifest: Manifest) -> Iterator[Finding]:
    if digest is None:
        yield rules.NO_DIGEST.finding(METADATA, "there is no digest")
        return
    algorithm = digest["algorithm"]
    if algorithm not in _DIGEST_BYTES:
        yield rules.BAD_METADATA.finding(METADATA, f"unknown digest algorithm {algorithm[:40]!r}")
        return
    listed: dict[str, str] = digest["files"]
    present = {entry.path for entry in manifest.files if _is_covered(entry.path)}
    for path in sorted(listed.keys() - present):
        yield rules.DIGEST_GAP.finding(
            METADATA, f"{path[:200]} is listed, but there is no such file"
        )
    for path in sorted(present - listed.keys()):
        yield rules.DIGEST_GAP.finding(path, "the publisher's digests do not list this file")
    for path in sorted(present & listed.keys()):
        try:
            expected = base64.b64decode(listed[path], validate=True)
        except (binascii.Error, ValueError):
            expected = b""
        if len(expected) != _DIGEST_BYTES[algorithm]:
            yield rules.BAD_METADATA.finding(METADATA, f"the digest of {path[:200]} is malformed")
        elif algorithm == "sha256" and expected.hex() != manifest.by_path[path].digest.hex:
            seen = f"the publisher recorded sha256:{expected.hex()}"
            yield rules.DIGEST_WRONG.finding(path, seen)


def _is_covered(path: str) -> bool:
    # What upstream's digest skips: `kernels-data/src/digest.rs`.
    parts = path.split("/")
    skipped = path in {METADATA, SIGNATURE} or "__pycache__" in parts or path.endswith(".pyc")
    return not skipped


def _check_backend(
    backend: dict[str, Any], variant: Variant, device_archs: Mapping[str, Iterable[str]]
) -> Iterator[Finding]:
    declared = backend["type"]
    if variant.backend not in {declared, "universal"}:
        seen = f"metadata.json says {declared!r}, the directory {variant.backend!r}"
        yield rules.WRONG_BACKEND.finding(METADATA, seen)
    found = {name: set(archs) for name, archs in device_archs.items()}
    for other in sorted(found.keys() - {variant.backend}):
        if found[other]:
            seen = f"there is {other} device code in a variant for {variant.backend}"
            yield rules.WRONG_BACKEND.finding(METADATA, seen)
    archs = backend.get("archs")
    ours = {_short(name) for name in found.get(variant.backend, set())}
    if archs and ours:
        said = {_declared(name) for name in archs}
        if missing := sorted(said - ours):
            yield rules.WRONG_ARCHS.finding(METADATA, f"declared, not found: {', '.join(missing)}")
        if extra := sorted(ours - said):
            yield rules.WRONG_ARCHS.finding(METADATA, f"found, not declared: {', '.join(extra)}")


def _short(arch: str) -> str:
    # gfx90a:xnack+ is gfx90a to clients, compute_90 is what sm_90 PTX becomes.
    return arch.partition(":")[0].replace("compute_", "sm_")


def _declared(arch: str) -> str:
    # Builders write CUDA architectures as compute capabilities: 9.0a+PTX is sm_90a.
    found = re.fullmatch(r"(\d+)\.(\d)([af]?)(?:\+PTX)?", arch)
    return f"sm_{found[1]}{found[2]}{found[3]}" if found else arch

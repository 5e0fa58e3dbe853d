"""`kgate.lock`: which commit each pin meant when it was locked, and which bytes each variant has.

Format: JSON, `kgate.dev/lock/v1`, written sorted and indented so that a merge request reads well.
It is not signed: it says what was asked for; whether that may run is in the attestations. Both
the server (`sync --locked`) and the client (`KGATE_LOCK`) read it.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from kgate_core import strictjson
from kgate_core.digest import Digest
from kgate_core.errors import InvalidInput
from kgate_core.kernel import KernelRef, RepoType, Revision, Variant, check_origin
from kgate_core.ondeny import OnDeny, check_choices

if TYPE_CHECKING:
    from collections.abc import Mapping

SCHEMA: Final = "kgate.dev/lock/v1"
_FIELDS: Final = {"repo", "pin", "commit", "lane", "origin", "type", "variants", "depends"} | {
    "patterns",
    "onDeny",
    "targets",
}


@dataclass(frozen=True, slots=True)
class LockedVariant:
    """One variant's manifest digest, with its size in bytes and number of files for people."""

    manifest: Digest
    size: int
    files: int


@dataclass(frozen=True, slots=True)
class LockedKernel:
    """One pin, resolved: nothing in it moves."""

    origin: str
    repo_type: RepoType
    repo: KernelRef
    lane: str
    pin: str
    """What a person asked for: `v1`, or a commit."""
    commit: Revision
    variants: Mapping[str, LockedVariant]
    depends: tuple[str, ...] = ()
    """Kernels that this one loads, as `org/name@v1`."""
    patterns: tuple[str, ...] = ("*",)
    """Which variants were wanted; another wish makes the lock out of date."""
    on_deny: OnDeny | None = None
    """What a pod does when the kernel is refused; what is signed for the lane may be stricter."""
    targets: Mapping[str, str | None] = field(default_factory=dict)
    """Which variant serves each machine of the fleet, by its description; None: none does."""

    @property
    def key(self) -> tuple[str, str, str, str, str]:
        """What makes two entries the same pin."""
        return (str(self.repo), self.pin, self.lane, self.origin, str(self.repo_type))


@dataclass(frozen=True, slots=True)
class Lock:
    """All resolved pins, sorted."""

    kernels: tuple[LockedKernel, ...]

    def __post_init__(self) -> None:
        keys = [kernel.key for kernel in self.kernels]
        if len(set(keys)) != len(keys):
            twice = Counter(keys).most_common(1)[0][0]
            raise InvalidInput(f"lock: {twice[0]} {twice[1]} in lane {twice[2]} stands twice")
        object.__setattr__(self, "kernels", tuple(sorted(self.kernels, key=lambda k: k.key)))

    def to_bytes(self) -> bytes:
        """Return the text of `kgate.lock`."""
        document = {"schema": SCHEMA, "kernels": [_to_json(kernel) for kernel in self.kernels]}
        return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode("utf-8")

    @classmethod
    def parse(cls, data: bytes) -> Lock:
        """Read `kgate.lock`; raises InvalidInput naming the entry and the field."""
        what = "lock"
        document = strictjson.loads(data, what=what, max_bytes=64 * 1024**2)
        if strictjson.take(document, "schema", str, what=what) != SCHEMA:
            raise InvalidInput(
                f"{what}: unknown schema {document['schema']!r}; this version reads {SCHEMA}",
                hint="write it anew with `kgate lock`",
            )
        strictjson.refuse_unknown(document, {"schema", "kernels"}, what=what)
        items = strictjson.take(document, "kernels", list, what=what)
        return cls(
            tuple(
                _from_json(item, what=f"{what}: kernels[{index}]")
                for index, item in enumerate(items)
            )
        )


def _to_json(kernel: LockedKernel) -> dict[str, Any]:
    return {
        "repo": str(kernel.repo),
        "pin": kernel.pin,
        "commit": str(kernel.commit),
        "lane": kernel.lane,
        "origin": kernel.origin,
        "type": str(kernel.repo_type),
        "patterns": list(kernel.patterns),
        "variants": {
            name: {"manifest": str(item.manifest), "size": item.size, "files": item.files}
            for name, item in sorted(kernel.variants.items())
        },
        "depends": list(kernel.depends),
        **({} if kernel.on_deny is None else {"onDeny": str(kernel.on_deny)}),
        **({"targets": dict(sorted(kernel.targets.items()))} if kernel.targets else {}),
    }


def _from_json(data: strictjson.JsonValue, *, what: str) -> LockedKernel:
    repo = strictjson.take(data, "repo", str, what=what)
    what = f"{what} ({repo})"
    strictjson.refuse_unknown(data, _FIELDS, what=what)
    variants: dict[str, LockedVariant] = {}
    for name, item in strictjson.take(data, "variants", dict, what=what).items():
        inner = f"{what}: variant {name}"
        Variant.parse(name)
        strictjson.refuse_unknown(item, {"manifest", "size", "files"}, what=inner)
        variants[name] = LockedVariant(
            Digest.parse(strictjson.take(item, "manifest", str, what=inner)),
            strictjson.take(item, "size", int, what=inner),
            strictjson.take(item, "files", int, what=inner),
        )
    if not variants:
        raise InvalidInput(f"{what}: no variants")
    repo_type = strictjson.take(data, "type", str, what=what)
    if repo_type not in set(RepoType):
        raise InvalidInput(f"{what}: unknown repository type {repo_type!r}")
    try:
        return LockedKernel(
            check_origin(strictjson.take(data, "origin", str, what=what)),
            RepoType(repo_type),
            KernelRef.parse(repo),
            strictjson.take(data, "lane", str, what=what),
            strictjson.take(data, "pin", str, what=what),
            Revision(strictjson.take(data, "commit", str, what=what)),
            variants,
            strictjson.take_strings(data, "depends", what=what),
            strictjson.take_strings(data, "patterns", what=what) if "patterns" in data else ("*",),
            _on_deny(data, repo, what=what),
            _targets(data, variants, what=what),
        )
    except InvalidInput as exc:
        if exc.message.startswith(what):
            raise
        raise InvalidInput(f"{what}: {exc.message}", hint=exc.hint) from exc


def _on_deny(data: strictjson.JsonValue, repo: str, *, what: str) -> OnDeny | None:
    if not isinstance(data, dict) or "onDeny" not in data:
        return None
    text = strictjson.take(data, "onDeny", str, what=what)
    return check_choices({repo: text}, what=f"{what}: onDeny")[repo]


def _targets(
    data: strictjson.JsonValue, variants: Mapping[str, LockedVariant], *, what: str
) -> dict[str, str | None]:
    if not isinstance(data, dict) or "targets" not in data:
        return {}
    found: dict[str, str | None] = {}
    for target, variant in strictjson.take(data, "targets", dict, what=what).items():
        if variant is not None and variant not in variants:
            raise InvalidInput(f"{what}: target {target}: there is no variant {variant!r}")
        found[target] = variant
    return found

"""Say in sentences what one set of trust documents changes about another.

For the person who is about to sign. Both sets must be authentic: this reads, and verifies nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from tuf.api.metadata import (  # type: ignore[attr-defined]  # re-exports without __all__
    Root,
    Targets,
)

from kgate_core.trust import AUTHORITIES, FIELD
from kgate_signer.trustwriter import read_document

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kgate_signer.trustwriter import TrustSet

_SHORT: Final = 16  # hex digits of a key's id
_ROLES: Final = ("root", "targets", "timestamp")


def differences(before: TrustSet, after: TrustSet) -> list[str]:
    """Return one sentence for each thing that pods would believe differently."""
    old, new = (read_document(trust.roots[-1], Root).signed for trust in (before, after))
    olds, news = (read_document(trust.targets, Targets).signed for trust in (before, after))
    own = [signed.unrecognized_fields.get(FIELD, {}) for signed in (olds, news)]
    found = [*_holders(old, new), *_keys(*own), *_revocations(*own), *_lanes(*own)]
    known = own[0].get(AUTHORITIES, [])
    found += [
        f"believes the timestamps of {entry.get('name')}"
        for entry in own[1].get(AUTHORITIES, [])
        if entry not in known
    ]
    if own[0].get("site") != own[1].get("site"):
        found.append(f"the site is named {own[1].get('site')} instead of {own[0].get('site')}")
    if new.version != old.version:
        found.append(f"root {new.version} is valid until {new.expires:%Y-%m-%d}")
    found.append(f"targets {news.version} is valid until {news.expires:%Y-%m-%d}")
    return found


def _holders(old: Root, new: Root) -> Iterator[str]:
    for name in _ROLES:
        was, will = old.roles[name], new.roles[name]
        for keyid in sorted(set(will.keyids) - set(was.keyids)):
            yield f"the key {keyid[:_SHORT]}… speaks for {name} from now on"
        for keyid in sorted(set(was.keyids) - set(will.keyids)):
            yield f"the key {keyid[:_SHORT]}… speaks for {name} no more"
        if was.threshold != will.threshold:
            yield f"{name} needs {will.threshold} signatures instead of {was.threshold}"


def _keys(old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    was, will = old.get("keys", {}), new.get("keys", {})
    for keyid, key in sorted(will.items()):
        until = key.get("validUntil")
        if keyid not in was:
            role = key.get("role", "the role its lanes say")
            yield f"the key {keyid[:_SHORT]}… is known for {role}, until {until}"
        elif was[keyid] != key:
            yield f"the key {keyid[:_SHORT]}… is changed, and valid until {until}"
    for keyid in sorted(was.keys() - will.keys()):
        yield f"the key {keyid[:_SHORT]}… is known no more"


def _revocations(old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    for kind in ("keys", "digests"):
        was, will = (own.get("revoked", {}).get(kind, {}) for own in (old, new))
        for name in sorted(will.keys() - was.keys()):
            yield f"revokes {name}: {will[name].get('reason')}"
        for name in sorted(was.keys() - will.keys()):
            yield f"takes back the revocation of {name}"
        for name in sorted(was.keys() & will.keys()):
            if was[name] != will[name]:
                yield f"says something else about the revocation of {name}"


def _lanes(old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    was, will = old.get("lanes", {}), new.get("lanes", {})
    for name in sorted(was.keys() | will.keys()):
        before, after = was.get(name), will.get(name)
        if before is None:
            yield f"lane {name} is new: {_said(after)}"
        elif after is None:
            yield f"lane {name} is taken out"
        else:
            for field in sorted(before.keys() | after.keys()):
                if before.get(field) != after.get(field):
                    yield f"lane {name}: {field} is {_said(after.get(field))}"


def _said(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_said(item)}" for name, item in sorted(value.items()))
    if isinstance(value, list):
        return " and ".join(_said(item) for item in value) or "nothing"
    return str(value)

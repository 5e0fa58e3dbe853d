"""Exceptions as files that a human-held key signed: grant them, and believe only those.

One exception is two files of one name in the folder `exceptions:` of kgate.yaml: the YAML that
people review, and a signed statement over the same fields. It counts only if a key signed it that
the trust metadata gives to the root role, or to a role of a lane other than admit: whoever holds
the key of the pipeline cannot excuse what the pipeline takes in. What a policy makes of an
exception is `kgate_policy.exceptions`' work; nothing is decided here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kgate_core.bundle import Bundle
from kgate_core.errors import Conflict, InvalidInput, KgateError, TrustError
from kgate_core.evidence import Outcome, RuleResult
from kgate_core.statement import MANIFEST_SUBJECT, PAYLOAD_TYPE, Statement, Subject
from kgate_core.tuf import walk_roots
from kgate_mirror_server.trust.files import read_pinned, read_trust, replace_file
from kgate_mirror_server.trust.founding import ADMIT
from kgate_policy import KernelException, load_exceptions
from kgate_policy.exceptions import ending_soon, exception_text
from kgate_signer.sign import sign_statement

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from pathlib import Path

    from kgate_core.digest import Digest
    from kgate_core.kernel import KernelRef
    from kgate_core.keys import PublicKey
    from kgate_core.trust import TrustedRoot
    from kgate_mirror_server.app import Mirror
    from kgate_signer.keys import KeyProvider

PREDICATE_TYPE: Final = "https://kgate.dev/exception/v1"
SIGNED: Final = ".sigstore.json"
MAX_SIGNED: Final = 256 * 1024  # bytes of one signed exception


@dataclass(frozen=True, slots=True)
class Refused:
    """An exception that is there but counts for nothing."""

    exception: KernelException
    reason: str

    def result(self) -> RuleResult:
        """Return the warning that stands in every decision about its kernel."""
        return RuleResult(
            f"exception/{self.exception.name}",
            Outcome.WARN,
            f"the exception {self.exception.name} {self.reason}",
            "Grant it with `kgate policy except`, with a key that is not the admit key.",
        )


@dataclass(frozen=True, slots=True)
class Exceptions:
    """Every exception of a site: those that count, and those that do not."""

    granted: tuple[KernelException, ...] = ()
    refused: tuple[Refused, ...] = ()

    def about(self, repo: KernelRef) -> tuple[RuleResult, ...]:
        """Return a warning for each refused exception that names a repository."""
        return tuple(item.result() for item in self.refused if item.exception.kernel == repo)

    def lasting(self, now: datetime) -> tuple[KernelException, ...]:
        """Return those in force, the next to end first."""
        return ending_soon(self.granted, now, days=10_000)

    def ends(self, manifest: Digest, now: datetime) -> datetime | None:
        """Return when the first exception in force for these bytes ends, or None."""
        return next((item.until for item in self.lasting(now) if item.digest == manifest), None)


def statement_of(exception: KernelException, site: str) -> Statement:
    """Return what is signed: the exception's own fields, for one site, about one manifest."""
    return Statement.of(
        (Subject(MANIFEST_SUBJECT, exception.digest),),
        PREDICATE_TYPE,
        {"site": site, **exception.to_json()},
    )


def grant(mirror: Mirror, exception: KernelException, key: KeyProvider, now: datetime) -> Path:
    """Sign an exception and write both files; returns the YAML.

    Raises Conflict if the name is taken and TrustError for a key that may not grant exceptions.
    """
    folder = mirror.config.path(mirror.config.exceptions)
    path = folder / f"{exception.name}.yaml"
    if path.exists():
        raise Conflict(f"{path} exists", hint="remove it, or choose another end")
    if key.public_key().hint not in approvers(mirror, now):
        raise TrustError(
            f"the key {key.public_key().hint} may not grant exceptions",
            hint="use the root key, or the key of a lane's role that is not admit",
        )
    bundle = sign_statement(statement_of(exception, mirror.config.site), key)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise KgateError(f"{folder}: cannot be made ({exc.strerror})") from exc
    # The signature first: a YAML file without one is reported, one alone is not looked at.
    replace_file(folder / f"{exception.name}{SIGNED}", bundle)
    replace_file(path, exception_text(exception).encode())
    return path


def read_exceptions(mirror: Mirror, now: datetime) -> Exceptions:
    """Read every exception and check who signed it.

    Raises InvalidInput for a malformed file and TrustError without trust metadata.
    """
    folder = mirror.config.path(mirror.config.exceptions)
    paths = sorted(folder.glob("*.yaml")) if folder.is_dir() else []
    if not paths:
        return Exceptions()
    allowed = approvers(mirror, now)
    granted: list[KernelException] = []
    refused: list[Refused] = []
    for path in paths:
        found = load_exceptions(path)
        if len(found) != 1 or found[0].name != path.stem:
            raise InvalidInput(f"{path}: expected one KernelException named {path.stem!r}")
        reason = _doubt(found[0], path.with_name(f"{path.stem}{SIGNED}"), mirror, allowed)
        if reason:
            refused.append(Refused(found[0], reason))
        else:
            granted.append(found[0])
    return Exceptions(tuple(granted), tuple(refused))


def _doubt(
    exception: KernelException, path: Path, mirror: Mirror, allowed: Mapping[str, PublicKey]
) -> str:
    """Say why an exception does not count; empty if it does."""
    try:
        with path.open("rb") as stream:
            bundle = Bundle.parse(stream.read(MAX_SIGNED))
    except OSError:
        return "is not signed"
    except InvalidInput as exc:
        return f"is signed by nothing that can be read: {exc.message}"
    key = allowed.get(bundle.hint)
    if key is None:
        return f"is signed by {bundle.hint}, a key that may not grant exceptions"
    envelope = bundle.envelope
    if envelope.payload_type != PAYLOAD_TYPE or not key.verify(
        envelope.signature, envelope.signed_bytes
    ):
        return f"bears a signature that is not one of the key {bundle.hint}"
    if envelope.payload != statement_of(exception, mirror.config.site).data:
        return "says something else than what was signed"
    return ""


def approvers(mirror: Mirror, now: datetime) -> dict[str, PublicKey]:
    """Return by hint the keys that may grant exceptions; raises TrustError.

    The admit and timestamp keys are online; they never may, whatever else they are listed as.
    """
    folder = mirror.config.path(mirror.config.trust)
    trusted = mirror.trusted(now)
    root = walk_roots(read_pinned(folder), read_trust(folder).roots[1:])
    online = {root.keys[name].keyid for name in root.roles["timestamp"].keyids}
    online |= _keyids(trusted, admit=True)
    held = {root.keys[name] for name in root.roles["root"].keyids}
    others = _keyids(trusted, admit=False)
    held |= {
        key.public
        for key in trusted.keys.values()
        if key.public.keyid in others and key.valid_from <= now < key.valid_until
    }
    never = online | set(trusted.revoked_keys)
    return {key.hint: key for key in held if key.keyid not in never}


def _keyids(trusted: TrustedRoot, *, admit: bool) -> set[str]:
    return {
        keyid
        for lane in trusted.lanes.values()
        for name, role in lane.roles.items()
        if (name == ADMIT) is admit
        for keyid in role.keyids
    }

"""Policies as people write them: YAML that extends a built-in profile.

`kgate init` writes `STARTER`. What is malformed is refused with source, line and field; nothing
is guessed. Deciding is `evaluation`'s work.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from kgate_core.digest import Digest
from kgate_core.errors import InvalidInput, NotFound
from kgate_core.evidence import Severity
from kgate_core.kernel import check_origin
from kgate_policy.baseline import RULES
from kgate_policy.located import read_document
from kgate_policy.policy import Policy
from kgate_policy.profiles import builtin_profile
from kgate_policy.rules import Level

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kgate_policy.located import Located
    from kgate_policy.parameters import Parameters

API_VERSION: Final = "kgate.dev/v1"
KIND: Final = "Policy"

# Field of the document -> its sub-fields -> field of Parameters.
_LISTS: Final[Mapping[str, Mapping[str, str]]] = {
    "repositories": {"allow": "repositories_allow", "deny": "repositories_deny"},
    "origins": {"allow": "origins_allow"},
    "digests": {"deny": "digests_deny"},
    "licences": {"allow": "licences_allow", "deny": "licences_deny"},
    "sources": {"allow": "sources_allow"},
    "backends": {"allow": "backends_allow"},
    "builders": {"allow": "builders_allow"},
}
_FIELDS: Final = {"apiVersion", "kind", "name", "extends", "severity", "rules", *_LISTS}


def load_policy(source: Path | str | bytes) -> Policy:
    """Read a policy from a file's path or from its bytes; raises InvalidInput and NotFound."""
    if isinstance(source, bytes):
        return read_policy(read_document(source, source="policy"))
    path = Path(source)
    try:
        data = path.read_bytes()
    except OSError as exc:
        raise NotFound(f"cannot read the policy {path}: {exc.strerror}") from exc
    return read_policy(read_document(data, source=str(path)))


def read_policy(document: Located) -> Policy:
    """Turn one document into a policy; raises InvalidInput naming line and field."""
    fields = document.mapping(_FIELDS)
    check_header(document, KIND)
    base = _base(document.required("extends"))
    levels = dict(base.rules)
    if "rules" in fields:
        for rule, level in fields["rules"].mapping().items():
            if rule not in RULES:
                level.fail("there is no such rule", hint=f"known are {', '.join(RULES)}")
            levels[rule] = level.choice(Level)
    parameters = _parameters(base.parameters, fields)
    return Policy(document.required("name").text(), levels, parameters)


def check_header(document: Located, kind: str) -> None:
    """Refuse a document of another version or kind."""
    for name, expected in (("apiVersion", API_VERSION), ("kind", kind)):
        item = document.required(name)
        if item.text() != expected:
            item.fail(f"expected {expected!r}, found {item.value!r}")


def _base(item: Located) -> Policy:
    try:
        return builtin_profile(item.text())
    except InvalidInput as exc:
        item.fail(exc.message, hint=exc.hint)


def _parameters(base: Parameters, fields: Mapping[str, Located]) -> Parameters:
    changes: dict[str, Any] = {}
    if "severity" in fields:
        for name, item in fields["severity"].mapping({"deny", "warn"}).items():
            changes[f"severity_{name}"] = _severity(item)
    for name, known in _LISTS.items():
        if name in fields:
            for sub, item in fields[name].mapping(known).items():
                changes[known[sub]] = _values(known[sub], item)
    result = replace(base, **changes)
    if result.severity_warn > result.severity_deny:
        if "severity_warn" in changes:
            fields["severity"].fail("warn may not be above deny")
        result = replace(result, severity_warn=result.severity_deny)
    return result


def _severity(item: Located) -> Severity:
    try:
        return Severity.parse(item.text())
    except InvalidInput as exc:
        item.fail(exc.message)


def _values(name: str, item: Located) -> tuple[str, ...]:
    check = {"digests_deny": Digest.parse, "origins_allow": check_origin}.get(name)
    values = item.texts()
    for entry, value in zip(item.items(), values, strict=True):
        try:
            if check is not None:
                check(value)
        except InvalidInput as exc:
            entry.fail(exc.message, hint=exc.hint)
    return values

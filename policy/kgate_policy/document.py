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
from kgate_policy.located import read_documents
from kgate_policy.policy import Policy
from kgate_policy.profiles import builtin_profile
from kgate_policy.rules import Level

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kgate_policy.expressions.model import ExpressionPolicy
    from kgate_policy.located import Located
    from kgate_policy.parameters import Parameters

API_VERSION: Final = "kgate.dev/v1"
KIND: Final = "Policy"
EXPRESSIONS: Final = "KernelPolicy"
_CHECKS: Final = {
    "digests_deny": Digest.parse,
    "origins_allow": check_origin,
    "builds_origins": check_origin,
}
KINDS: Final = (KIND, EXPRESSIONS, "KernelException", "PolicyTest")
"""Kinds that may stand in one folder; the last two are read by `exceptions` and `unittests`."""

# Field of the document -> its sub-fields -> field of Parameters.
_LISTS: Final[Mapping[str, Mapping[str, str]]] = {
    "repositories": {"allow": "repositories_allow", "deny": "repositories_deny"},
    "origins": {"allow": "origins_allow"},
    "digests": {"deny": "digests_deny"},
    "licences": {"allow": "licences_allow", "deny": "licences_deny"},
    "sources": {"allow": "sources_allow"},
    "backends": {"allow": "backends_allow"},
    "builders": {"allow": "builders_allow"},
    "scanners": {"allow": "scanners_allow"},
    "builds": {"origins": "builds_origins"},
}
# Field of the document -> its one number: sub-field, field of Parameters, unit, the most.
_NUMBERS: Final[Mapping[str, tuple[str, str, str, int]]] = {
    "scans": ("maxDays", "scans_max_days", "days", 3660),
    "advisories": ("maxDays", "advisories_max_days", "days", 3660),
    "qualification": ("minSpeedup", "qualification_min_speedup", "percent", 100_000),
}
_FIELDS: Final = {"apiVersion", "kind", "name", "extends", "severity", "rules"} | {
    *_LISTS,
    *_NUMBERS,
}


def load_policy(source: Path | str | bytes) -> Policy:
    """Read a policy from a file, a folder of YAML files, or bytes.

    There is exactly one document of kind Policy; documents of kind KernelPolicy beside it are its
    expressions, in the order of file names. Raises InvalidInput and NotFound.
    """
    documents, policies = load_policies(source)
    if len(policies) != 1:
        name = "policy" if isinstance(source, bytes) else str(source)
        raise InvalidInput(
            f"{name}: expected one document of kind {KIND}, found {len(policies)}",
            hint="a tenant's file may do without: `kgate policy check FILE --tenant NAME`"
            if not policies
            else "",
        )
    return replace(policies[0], expressions=load_expressions(documents))


def load_policies(source: Path | str | bytes) -> tuple[list[Located], list[Policy]]:
    """Return every document of a source, and those of kind Policy as policies; raises as above."""
    documents = read_all(source)
    return documents, [read_policy(item) for item in documents if _kind(item) == KIND]


def load_expressions(
    documents: Sequence[Located], *, tenant: str = ""
) -> tuple[ExpressionPolicy, ...]:
    """Read every document of kind KernelPolicy; raises InvalidInput."""
    wanted = [item for item in documents if _kind(item) == EXPRESSIONS]
    if not wanted:
        return ()
    # The engine costs more to import than all the rest: only policies with expressions pay.
    from kgate_policy.expressions.reading import read_expressions  # noqa: PLC0415

    return tuple(read_expressions(item, tenant=tenant) for item in wanted)


def advice(policy: Policy) -> tuple[str, ...]:
    """Return what the policy's expressions say, but probably do not mean."""
    if not policy.expressions:
        return ()
    from kgate_policy.expressions.compiling import compile_policy  # noqa: PLC0415  # as above

    return tuple(line for item in policy.expressions for line in compile_policy(item).advice)


def read_all(source: Path | str | bytes) -> list[Located]:
    """Read every document of a file, of a folder's YAML files, or of bytes."""
    if isinstance(source, bytes):
        return list(read_documents(source, source="policy"))
    path = Path(source)
    try:
        files = sorted(path.glob("*.yaml")) if path.is_dir() else [path]
        return [
            document
            for file in files
            for document in read_documents(file.read_bytes(), source=str(file))
        ]
    except OSError as exc:
        raise NotFound(f"cannot read the policy {path}: {exc.strerror}") from exc


def _kind(document: Located) -> str:
    kind = document.required("kind")
    if kind.text() not in KINDS:
        kind.fail(f"unknown kind {kind.value!r}", hint=f"known are {', '.join(KINDS)}")
    return kind.text()


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
    for name, (sub, parameter, unit, most) in _NUMBERS.items():
        if name in fields:
            fields[name].mapping({sub})
            changes[parameter] = _number(fields[name].required(sub), unit, most)
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


def _number(item: Located, unit: str, most: int) -> int:
    value = item.value
    if type(value) is not int or not 1 <= value <= most:
        item.fail(f"expected a number of {unit} from 1 to {most}, found {value!r}")
    return value


def _severity(item: Located) -> Severity:
    try:
        return Severity.parse(item.text())
    except InvalidInput as exc:
        item.fail(exc.message)


def _values(name: str, item: Located) -> tuple[str, ...]:
    check = _CHECKS.get(name)
    values = item.texts()
    for entry, value in zip(item.items(), values, strict=True):
        try:
            if check is not None:
                check(value)
        except InvalidInput as exc:
            entry.fail(exc.message, hint=exc.hint)
    return values

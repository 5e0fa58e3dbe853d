"""An expression policy as values.

The shape follows Kubernetes' ValidatingAdmissionPolicy (admissionregistration.k8s.io/v1), with
`matchConstraints.kernels`, `evaluate` and `params` inside the policy. Nothing is compiled here.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from kgate_core import strictjson
from kgate_core.digest import Digest

if TYPE_CHECKING:
    from kgate_core.evidence import Facts


class Action(StrEnum):
    """What a failed validation leads to."""

    DENY = "Deny"
    WARN = "Warn"
    AUDIT = "Audit"


class Failure(StrEnum):
    """What an error (an absent fact, a limit) leads to. Neither lets anything pass silently."""

    FAIL = "Fail"
    IGNORE = "Ignore"


class Scope(StrEnum):
    """Whether a policy is asked about each kernel, or once about all of them."""

    EACH = "Each"
    ONCE = "Once"


@dataclass(frozen=True, slots=True)
class Named:
    """An expression with a name: a match condition or a variable."""

    name: str
    expression: str


@dataclass(frozen=True, slots=True)
class Validation:
    """One expression that has to hold, and what is said if it does not."""

    expression: str
    message: str = ""
    message_expression: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class KernelMatch:
    """Which kernels a policy is about: shell patterns; an empty list means any."""

    repositories: tuple[str, ...] = ()
    lanes: tuple[str, ...] = ()
    backends: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ResourceRule:
    """Which Kubernetes requests a policy is about; `*` stands for any."""

    groups: tuple[str, ...]
    versions: tuple[str, ...]
    resources: tuple[str, ...]
    operations: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ExpressionPolicy:
    """One policy of expressions; equal documents have equal digests."""

    name: str
    document: bytes
    """The policy as canonical JSON: what is digested and what a worker is given."""
    validations: tuple[Validation, ...]
    actions: tuple[Action, ...] = (Action.DENY,)
    failure: Failure = Failure.FAIL
    scope: Scope = Scope.EACH
    allow_none: bool = False
    """True if an empty set of kernels is nothing to deny."""
    kernels: KernelMatch = KernelMatch()
    resources: tuple[ResourceRule, ...] = ()
    conditions: tuple[Named, ...] = ()
    variables: tuple[Named, ...] = ()
    fix: str = ""
    """What a person can do, from the annotation `kgate.dev/fix`."""
    tenant: str = ""
    """Whose policy it is; empty for the site's own. Tenants' policies run in a worker."""

    @property
    def digest(self) -> Digest:
        """The digest of the canonical document."""
        return Digest.of(self.document)

    @property
    def params(self) -> Any:  # noqa: ANN401  # whatever the author wrote
        """The policy's own parameters, None if it has none."""
        return self.to_json()["spec"].get("params")

    def to_json(self) -> Facts:
        """Return the document."""
        document: Facts = strictjson.loads(self.document, what=self.name)
        return document

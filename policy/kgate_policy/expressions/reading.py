"""Reads expression policies and compiles every expression once, so that mistakes show at once.

A mistake names source, line, field, and the place in the expression with a caret. What a policy
decides is `running`'s work.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from kgate_core import strictjson
from kgate_core.errors import InvalidInput
from kgate_policy.expressions.compiling import compile_policy
from kgate_policy.expressions.model import (
    Action,
    ExpressionPolicy,
    Failure,
    KernelMatch,
    Named,
    ResourceRule,
    Scope,
    Validation,
)
from kgate_policy.facts.limits import check_facts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kgate_policy.located import Located

API_VERSION: Final = "kgate.dev/v1"
KIND: Final = "KernelPolicy"
MAX_EXPRESSIONS: Final = 64  # expressions of one policy, of every kind together
MAX_MESSAGE: Final = 1_024  # characters

_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_IDENTIFIER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_FIX: Final = "kgate.dev/fix"
_SPEC: Final = {
    "matchConstraints",
    "matchConditions",
    "variables",
    "params",
    "evaluate",
    "allowNone",
    "failurePolicy",
    "validations",
    "validationActions",
}


def read_expressions(document: Located, *, tenant: str = "") -> ExpressionPolicy:
    """Read and compile one document of kind KernelPolicy; raises InvalidInput."""
    document.mapping({"apiVersion", "kind", "metadata", "spec"})
    for name, expected in (("apiVersion", API_VERSION), ("kind", KIND)):
        item = document.required(name)
        if item.text() != expected:
            item.fail(f"expected {expected!r}, found {item.value!r}")
    name, fix = _metadata(document.required("metadata"))
    spec = document.required("spec")
    fields = spec.mapping(_SPEC)
    validations = tuple(_validation(item) for item in spec.required("validations").items())
    if not validations:
        fields["validations"].fail("an empty policy allows nothing: write a validation")
    kernels, resources = _constraints(fields.get("matchConstraints"))
    if "params" in fields:
        _check_params(fields["params"])
    policy = ExpressionPolicy(
        name=name,
        document=strictjson.dumps(document.plain()),
        validations=validations,
        actions=_actions(fields.get("validationActions")),
        failure=fields["failurePolicy"].choice(Failure)
        if "failurePolicy" in fields
        else Failure.FAIL,
        scope=fields["evaluate"].choice(Scope) if "evaluate" in fields else Scope.EACH,
        allow_none="allowNone" in fields and fields["allowNone"].flag(),
        kernels=kernels,
        resources=resources,
        conditions=_named(fields, "matchConditions", _NAME),
        variables=_named(fields, "variables", _IDENTIFIER),
        fix=fix,
        tenant=tenant,
    )
    _compile(policy, spec)
    return policy


def _compile(policy: ExpressionPolicy, spec: Located) -> None:
    count = len(policy.conditions) + len(policy.variables) + len(policy.validations)
    if count > MAX_EXPRESSIONS:
        spec.fail(f"{count} expressions are more than the {MAX_EXPRESSIONS} allowed")
    compiled = compile_policy(policy)
    for problem in compiled.problems:
        item = spec.required(problem.list).items()[problem.index].required(problem.field)
        item.fail(problem.message)


def _metadata(item: Located) -> tuple[str, str]:
    fields = item.mapping({"name", "annotations"})
    name = item.required("name")
    if _NAME.fullmatch(name.text()) is None:
        name.fail("a name has lower-case letters, digits and '-'")
    fix = ""
    if "annotations" in fields:
        annotations = fields["annotations"].mapping()
        for text in annotations.values():
            text.text()
        fix = annotations[_FIX].text() if _FIX in annotations else ""
    return name.text(), fix


def _validation(item: Located) -> Validation:
    fields = item.mapping({"expression", "message", "messageExpression", "reason"})
    texts = {key: value.text() for key, value in fields.items()}
    for key in ("message", "reason"):
        if len(texts.get(key, "")) > MAX_MESSAGE:
            fields[key].fail(f"longer than {MAX_MESSAGE} characters")
    return Validation(
        expression=item.required("expression").text(),
        message=texts.get("message", ""),
        message_expression=texts.get("messageExpression", ""),
        reason=texts.get("reason", ""),
    )


def _named(fields: Mapping[str, Located], key: str, pattern: re.Pattern[str]) -> tuple[Named, ...]:
    found: dict[str, Named] = {}
    for item in fields[key].items() if key in fields else ():
        item.mapping({"name", "expression"})
        name = item.required("name")
        if pattern.fullmatch(name.text()) is None:
            name.fail("not a usable name")
        if name.text() in found:
            name.fail("stands twice")
        found[name.text()] = Named(name.text(), item.required("expression").text())
    return tuple(found.values())


def _actions(item: Located | None) -> tuple[Action, ...]:
    if item is None:
        return (Action.DENY,)
    actions = tuple(entry.choice(Action) for entry in item.items())
    if not actions or len(set(actions)) != len(actions):
        item.fail("expected one or two different actions")
    if Action.DENY in actions and Action.WARN in actions:
        item.fail("Deny and Warn say the same thing twice")
    return actions


def _constraints(item: Located | None) -> tuple[KernelMatch, tuple[ResourceRule, ...]]:
    if item is None:
        return KernelMatch(), ()
    fields = item.mapping({"kernels", "resourceRules"})
    kernels = KernelMatch()
    if "kernels" in fields:
        lists = fields["kernels"].mapping({"repositories", "lanes", "backends"})
        kernels = KernelMatch(**{key: value.texts() for key, value in lists.items()})
    rules = fields["resourceRules"].items() if "resourceRules" in fields else []
    return kernels, tuple(_resource_rule(rule) for rule in rules)


def _resource_rule(item: Located) -> ResourceRule:
    item.mapping({"apiGroups", "apiVersions", "resources", "operations"})
    # The core group's name is the empty text, which no other list may hold.
    groups = tuple(
        "" if entry.value == "" else entry.text() for entry in item.required("apiGroups").items()
    )
    return ResourceRule(
        groups,
        item.required("apiVersions").texts(),
        item.required("resources").texts(),
        item.required("operations").texts(),
    )


def _check_params(item: Located) -> None:
    try:
        check_facts(item.plain(), what="params")
    except InvalidInput as exc:
        item.fail(exc.message)

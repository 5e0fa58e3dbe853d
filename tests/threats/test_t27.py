"""T27: an exception past its end, or used for other bytes, is ignored and reported."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from kgate_core.digest import Digest
from kgate_core.errors import InvalidInput
from kgate_policy import KernelException, builtin_profile, evaluate, load_exceptions
from kgate_policy.exceptions import exception_text
from tests.policykit import NOW, good_evidence, with_import

if TYPE_CHECKING:
    from kgate_core.evidence import Decision

UNSIGNED = with_import(upstreamSignature={"status": "missing"})
GRANTED = KernelException(
    name="unsigned-activation",
    kernel=UNSIGNED.kernel.repo,
    digest=UNSIGNED.manifest.digest,
    rules=("require-upstream-signature",),
    reason="Signed builds are announced for December.",
    granted=NOW - timedelta(days=1),
    until=NOW + timedelta(days=30),
    requested_by="alice",
    approved_by="bob",
)


def decide(*exceptions: KernelException) -> Decision:
    """Decide about the unsigned kernel."""
    return evaluate(UNSIGNED, builtin_profile("production"), now=NOW, exceptions=exceptions)


def test_without_an_exception_the_kernel_is_denied() -> None:
    assert [item.rule for item in decide().denials] == ["require-upstream-signature"]


def test_an_exception_turns_the_denial_into_a_warning_that_says_so() -> None:
    decision = decide(GRANTED)
    assert decision.allowed
    (warning,) = decision.warnings
    assert warning.rule == "require-upstream-signature"
    assert "excepted until 2026-12-21T12:00:00Z by bob (unsigned-activation)" in warning.seen
    assert warning.hint.startswith("30 days are left.")


INEFFECTIVE = [
    (replace(GRANTED, granted=NOW - timedelta(days=9), until=NOW), "ended 2026-11-21T12:00:00Z"),
    (replace(GRANTED, granted=NOW + timedelta(days=1)), "begins 2026-11-22T12:00:00Z"),
    (replace(GRANTED, digest=Digest.of(b"other bytes")), "is for other bytes"),
]


@pytest.mark.parametrize(("exception", "reason"), INEFFECTIVE)
def test_an_exception_that_does_not_hold_is_ignored_and_reported(
    exception: KernelException, reason: str
) -> None:
    decision = decide(exception)
    assert not decision.allowed
    (warning,) = decision.warnings
    assert warning.rule == "exception/unsigned-activation"
    assert reason in warning.seen


def test_an_exception_for_another_rule_does_not_help_and_is_reported() -> None:
    decision = decide(replace(GRANTED, rules=("no-dirty-build",)))
    assert not decision.allowed
    assert "is not needed" in decision.warnings[0].seen


def test_an_exception_for_another_repository_is_nobodys_business_here() -> None:
    other = replace(GRANTED, kernel=good_evidence(repo="a/b").kernel.repo)
    assert decide(other).results == decide().results


def test_an_exception_never_covers_a_broken_signature() -> None:
    with pytest.raises(InvalidInput, match="upstream-signature-valid cannot be excepted"):
        replace(GRANTED, rules=("upstream-signature-valid",))


TEXT = f"""\
apiVersion: kgate.dev/v1
kind: KernelException
name: unsigned-activation
kernel: {UNSIGNED.kernel.repo}
digest: {UNSIGNED.manifest.digest}
rules: [require-upstream-signature]
reason: Signed builds are announced for December.
granted: 2026-11-20T12:00:00Z
until: 2026-12-21T12:00:00Z
requestedBy: alice
approvedBy: bob
"""


def test_an_exception_is_read_from_its_document() -> None:
    assert load_exceptions(TEXT.encode()) == (GRANTED,)


def test_an_exception_that_is_written_reads_back_equal() -> None:
    odd = replace(GRANTED, reason='with: a colon, "quotes", ünïcode # and a hash\nand two lines')
    for exception in (GRANTED, odd):
        assert load_exceptions(exception_text(exception).encode()) == (exception,)


MALFORMED = [
    (TEXT.replace("until: 2026-12-21T12:00:00Z\n", ""), "the field 'until' is missing"),
    (
        TEXT.replace("reason: Signed builds are announced for December.\n", ""),
        "'reason' is missing",
    ),
    (TEXT.replace("Signed builds are announced for December.", "ok"), "at least 12 characters"),
    (TEXT.replace("2026-12-21T12:00:00Z", "2036-12-21"), "ends within 366 days"),
    (TEXT.replace("2026-12-21T12:00:00Z", "2026-11-20T12:00:00Z"), "ends within 366 days"),
    (TEXT.replace("2026-12-21T12:00:00Z", "soon"), "line 9: until: expected a date"),
    (TEXT.replace("approvedBy: bob", "approvedBy: Alice "), "what they asked for themselves"),
    (TEXT.replace("[require-upstream-signature]", "[]"), "names the rules"),
    (TEXT.replace("[require-upstream-signature]", "[bytes-verified]"), "cannot be excepted"),
    (TEXT + "forEver: true\n", "line 12: forEver: there is no such field"),
    (TEXT.replace("digest: sha256:", "digest: "), "not a digest"),
]


@pytest.mark.parametrize(("text", "message"), MALFORMED)
def test_a_malformed_exception_is_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        load_exceptions(text.encode())

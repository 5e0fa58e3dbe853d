"""A question to a policy as a file: asked again years later, it gives the same answer."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from kgate_core import strictjson
from kgate_core.errors import IntegrityError, InvalidInput
from kgate_policy import KernelException, builtin_profile
from kgate_policy.question import Question
from tests.policykit import NOW, good_evidence, with_import

UNSIGNED = with_import(upstreamSignature={"status": "missing"})
EXCEPTION = KernelException(
    name="unsigned",
    kernel=UNSIGNED.kernel.repo,
    digest=UNSIGNED.manifest.digest,
    rules=("require-upstream-signature",),
    reason="Signed builds are announced.",
    granted=NOW - timedelta(days=1),
    until=NOW + timedelta(days=30),
    requested_by="alice",
    approved_by="bob",
)
QUESTIONS = [
    Question(good_evidence(), builtin_profile("production"), NOW),
    Question(UNSIGNED, builtin_profile("production"), NOW),
    Question(UNSIGNED, builtin_profile("production"), NOW, (EXCEPTION,)),
]


@pytest.mark.parametrize("question", QUESTIONS)
def test_the_same_bytes_give_the_same_decision(question: Question) -> None:
    again = Question.parse(question.to_bytes())
    assert again == question
    assert again.decide() == question.decide()
    assert again.to_bytes() == question.to_bytes()


def test_the_moment_and_the_exceptions_are_part_of_the_question() -> None:
    assert [item.decide().allowed for item in QUESTIONS] == [True, False, True]
    late = replace(QUESTIONS[2], now=EXCEPTION.until)
    assert not Question.parse(late.to_bytes()).decide().allowed


def test_another_policy_can_be_asked_about_the_same() -> None:
    assert QUESTIONS[1].decide(builtin_profile("staging")).allowed


def test_a_file_whose_decision_does_not_follow_is_refused() -> None:
    data = QUESTIONS[1].to_bytes()
    document = strictjson.loads(data, what="test", max_bytes=len(data))
    yes = Question(good_evidence(), builtin_profile("production"), NOW).decide().to_json()
    with pytest.raises(IntegrityError, match="does not follow"):
        Question.parse(strictjson.dumps(document | {"decision": yes}))
    with pytest.raises(IntegrityError, match="does not follow"):
        Question.parse(data.replace(b"question/v2", b"question/v9"))
    with pytest.raises(InvalidInput):
        Question.parse(strictjson.dumps(document | {"more": 1}))

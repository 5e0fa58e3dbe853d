"""Policy files: what they may say, and how they are refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kgate_core.errors import InvalidInput, NotFound
from kgate_core.evidence import Severity
from kgate_policy import builtin_profile, load_policy, starter_policy
from kgate_policy.rules import Level

if TYPE_CHECKING:
    from pathlib import Path

HEAD = "apiVersion: kgate.dev/v1\nkind: Policy\nname: mine\nextends: staging\n"


def test_the_starter_policy_is_staging_as_its_comments_say() -> None:
    policy = load_policy(starter_policy().encode())
    assert policy.name == "baseline"
    assert policy.rules == builtin_profile("staging").rules
    assert policy.parameters == builtin_profile("staging").parameters


def test_a_policy_is_read_from_a_path(tmp_path: Path) -> None:
    file = tmp_path / "baseline.yaml"
    file.write_text(starter_policy())
    assert load_policy(file).digest == load_policy(str(file)).digest


def test_a_missing_file_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"nowhere\.yaml"):
        load_policy(tmp_path / "nowhere.yaml")


def test_every_part_of_a_policy_file_has_its_effect() -> None:
    policy = load_policy(
        (
            HEAD + "severity: {deny: medium, warn: low}\n"
            "rules: {no-dirty-build: off, sbom-present: warn}\n"
            "repositories: {allow: ['kernels-community/*'], deny: [evil/relu]}\n"
            "origins: {allow: ['https://huggingface.co']}\n"
            "digests: {deny: ['sha256:" + "0" * 64 + "']}\n"
            "licences: {allow: [MIT], deny: [AGPL-3.0-only]}\n"
            "sources: {allow: ['https://github.com/*']}\n"
            "backends: {allow: [cuda]}\n"
            "builders: {allow: ['0.17.*']}\n"
            "scanners: {allow: ['kgate-scanner/*']}\n"
        ).encode()
    )
    given = policy.parameters
    assert (given.severity_deny, given.severity_warn) == (Severity.MEDIUM, Severity.LOW)
    assert policy.rules["no-dirty-build"] is Level.OFF
    assert policy.rules["sbom-present"] is Level.WARN
    assert policy.rules["no-bytecode"] is Level.DENY
    assert given.repositories_allow == ("kernels-community/*",)
    assert given.repositories_deny == ("evil/relu",)
    assert given.origins_allow == ("https://huggingface.co",)
    assert given.licences_deny == ("AGPL-3.0-only",)
    assert given.backends_allow == ("cuda",)


def test_a_lower_threshold_takes_the_warning_with_it() -> None:
    given = load_policy((HEAD + "severity: {deny: low}\n").encode()).parameters
    assert (given.severity_deny, given.severity_warn) == (Severity.LOW, Severity.LOW)


MALFORMED = [
    ("", "expected one document of kind Policy, found 0"),
    (f"{HEAD}---\n{HEAD}", "expected one document of kind Policy, found 2"),
    (HEAD + "rule: {}\n", r"line 5: rule: there is no such field"),
    (HEAD + "rules:\n  no-bytecode: maybe\n", r"line 6: rules\.no-bytecode: expected one of"),
    (HEAD + "rules:\n  no-such: off\n", r"line 6: rules\.no-such: there is no such rule"),
    (HEAD + "rules: [a]\n", r"line 5: rules: expected fields, found a list"),
    (HEAD + "rules:\n", r"line 5: rules: expected fields, found nothing"),
    (HEAD + "severity: {deny: awful}\n", r"line 5: severity\.deny: unknown severity"),
    (HEAD + "severity: {deny: low, warn: high}\n", "warn may not be above deny"),
    (HEAD + "digests: {deny: [abc]}\n", r"line 5: digests\.deny\[0\]: not a digest"),
    (HEAD + "origins: {allow: ['ftp://x']}\n", r"origins\.allow\[0\]: not an upstream origin"),
    (HEAD + "backends: {allow: cuda}\n", "backends.allow: expected a list, found 'cuda'"),
    (HEAD + "backends: {allow: [true]}\n", r"allow\[0\]: expected text, found True"),
    (HEAD + "name: again\n", r"line 5: name: stands twice"),
    (HEAD.replace("staging", "nirvana"), "line 4: extends: there is no profile 'nirvana'"),
    (HEAD.replace("kgate.dev/v1", "v2"), r"line 1: apiVersion: expected 'kgate.dev/v1'"),
    (HEAD.replace("name: mine\n", ""), "the field 'name' is missing"),
    (HEAD + "backends: &x {allow: []}\nsources: *x\n", "line 6: anchors and aliases"),
    (HEAD + "rules: !!python/name:os.system {}\n", "is not read"),
    (HEAD + "backends: {allow: [!!binary aGk=]}\n", "is not read"),
    (HEAD + "? [a]\n: b\n", "a key is not text"),
    (HEAD + "1: b\n", "a key is not text"),
    (HEAD + "rules: {", "line 5: not YAML"),
    ("[" * 40, "nested deeper than 24"),
    ("- a\n", "expected fields, found a list"),
]


@pytest.mark.parametrize(("text", "message"), MALFORMED)
def test_a_malformed_policy_names_the_line_and_the_field(text: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        load_policy(text.encode())


def test_bytes_that_are_not_utf8_are_refused() -> None:
    with pytest.raises(InvalidInput, match="not YAML"):
        load_policy(b"\xff\xfe")


def test_a_file_beyond_the_limit_is_refused() -> None:
    with pytest.raises(InvalidInput, match="more than the 262144 allowed"):
        load_policy(b"#" * 300_000)


def test_an_unknown_profile_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidInput) as caught:
        builtin_profile("prod")
    assert caught.value.hint == "built in are dev, staging, production, airgap, approved-algorithms"

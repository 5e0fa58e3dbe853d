"""Corners that the other tests walk past: odd input that must be refused or told."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kgate_core.errors import InvalidInput, KgateError
from kgate_policy import load_exceptions, load_policy, starter_policy
from kgate_policy.cel import kubernetes as k8s
from kgate_policy.cel.engine import Wanted, environment
from kgate_policy.expressions import child
from kgate_policy.lint import lint_paths, lint_text
from kgate_policy.located import read_document
from kgate_policy.replay import read_evidence, read_policy_bytes
from kgate_policy.unittests import load_cases
from kgate_policy.why import Machine, consider

if TYPE_CHECKING:
    from pathlib import Path


def test_one_document_is_expected_where_one_is_meant() -> None:
    assert read_document(b"a: 1\n", source="x").required("a").plain() == 1
    with pytest.raises(InvalidInput, match="expected one document, found 2"):
        read_document(b"a: 1\n---\nb: 1\n", source="x")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("off", "off"), ("True", True), ("1.10", "1.10"), ("2026-12-31", "2026-12-31"), ("~", None)],
)
def test_yaml_words_keep_what_was_written(text: str, expected: object) -> None:
    assert read_document(f"a: {text}\n".encode(), source="x").required("a").plain() == expected


def test_maps_written_in_an_expression_are_looked_into() -> None:
    text = "{'a': kernel.size}['a'] > 0 && [kernel.name].size() == 1"
    shape = environment().compile(text, wanted=Wanted.BOOL).shape
    assert {"kernel.size", "kernel.name"} <= shape.paths


def test_what_is_no_version_has_no_parts_and_no_order() -> None:
    with pytest.raises(ValueError, match="semantic version"):
        k8s.semver_part("x", 0)
    with pytest.raises(ValueError, match="semantic version"):
        k8s.semver_compare("x", "1.0.0")


def test_the_child_learns_and_answers() -> None:
    known: dict[str, object] = {}
    document = (
        '{"apiVersion":"kgate.dev/v1","kind":"KernelPolicy","metadata":{"name":"a"},'
        '"spec":{"evaluate":"Once","validations":[{"expression":"kernels.size() == 1"}]}}'
    )
    learnt = child._serve({"learn": "d", "document": document, "tenant": "t"}, known)  # type: ignore[arg-type]  # filled by it
    assert learnt == {"learnt": "d"}
    kernel = {"repo": "a/b", "lane": "x", "backend": "cpu", "variant": "torch-cpu"}
    question = {
        "ask": "d",
        "kernels": [kernel],
        "now": "2026-11-21T12:00:00Z",
        "surroundings": {},
    }
    answer = child._serve(question, known)  # type: ignore[arg-type]  # as above
    assert [item["outcome"] for item in answer["results"]] == ["pass"]


def test_metal_needs_a_macos_that_is_new_enough() -> None:
    names = ["torch213-metal-aarch64-darwin"]
    old = Machine("metal", None, (2, 13), None, "aarch64", "darwin", macos=(15, 0))
    new = Machine("metal", None, (2, 13), None, "aarch64", "darwin", macos=(26, 0))
    assert consider(names, old)[0].reason == "needs macOS 26.0, the machine has 15.0"
    assert consider(names, new)[0].fits


def test_a_rocm_version_has_to_match_exactly() -> None:
    machine = Machine("rocm", (7, 1), (2, 13))
    (item,) = consider(["torch213-cxx11-rocm70-x86_64-linux"], machine)
    assert item.reason == "needs rocm 7.0 exactly, the machine has rocm 7.1"


def test_a_file_that_cannot_be_opened_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(_: object) -> bytes:
        raise PermissionError(13, "Permission denied")

    file = tmp_path / "a.py"
    file.touch()
    monkeypatch.setattr(type(file), "read_bytes", closed)
    (checked,) = lint_paths([file])
    assert checked.findings[0].rule == "KG-LINT-018"
    assert checked.findings[0].seen == "cannot be opened: Permission denied"


def test_a_configuration_that_is_no_object_and_a_dockerfile_that_stops_in_the_middle() -> None:
    assert lint_text("config.json", b"[1, 2]") == ()
    assert lint_text("Dockerfile", b"FROM") == ()
    assert [item.line for item in lint_text("Dockerfile", b"RUN curl x | sh \\")] == [1]


def test_names_that_only_look_like_repositories_are_no_kernels() -> None:
    assert lint_text("a.py", b'load(attn_implementation="../etc")') == ()
    assert lint_text("a.py", b'load(attn_implementation="-a/b-")') == ()


KERNEL_POLICY = (
    b"apiVersion: kgate.dev/v1\nkind: KernelPolicy\nmetadata: {name: a}\nspec:\n"
    b"  variables: [{name: v, expression: kernel.size}]\n"
    b"  validations: [{expression: variables.v > 1, message: m}]\n"
)
SEEDS = [starter_policy().encode(), starter_policy().encode() + b"---\n" + KERNEL_POLICY]


@st.composite
def spoiled(draw: st.DrawFn) -> bytes:
    """Return a policy file with a piece cut out or put in."""
    data = draw(st.sampled_from(SEEDS))
    start = draw(st.integers(0, len(data)))
    end = draw(st.integers(start, min(len(data), start + 40)))
    return data[:start] + draw(st.binary(max_size=12)) + data[end:]


@settings(max_examples=150, deadline=None)
@given(st.one_of(st.binary(max_size=200), st.text(max_size=200).map(str.encode), spoiled()))
def test_any_bytes_are_read_or_refused_in_our_own_words(data: bytes) -> None:
    for read in (load_policy, load_exceptions, load_cases, read_evidence, read_policy_bytes):
        with contextlib.suppress(KgateError):
            read(data)

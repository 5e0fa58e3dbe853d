"""Reads Dockerfiles and Containerfiles: what a build or a start takes from elsewhere.

Instructions are joined over continued lines and looked at as text; shell is not parsed.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from kgate_core.evidence import Severity
from kgate_policy.lint.findings import LintFinding, found
from kgate_policy.lint.references import hf_addresses, is_commit

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_INSTRUCTION: Final = 64 * 1024  # characters of one instruction with its continued lines
_CLONE: Final = re.compile(r"\bgit\s+clone\b")
_CHECKOUT: Final = re.compile(r"\b(?:checkout|reset|switch)\b")
_COMMIT: Final = re.compile(r"\b[0-9a-f]{40}\b")
_FETCH: Final = re.compile(r"\b(?:curl|wget)\b")
_SHELL: Final = re.compile(r"\s*(?:sudo\s+(?:-\w+\s+)*)?(?:(?:ba|da|z)?sh|python3?)\b")
_INLINE: Final = re.compile(
    r"\b(?:ba|z)?sh\s+-c\s+[\"']?\$\((?:curl|wget)\b|\b(?:ba)?sh\s+<\(\s*(?:curl|wget)\b"
)
_START: Final = re.compile(
    r"\b(?:hf|huggingface-cli)[\"',\s]+download\b|\bgit[\"',\s]+clone\b|\bpip3?[\"',\s]+install\b"
    r"|\bkernels[\"',\s]+download\b|\b(?:curl|wget)\b"
)
_FROM: Final = re.compile(r"(?:--platform=\S+\s+)?(?P<image>\S+)(?:\s+[Aa][Ss]\s+(?P<name>\S+))?")
_LOCAL: Final = re.compile(r"\bLOCAL_KERNELS\b")


def lint_dockerfile(text: str, path: str) -> list[LintFinding]:
    """Return what a Dockerfile takes from elsewhere without fixing it."""
    findings: list[LintFinding] = []
    stages: set[str] = set()
    for line, word, rest in _instructions(text):
        if len(rest) > MAX_INSTRUCTION:
            findings.append(found(18, path, line, f"{word} is longer than {MAX_INSTRUCTION}"))
            continue
        match word:
            case "FROM":
                findings += _base(rest, path, line, stages)
            case "RUN":
                findings += _run(rest, path, line)
            case "CMD" | "ENTRYPOINT":
                if _START.search(rest):
                    findings.append(found(11, path, line, f"{word} fetches when it starts"))
            case "ENV" | "ARG" if _LOCAL.search(rest):
                findings.append(found(4, path, line, f"{word} sets LOCAL_KERNELS"))
            case _:
                pass
        findings += [
            found(6, path, line, f"{address} names no commit")
            for _, address, pin in hf_addresses(rest)
            if not is_commit(pin)
        ]
    return findings


def _base(rest: str, path: str, line: int, stages: set[str]) -> Iterator[LintFinding]:
    match = _FROM.match(rest)
    if match is None:
        return
    image, name = match["image"], match["name"]
    if image not in stages | {"scratch"} and "$" not in image:
        yield from image_findings(image, path, line)
    if name:
        stages.add(name)


def image_findings(image: str, path: str, line: int) -> Iterator[LintFinding]:
    """Yield what is wrong with an image reference: no digest, or not even a tag."""
    if "@sha256:" in image:
        return
    tag = image.rpartition("/")[2].partition(":")[2]
    moving = tag in {"", "latest"}
    yield found(
        12,
        path,
        line,
        f"the image {image} has no digest" + (" and follows latest" if moving else ""),
        severity=Severity.MEDIUM if moving else Severity.LOW,
    )


def _run(rest: str, path: str, line: int) -> Iterator[LintFinding]:
    if _CLONE.search(rest) and not any(map(_checks_out, re.split(r"[&|;]", rest))):
        yield found(9, path, line, "git clone without checking out a commit")
    if _INLINE.search(rest) or _piped(rest):
        yield found(10, path, line, "a download is piped into an interpreter")


def _checks_out(command: str) -> bool:
    return bool(_CHECKOUT.search(command) and _COMMIT.search(command))


def _piped(rest: str) -> bool:
    # Split instead of one expression: that would try every `curl` against the rest of the line.
    parts = rest.split("|")
    return any(
        _FETCH.search(re.split(r"[;&]", left)[-1]) and _SHELL.match(right)
        for left, right in pairwise(parts)
    )


def _instructions(text: str) -> Iterator[tuple[int, str, str]]:
    """Yield first line, instruction and the rest, with continued lines joined."""
    first, collected = 0, ""
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.strip()
        if line.startswith("#") or (not line and not collected):
            continue
        first = first if collected else number
        collected += line.removesuffix("\\") + " "
        if line.endswith("\\"):
            continue
        word, _, rest = collected.strip().partition(" ")
        yield first, word.upper(), rest.strip()
        collected = ""
    if collected.strip():
        word, _, rest = collected.strip().partition(" ")
        yield first, word.upper(), rest.strip()

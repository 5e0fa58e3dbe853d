"""Checks a variant directory on request, without loading it: `kgate verify PATH` in a pod.

The same gate answers as at a load, and its numbered steps are returned for people to read. No copy
is made and nothing is imported.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kgate_client.answer import Answer, Cleared
from kgate_client.asked import Asked
from kgate_client.process import build
from kgate_core.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class PathReport:
    """The gate's answer about one directory."""

    SCHEMA = "kgate.dev/verify/v1"

    path: Path
    answer: Answer

    @property
    def ok(self) -> bool:
        """True if the gate would let this load."""
        return isinstance(self.answer, Cleared)

    def to_json(self) -> dict[str, Any]:
        """Return the answer as a JSON object."""
        trace = self.answer.trace
        return {
            "schema": self.SCHEMA,
            "ok": self.ok,
            "path": str(self.path),
            "repo": trace.repo,
            "revision": trace.revision,
            "variant": trace.variant,
            "manifest": trace.manifest,
            "ignored_bytecode": list(trace.ignored),
            "reason": "" if isinstance(self.answer, Cleared) else self.answer.reason,
            "message": "" if isinstance(self.answer, Cleared) else self.answer.message,
            "steps": self._steps(),
        }

    def lines(self) -> Iterator[str]:
        """Yield the answer for people: the steps, then the sentence."""
        for step in self._steps():
            yield f"{'✓' if step['ok'] else '✗'} {step['number']} {step['name']}: {step['detail']}"
        for path in self.answer.trace.ignored:
            yield f"· {path} is bytecode; it is never executed"
        match self.answer:
            case Cleared(trace=trace):
                yield f"verified: {trace.kernel} {trace.variant} {trace.manifest}"
            case refused:
                yield f"rejected ({refused.reason}): {refused.message}"

    def _steps(self) -> list[dict[str, Any]]:
        verdict = self.answer.trace.verdict
        return [
            {"number": step.number, "name": step.name, "ok": step.ok, "detail": step.detail}
            for step in (() if verdict is None else verdict.steps)
        ]


def verify_path(path: Path, environ: Mapping[str, str]) -> PathReport:
    """Ask the gate about a variant directory; raises InvalidInput if it is none."""
    if not path.is_dir():
        raise InvalidInput(
            f"{path} is not a directory", hint="name a variant, such as …/build/torch-cpu"
        )
    answer = build(environ).gate.check(Asked(), path.absolute(), seal=False)
    return PathReport(path, answer)

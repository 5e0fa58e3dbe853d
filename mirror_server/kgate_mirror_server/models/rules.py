"""The built-in rules about a mirrored model: T53 and T58 of docs/threat-model.md.

Code and pickles run when a model is loaded, so a strict lane refuses them; elsewhere they are
named. A repository of built kernels is no model in any lane. Pure: who fetched the files and who
signs the answer are `intake`'s business. A model's bytes are not scanned.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

from kgate_core.evidence import Outcome, RuleResult
from kgate_mirror_server.serve.modelrules import is_kernel_build, names_code, risk_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from kgate_mirror_server.settings.models import Models

CODE: Final = "model-no-code"
AUTO_MAP: Final = "model-no-auto-map"
NO_KERNEL: Final = "model-no-kernel"
_SHOWN: Final = 5  # paths in one sentence
_ALLOW: Final = (
    "take a repository with safetensors only, leave files out with files: patterns, or name it in "
    "models.code_allowed"
)


def is_strict(models: Models, lane: str, repo: str) -> bool:
    """Return whether code in this model is refused in this lane."""
    allowed = any(fnmatchcase(repo, pattern) for pattern in models.code_allowed)
    return lane in models.strict_lanes and not allowed


def judge(
    paths: Iterable[str], configs: Mapping[str, bytes | None], *, strict: bool
) -> tuple[RuleResult, ...]:
    """Return every rule's answer about a model with these files.

    `configs` holds the bytes of its configurations by path; None stands for one that is too large
    to look into, which counts as naming code.
    """
    listed = sorted(paths)
    harm = Outcome.DENY if strict else Outcome.WARN
    risky = [f"{path} {risk}" for path in listed if (risk := risk_of(path))]
    naming = [path for path, data in sorted(configs.items()) if data is None or names_code(data)]
    builds = is_kernel_build({"path": path} for path in listed)
    return (
        _result(CODE, harm, risky, "neither code nor pickles", _ALLOW),
        _result(
            AUTO_MAP,
            harm,
            [f"{path} names code to import (auto_map)" for path in naming],
            "no configuration names code",
            _ALLOW,
        ),
        _result(
            NO_KERNEL,
            Outcome.DENY,
            ["build/ holds kernel variants"] if builds else [],
            "no kernel builds",
            "pin it under kernels:",
        ),
    )


def _result(rule: str, bad: Outcome, seen: list[str], fine: str, hint: str) -> RuleResult:
    if not seen:
        return RuleResult(rule, Outcome.PASS, fine)
    more = f" and {len(seen) - _SHOWN} more" if len(seen) > _SHOWN else ""
    return RuleResult(rule, bad, f"{'; '.join(seen[:_SHOWN])}{more}", hint)

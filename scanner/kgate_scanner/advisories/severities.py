"""How bad an advisory says it is, as kgate's words.

CVSS 3.0 and 3.1 base scores are computed from their vector (specification section 7). Other
vectors give no word by themselves. What says nothing counts as high: silence is no comfort.
"""

from __future__ import annotations

from typing import Any, Final

from kgate_core.evidence import Severity

UNSAID: Final = Severity.HIGH
_WORDS: Final = {
    "none": Severity.INFO,
    "low": Severity.LOW,
    "moderate": Severity.MEDIUM,
    "medium": Severity.MEDIUM,
    "important": Severity.HIGH,
    "high": Severity.HIGH,
    "critical": Severity.CRITICAL,
}
_STEPS: Final = (
    (9.0, Severity.CRITICAL),
    (7.0, Severity.HIGH),
    (4.0, Severity.MEDIUM),
    (0.1, Severity.LOW),
)
_WEIGHTS: Final = {
    "AV": {"N": 0.85, "A": 0.62, "L": 0.55, "P": 0.2},
    "AC": {"L": 0.77, "H": 0.44},
    "UI": {"N": 0.85, "R": 0.62},
    "C": {"H": 0.56, "L": 0.22, "N": 0.0},
    "I": {"H": 0.56, "L": 0.22, "N": 0.0},
    "A": {"H": 0.56, "L": 0.22, "N": 0.0},
}
_PRIVILEGES: Final = {
    "U": {"N": 0.85, "L": 0.62, "H": 0.27},
    "C": {"N": 0.85, "L": 0.68, "H": 0.5},
}


def severity_of_word(word: object) -> Severity | None:
    """Return the severity that a word means, None for other values."""
    return _WORDS.get(word.strip().lower()) if isinstance(word, str) else None


def severity_of_score(score: object) -> Severity | None:
    """Return the severity of a CVSS base score (specification section 5), None for others."""
    if isinstance(score, bool) or not isinstance(score, (int, float)) or not 0 <= score <= 10:  # noqa: PLR2004  # CVSS's scale
        return None
    return next((level for least, level in _STEPS if score >= least), Severity.INFO)


def severity_of_vector(vector: object) -> Severity | None:
    """Return the severity of a CVSS 3 vector, None for other versions and malformed ones."""
    if not isinstance(vector, str) or not vector.startswith(("CVSS:3.0/", "CVSS:3.1/")):
        return None
    parts = dict(part.split(":", 1) for part in vector.split("/")[1:] if ":" in part)
    try:
        return severity_of_score(_base_score(parts))
    except KeyError:
        return None


def worst(found: list[Severity | None], *words: Any) -> Severity:  # noqa: ANN401  # from outside
    """Return the highest of what was said, `UNSAID` if nothing was."""
    said = [level for level in (*found, *map(severity_of_word, words)) if level is not None]
    return max(said, default=UNSAID)


def _base_score(parts: dict[str, str]) -> float:
    scope = parts["S"]
    weight = {name: table[parts[name]] for name, table in _WEIGHTS.items()}
    lost = 1 - (1 - weight["C"]) * (1 - weight["I"]) * (1 - weight["A"])
    changed = scope == "C"
    impact = 7.52 * (lost - 0.029) - 3.25 * (lost - 0.02) ** 15 if changed else 6.42 * lost
    if impact <= 0:
        return 0.0
    ease = 8.22 * weight["AV"] * weight["AC"] * _PRIVILEGES[scope][parts["PR"]] * weight["UI"]
    score = min(1.08 * (impact + ease) if changed else impact + ease, 10.0)
    # Rounded up to one decimal, as 3.1 does it, without the noise of binary fractions.
    return -(-round(score * 100_000) // 10_000) / 10

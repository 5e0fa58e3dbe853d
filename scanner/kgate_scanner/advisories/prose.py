"""Version ranges that people wrote as sentences, read strictly or not at all.

NVIDIA's CSAF documents say "All versions prior to CUDA Toolkit 12.9 Update 1" where a range should
stand. A sentence counts only if it is one of the forms below from its first to its last word;
nothing is guessed from a part of it.
"""

from __future__ import annotations

import re
from typing import Final

from kgate_scanner.advisories.versions import Range, parse_version

MAX_PROSE: Final = 256  # characters of one sentence
_V: Final = r"(?P<{}>[vV]?\d[\d.]*(?:\s*[Uu]pdate\s*\d+|[Uu]\d+)?)"
_FIRST: Final = _V.format("first")
_LAST: Final = _V.format("last")
_ALL: Final = r"(?:all\s+)?(?:versions?\s+)?"
_FORMS: Final = tuple(
    (form, re.compile(pattern, re.IGNORECASE))
    for form, pattern in (
        ("below", rf"{_ALL}(?:prior\s+to|before|earlier\s+than|lower\s+than|below)\s+{_LAST}"),
        ("below", rf"<\s*{_LAST}"),
        ("upto", rf"{_ALL}(?:up\s+to\s+and\s+including|through|<=)\s*{_LAST}"),
        (
            "upto",
            rf"{_ALL}{_LAST}\s+and\s+(?:all\s+)?(?:earlier|prior|below|lower)(?:\s+versions)?",
        ),
        ("between", rf"{_ALL}(?:from\s+)?{_FIRST}\s*(?:through|to|-)\s*{_LAST}"),
        ("from", rf"{_ALL}{_FIRST}\s+and\s+(?:later|above|newer)(?:\s+versions)?"),
        ("every", r"all(?:\s+versions)?|\*"),
        ("one", rf"(?:version\s+)?{_LAST}"),
    )
)
_SPACES: Final = re.compile(r"[\s\u00a0]+")


def parse_prose(text: str, names: tuple[str, ...] = ()) -> Range | None:
    """Return the range that a sentence means, None if it is none of the known forms.

    `names` are the product's own, which may stand before the version ("CUDA Toolkit 13.0").
    """
    text = _SPACES.sub(" ", text[: MAX_PROSE + 1]).strip()
    if len(text) > MAX_PROSE:
        return None
    for name in sorted(names, key=len, reverse=True):
        text = re.sub(rf"(?:\b|^){re.escape(name)}\b", " ", text, flags=re.IGNORECASE)
    text = _SPACES.sub(" ", text).strip()
    for form, pattern in _FORMS:
        if (found := pattern.fullmatch(text)) is not None:
            return _range(form, found)
    return None


def parse_vers(text: str) -> Range | None:
    """Return the range of a `vers:` text with at most one lower and one upper bound.

    Format: the VERS specification of package-url, as CSAF's product_version_range uses it.
    """
    scheme, slash, rest = text.partition("/")
    if not scheme.startswith("vers:") or not slash:
        return None
    bounds: dict[str, tuple[int, ...] | None] = {}
    for item in rest.split("|"):
        sign = next((mark for mark in (">=", "<=", "<", ">") if item.startswith(mark)), "")
        version = parse_version(item.removeprefix(sign))
        if version is None or sign == ">" or (sign or "=") in bounds:
            return None
        bounds[sign or "="] = version
    match sorted(bounds):
        case ["="]:
            return Range(bounds["="], None, bounds["="])
        case ["<"] | ["<="] | [">="] | ["<", ">="] | ["<=", ">="]:
            return Range(bounds.get(">="), bounds.get("<"), bounds.get("<="))
        case _:
            return None


def _range(form: str, found: re.Match[str]) -> Range | None:
    texts = found.groupdict()
    parsed = {name: parse_version(text) for name, text in texts.items()}
    if None in parsed.values():
        return None
    first, last = parsed.get("first"), parsed.get("last")
    match form:
        case "below":
            return Range(fixed=last)
        case "upto":
            return Range(last=last)
        case "between":
            return Range(first, None, last)
        case "from":
            return Range(first)
        case "every":
            return Range()
        case _:
            return Range(last, None, last)

"""The one table from outcomes to exit codes; scripts and CI rely on it.

0 yes · 1 the answer is no · 2 usage · 3 could not reach · 4 configuration or trust root · 70 bug.
"""

from __future__ import annotations

from typing import Final

from kgate_core.errors import (
    Conflict,
    IntegrityError,
    InvalidInput,
    KgateError,
    NotFound,
    TrustError,
    UpstreamError,
)

YES: Final = 0
NO: Final = 1
USAGE: Final = 2
UNREACHABLE: Final = 3
CONFIGURATION: Final = 4
BUG: Final = 70

CODES: Final[dict[type[KgateError], int]] = {
    InvalidInput: CONFIGURATION,
    IntegrityError: NO,
    UpstreamError: UNREACHABLE,
    NotFound: NO,
    TrustError: CONFIGURATION,
    Conflict: NO,
    KgateError: CONFIGURATION,
}


def exit_code(error: KgateError) -> int:
    """Return the code of an error by its nearest class in the table."""
    return next(CODES[kind] for kind in type(error).__mro__ if kind in CODES)


def worst(errors: list[KgateError], *, refused: bool) -> int:
    """Return one code for a run with several outcomes: no answer weighs more than a no."""
    codes = [exit_code(error) for error in errors]
    if refused:
        codes.append(NO)
    order = (CONFIGURATION, UNREACHABLE, NO)
    return next((code for code in order if code in codes), YES)

"""How this process speaks of its decisions: report lines, sentences on stderr, outcome words.

It decides nothing; where the words go is `report`'s business.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kgate_client.report import shorten
from kgate_core.clock import write_time
from kgate_core.ondeny import OnDeny
from kgate_core.trust import Mode

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from kgate_client.answer import Cleared, Trace
    from kgate_client.report import Reporter
    from kgate_client.trust import TrustKeeper

KEPT: Final = "kept"
"""Outcome of a load that got the version which was verified before."""
_FALLBACK: Final = "Running the PyTorch fallback."
_RAISED: Final = "The caller gets the error: mode strict, or `onDeny: block`."
_LOADED_ANYWAY: Final = "Loaded all the same: mode {mode} does not stop it."


@dataclass(frozen=True, slots=True)
class Voice:
    """Tells what was decided, with the state of trust at that moment."""

    reporter: Reporter
    keeper: TrustKeeper
    now: Callable[[], datetime]
    lane: str

    def report(
        self, trace: Trace, mode: Mode, outcome: str, reason: str = "", message: str = ""
    ) -> None:
        """Write one decision down."""
        self.reporter.decision(
            trace,
            now=self.now(),
            mode=str(mode),
            outcome=outcome,
            reason=reason,
            message=message,
            problem=self.keeper.problem,
            log=str(self.keeper.log_state),
        )

    def refuse(
        self, trace: Trace, kernel: str, mode: Mode, choice: OnDeny, reason: str, message: str
    ) -> None:
        """Write a refusal down and say it once."""
        self.report(trace, mode, outcome_of(mode, choice), reason, message)
        if mode in {Mode.WARN, Mode.OBSERVE}:
            consequence = _LOADED_ANYWAY.format(mode=mode)
        else:
            consequence = _RAISED if choice is OnDeny.BLOCK else _FALLBACK
        self.reporter.refused(kernel, reason, message, consequence=consequence)

    def keep(self, answer: Cleared, kernel: str, mode: Mode, reason: str, message: str) -> None:
        """Write down that the version of before goes on, and say it once."""
        self.report(answer.trace, mode, KEPT, reason, message)
        consequence = f"Kept {answer.trace.revision[:12]}, which was verified before."
        self.reporter.refused(kernel, reason, message, consequence=consequence)

    def warn_opened(self, answer: Cleared) -> None:
        """Say once for each kernel that it loads under break-glass, for whom and until when."""
        glass = answer.verdict.break_glass
        if glass is not None:
            kernel = shorten(answer.trace.kernel)
            self.reporter.warn(
                f"break-glass {kernel}",
                f"kgate: {kernel} loads under break-glass until {write_time(glass.until)},"
                f" asked for by {glass.requested_by}: {glass.reason}",
            )

    def warn_stale(self, answer: Cleared) -> None:
        """Say once that the trust metadata is older than its lane likes."""
        trusted = answer.trace.trusted
        lane = None if trusted is None else trusted.lanes.get(self.lane)
        if trusted is None or lane is None or trusted.age(self.now()) <= lane.soft_staleness:
            return
        minutes = int(trusted.age(self.now()).total_seconds() // 60)
        self.reporter.warn(
            "stale-trust",
            f"kgate: the trust metadata is {minutes} min old and could not be refreshed"
            f" ({self.keeper.problem or 'offline'}).",
        )


def outcome_of(mode: Mode, choice: OnDeny) -> str:
    """Return the word for a refusal in reports."""
    match mode:
        case Mode.OBSERVE:
            return "observed"
        case Mode.WARN:
            return "warned"
        case Mode.ENFORCE | Mode.STRICT:
            return "raised" if choice is OnDeny.BLOCK else "fallback"

"""Built-in rules about advisories: what they say, how old they are, whose VEX counts.

What they say was compared beforehand, with one feed; no advisory is read here. A site without a
feed passes all but the rule that asks for one.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

from kgate_core.clock import write_time
from kgate_core.vulnerabilities import Status, VulnerabilityReport
from kgate_policy.rules import Answer, Rule, denied, listed, passed, warned

if TYPE_CHECKING:
    from datetime import datetime

    from kgate_core.evidence import Evidence
    from kgate_core.vulnerabilities import Vulnerability
    from kgate_policy.parameters import Parameters

STATED: Final = "vulnerabilities"
"""Where evidence holds the report."""
_NO_FEED: Final = "no advisory feed was taken in"


def _report(evidence: Evidence) -> VulnerabilityReport | None:
    """Return the report; raises InvalidInput if it is malformed or about other bytes."""
    document = evidence.stated.get(STATED)
    if document is None:
        return None
    return VulnerabilityReport.from_json(document)


def _consulted(evidence: Evidence, _: Parameters) -> Answer:
    report = _report(evidence)
    if report is None:
        return denied(_NO_FEED)
    if report.subject != evidence.manifest.digest:
        return denied(f"the advisories were compared with {report.subject}, not with this variant")
    return passed(f"{report.matcher} compared it with a feed of advisories")


def _fresh_today(evidence: Evidence, _: Parameters) -> Answer:
    # Without a moment to compare with, as in a list of rules: what can be said at all.
    return passed(_NO_FEED) if _report(evidence) is None else passed("the feed bears a date")


def _fresh(evidence: Evidence, parameters: Parameters, now: datetime) -> Answer:
    report = _report(evidence)
    if report is None:
        return passed(_NO_FEED)
    most = parameters.advisories_max_days
    if now - report.feed_date > timedelta(days=most):
        return denied(
            f"the advisories are of {write_time(report.feed_date)}, more than {most} days old"
        )
    # Not their date: an unchanged answer to a newer feed is no new decision.
    return passed(f"the advisories are no older than {most} days")


def _no_known(evidence: Evidence, parameters: Parameters) -> Answer:
    report = _report(evidence)
    if report is None:
        return passed(_NO_FEED)
    if report.subject != evidence.manifest.digest:
        return denied(f"the advisories were compared with {report.subject}, not with this variant")
    aside = f"; {len(report.suppressed)} set aside" if report.suppressed else ""
    deny, warn = parameters.severity_deny, parameters.severity_warn
    affected = [item for item in report.counting if item.status is Status.AFFECTED]
    over = [item for item in affected if item.severity >= deny]
    if over:
        return denied(f"{len(over)} at or above {deny.label}: {listed(map(_named, over))}{aside}")
    # What cannot be told is no reason to refuse, and none to keep silent.
    near = [item for item in report.counting if item.severity >= warn]
    if near:
        return warned(f"{len(near)} at or above {warn.label}: {listed(map(_named, near))}{aside}")
    return passed(f"{len(report.counting)} advisories concern it{aside}")


def _vex(evidence: Evidence, _: Parameters) -> Answer:
    report = _report(evidence)
    if report is None or not report.ignored:
        return passed("no statement of an author who is not named")
    said = listed(f"{item.author} about {item.id}" for item in report.ignored)
    return denied(f"not believed: {said}")


def _named(item: Vulnerability) -> str:
    unsure = " (unknown whether affected)" if item.status is Status.UNKNOWN else ""
    return f"{item.id}{unsure}: {item.seen}"


RULES: Final = (
    Rule(
        "advisories-consulted",
        "Compared with advisories",
        "A scan says what is in a kernel. Whether something in it is known to be wrong is said by "
        "advisories, which have to be taken in first.",
        "Take in a feed with `kgate feed import`, then run `kgate sync`.",
        "What runs is compared with published vulnerabilities.",
        _consulted,
        asks=("kernel.vulnerabilities",),
    ),
    Rule(
        "advisories-fresh",
        "Compared with advisories that are not too old",
        "An old feed knows nothing of what was found since, and holding one back is a way to keep "
        "a vulnerable kernel in use. Passes where no feed was taken in.",
        "Take in a newer feed with `kgate feed import`; `kgate feed show` says which one is old.",
        "Vulnerability data is kept up to date.",
        _fresh_today,
        asks=("kernel.feed",),
        dated=_fresh,
    ),
    Rule(
        "no-known-vulnerability",
        "No known vulnerability above the threshold",
        "Somebody has published what is wrong with this commit, this file, this device code or the "
        "release that compiled it. Versions that could not be compared warn and never deny; "
        "what a VEX statement sets aside is counted and named. Passes where no feed was taken in.",
        "Read `kgate show`, then use another version, and `kgate revoke` this one if it was "
        "published before; or let an author of feeds.vex_authors say in a VEX statement why it "
        "does not apply.",
        "Vulnerabilities above the agreed severity block.",
        _no_known,
        asks=("kernel.vulnerabilities",),
    ),
    Rule(
        "vex-authorised",
        "VEX only by those who may say so",
        "Whoever may say that a vulnerability does not apply can hide any. Statements of other "
        "authors change nothing; that they are there is worth knowing.",
        "Ask their author; add the name to feeds.vex_authors in kgate.yaml if it may count.",
        "Exceptions are made by those who may make them.",
        _vex,
        asks=("kernel.vulnerabilities",),
    ),
)

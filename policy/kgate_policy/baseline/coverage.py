"""Built-in rules about what surrounds a variant: its card, the age of its scan, its siblings.

What the fleet looks like stands in kgate.yaml under `targets:` and comes with the question; policy
reads no configuration itself.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from kgate_core.clock import read_time
from kgate_core.errors import InvalidInput
from kgate_policy.rules import Answer, Rule, denied, listed, passed
from kgate_policy.why import Machine, machines, uncovered

if TYPE_CHECKING:
    from datetime import datetime

    from kgate_core.evidence import Evidence
    from kgate_policy.parameters import Parameters

_CARD_FIELDS: Final = ("license",)


def _card(evidence: Evidence, _: Parameters) -> Answer:
    card = evidence.imported.get("card")
    if not isinstance(card, dict):
        return denied("the commit has no README.md")
    fields = card.get("fields")
    missing = [name for name in _CARD_FIELDS if not isinstance(fields, list) or name not in fields]
    if missing:
        return denied(f"README.md does not name {listed(missing)} in its first lines")
    if not card.get("headings"):
        return denied("README.md has no section: it describes nothing")
    return passed(f"README.md with {listed(map(str, card['headings']))}")


def _recent(evidence: Evidence, parameters: Parameters, now: datetime) -> Answer:
    text = evidence.imported.get("scannedAt")
    if evidence.scan is None or not isinstance(text, str):
        return denied("nobody recorded when it was scanned")
    try:
        age = now - read_time(text, what="scannedAt")
    except InvalidInput as exc:
        return denied(exc.message)
    if age > timedelta(days=parameters.scans_max_days):
        return denied(f"scanned {text}, more than {parameters.scans_max_days} days ago")
    return passed(f"scanned {text}")


def _undated(_: Evidence, __: Parameters) -> Answer:
    return denied("the age of a scan cannot be told without a clock")


def _targets(evidence: Evidence, _: Parameters) -> Answer:
    targets, siblings = evidence.asked.get("targets"), evidence.asked.get("siblings")
    if not targets:
        return passed("kgate.yaml names no targets")
    if not isinstance(targets, list) or not isinstance(siblings, dict):
        return denied("nobody recorded which variants are pinned together")
    wanted = [machine for target in targets for machine in _machines(target)]
    lacking = uncovered(
        siblings, wanted, archs={name: tuple(archs) for name, archs in siblings.items()}
    )
    if lacking:
        return denied(f"no pinned variant loads on {listed(map(_named, lacking))}")
    return passed(f"a pinned variant loads on each of {len(wanted)} targets")


def _machines(target: dict[str, Any]) -> tuple[Machine, ...]:
    backend = next((name for name in ("cuda", "rocm") if target.get(name)), "cpu")
    return machines(
        torch=target["torch"],
        backend=backend,
        version=target.get(backend),
        cpu=target.get("arch", "x86_64"),
        gpus=target.get("gpus", ()),
    )


def _named(machine: Machine) -> str:
    version = "" if machine.backend_version is None else " {}.{}".format(*machine.backend_version)
    torch = "" if machine.torch is None else "torch {}.{}, ".format(*machine.torch)
    gpu = f", {machine.gpu}" if machine.gpu else ""
    return f"({torch}{machine.backend}{version}, {machine.cpu}{gpu})"


RULES: Final = (
    Rule(
        "card-complete",
        "Has a card",
        "A kernel whose repository says neither what it does nor under which licence cannot be "
        "judged by the people who are asked to approve it.",
        "Ask the publisher for a README.md that names the licence and describes the kernel.",
        "Every kernel has a card.",
        _card,
        asks=("kernel.card",),
    ),
    Rule(
        "scanned-recently",
        "Scanned recently",
        "Scanners and advisories learn. A scan that nobody has repeated for months says what was "
        "known then.",
        "Run `kgate sync`: it scans again what is too old. `scans.maxDays` sets the age.",
        "Scans are repeated.",
        _undated,
        asks=("kernel.scannedAt",),
        dated=_recent,
    ),
    Rule(
        "targets-covered",
        "Covers the whole fleet",
        "Where no variant fits, clients fall back without a word: the same model is slow on one "
        "part of the fleet and nobody knows why.",
        "Widen `variants:` of the pin, ask the publisher for the missing build, or take the "
        "target out of `targets:` in kgate.yaml.",
        "Every target has its variant.",
        _targets,
        asks=("kernel.variant", "kernel.metadata.archs"),
    ),
)

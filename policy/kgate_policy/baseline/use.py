"""Built-in rules about use: does it do what it should on our machines, who built it, is it needed.

They read what other commands found out (`Evidence.stated`); nothing is measured or compared here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kgate_policy.facts.collect import stated_facts
from kgate_policy.rules import Answer, Rule, denied, listed, passed

if TYPE_CHECKING:
    from kgate_core.evidence import Evidence
    from kgate_policy.parameters import Parameters

_PERCENT: Final = 10_000  # millionths


def _qualified(evidence: Evidence, parameters: Parameters) -> Answer:
    result = stated_facts(evidence.stated).get("qualification")
    if result is None:
        return denied("nobody submitted a qualification result for these bytes")
    where = f"{result.get('gpu', 'an unnamed GPU')}, submitted by {result['submitter']}"
    if not result["passed"]:
        return denied(f"the numbers differ from the reference's on {where}")
    speed = result.get("speedupPpm")
    if speed is None:
        return denied(f"the result from {where} does not say how fast it is")
    text = f"{speed // _PERCENT} % of the reference's speed on {where}"
    if speed < parameters.qualification_min_speedup * _PERCENT:
        return denied(f"{text}; {parameters.qualification_min_speedup} % are asked for")
    return passed(text)


def _rebuilt(evidence: Evidence, parameters: Parameters) -> Answer:
    origin = evidence.kernel.origin
    if not parameters.builds_origins:
        return denied("the policy names no upstream that holds builds of our own (builds.origins)")
    if origin in parameters.builds_origins:
        return passed(f"{origin} holds builds of our own")
    ours = listed(parameters.builds_origins)
    return denied(f"{origin} holds builds of others; our own are in {ours}")


def _in_image(evidence: Evidence, _: Parameters) -> Answer:
    images = stated_facts(evidence.stated)["images"]
    whole = [item["name"] for item in images if item["found"] == item["of"] > 0]
    if whole:
        return denied(f"all its device code is in {listed(whole)} already")
    if not images:
        return passed("kgate.yaml names no serving image")
    shares = (f"{item['found']} of {item['of']} are in {item['name']}" for item in images)
    return passed(f"of its device images, {listed(shares)}")


RULES: Final = (
    Rule(
        "qualified",
        "Qualified on a machine of the fleet",
        "A kernel can be signed, clean and wrong: other numbers than the reference's, or slower "
        "than what it replaces, on the GPUs that are here.",
        "Run `kgate qualify` on such a machine and submit the result, or set the rule to warn "
        "until that was done.",
        "Every kernel was tested on the target GPU: numbers equal, fast enough.",
        _qualified,
        asks=(
            "kernel.qualification.passed",
            "kernel.qualification.speedupPpm",
            "kernel.qualification.gpu",
            "kernel.qualification.submitter",
        ),
    ),
    Rule(
        "rebuilt-here",
        "Built by our own builders",
        "A publisher's build server that was broken into signs whatever it is given. What was "
        "built here, from reviewed sources, does not depend on it.",
        "Build it here, put it into an upstream of your own (a folder or a registry) and pin it "
        "from there; name that upstream in `builds.origins` of the policy.",
        "Production kernels are rebuilt from source inside.",
        _rebuilt,
        asks=("kernel.origin",),
    ),
    Rule(
        "already-in-image",
        "Not in the serving image already",
        "Newer images often carry what once had to be fetched. A pin of the same device code is "
        "one more thing to review and to keep, for nothing.",
        "Retire the pin: take it out of kgate.yaml, once no older image is in use.",
        "Pins that images made superfluous are retired.",
        _in_image,
        asks=("kernel.images",),
    ),
)

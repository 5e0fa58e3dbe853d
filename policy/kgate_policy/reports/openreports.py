"""OpenReports documents (openreports.io/v1alpha1), or their predecessor's on request.

One Report for each subject, with a name that stays, and no more results than `MAX_RESULTS`: one
document that grows without end, or one for each event, takes an API server down. Times come in
as an argument; equal results at one time give equal bytes.
"""

from __future__ import annotations

from collections import Counter
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

import yaml

from kgate_core.digest import Digest
from kgate_policy.baseline import RULES
from kgate_policy.reports.vocabulary import SEVERITY, Word, word

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from kgate_core.evidence import RuleResult
    from kgate_policy.reports.entries import Entry

MAX_RESULTS: Final = 500  # results of one document; at about 700 bytes each, far from etcd's limit
_MAX_MESSAGE: Final = 1_024  # characters
# libyaml writes ten times as fast; wheels of PyYAML have it, other builds may not.
_DUMPER: Final = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_ORDER: Final = (Word.FAIL, Word.ERROR, Word.WARN, Word.SKIP, Word.PASS)


class Group(Enum):
    """Which API the documents are for: group and version, kind."""

    OPENREPORTS = ("openreports.io/v1alpha1", "Report")
    WGPOLICY = ("wgpolicyk8s.io/v1alpha2", "PolicyReport")


def openreports(
    entries: Sequence[Entry],
    *,
    now: datetime,
    namespace: str = "kgate",
    group: Group = Group.OPENREPORTS,
) -> str:
    """Return one YAML document for each repository, commit and lane."""
    subjects: dict[tuple[str, str, str, str], list[Entry]] = {}
    for entry in entries:
        kernel = entry.kernel
        key = (str(kernel.repo), str(kernel.revision), entry.lane, kernel.origin)
        subjects.setdefault(key, []).append(entry)
    documents = [
        _document(key, found, now, namespace, group) for key, found in sorted(subjects.items())
    ]
    return yaml.dump_all(documents, Dumper=_DUMPER, sort_keys=False, allow_unicode=True, width=100)


def _document(
    key: tuple[str, str, str, str],
    entries: Sequence[Entry],
    now: datetime,
    namespace: str,
    group: Group,
) -> dict[str, Any]:
    repo, revision, lane, _origin = key
    version, kind = group.value
    results = [(entry, result) for entry in entries for result in entry.results]
    counts = Counter(word(result) for _, result in results)
    # What failed has to be in; what passed is dropped first.
    results.sort(key=lambda item: _ORDER.index(word(item[1])))
    document: dict[str, Any] = {
        "apiVersion": version,
        "kind": kind,
        "metadata": {
            "name": f"kgate-{Digest.of(chr(10).join(key).encode()).short}",
            "namespace": namespace,
            "labels": {"app.kubernetes.io/managed-by": "kgate", "kgate.dev/lane": lane},
            "annotations": {"kgate.dev/kernel": repo, "kgate.dev/revision": revision},
        },
    }
    if group is Group.OPENREPORTS:
        document["source"] = "kgate"
        document["configuration"] = {"limits": {"maxResults": MAX_RESULTS}}
    document["summary"] = {str(name): counts[name] for name in Word}
    document["results"] = [_result(entry, result, now) for entry, result in results[:MAX_RESULTS]]
    return document


def _result(entry: Entry, result: RuleResult, now: datetime) -> dict[str, Any]:
    name = word(result)
    known = RULES.get(result.rule)
    properties = {
        "kernel": str(entry.kernel.repo),
        "revision": str(entry.kernel.revision),
        "variant": entry.kernel.variant,
        "lane": entry.lane,
    }
    if entry.manifest is not None:
        properties["manifest"] = str(entry.manifest)
    if result.hint:
        properties["fix"] = result.hint[:_MAX_MESSAGE]
    return {
        "source": "kgate",
        "policy": entry.policy,
        "rule": result.rule,
        "category": "built-in rule" if known is not None else "expression",
        "result": str(name),
        "severity": SEVERITY[name].label,
        "scored": name is not Word.WARN,
        "message": result.seen[:_MAX_MESSAGE],
        "timestamp": {"seconds": int(now.timestamp()), "nanos": 0},
        "properties": properties,
    }

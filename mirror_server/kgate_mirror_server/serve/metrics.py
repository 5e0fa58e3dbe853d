"""Counters of one worker, shared between workers by small files, in Prometheus' text format.

Each worker writes its counters to a file of its own once a second; whichever worker is asked adds
them up. Files of workers that ended stay, so that sums never fall. Names and label values come
from closed sets or are cut to a bounded number: no client can make the memory grow. Format:
Prometheus exposition format 0.0.4.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

CONTENT_TYPE: Final = b"text/plain; version=0.0.4; charset=utf-8"
MAX_CLIENTS: Final = 500  # different client descriptions counted apart; others count together

HELP: Final = {
    "kgate_requests_total": "Requests answered, by part and status.",
    "kgate_sent_bytes_total": "Bytes of files sent or handed to the server to send.",
    "kgate_cold_starts_total": "Whole trees read: a client fills its cache.",
    "kgate_empty_builds_total": "Kernels asked for and answered as having no builds.",
    "kgate_pod_reports_total": "Loads that pods reported, by outcome; their own word.",
    "kgate_pod_reports_refused_total": "Reports that were none or too long.",
    "kgate_ungated_downloads_total": "Kernels downloaded that no pod reported in time.",
    "kgate_clients_total": "Kernel look-ups by what the client said it is.",
}
_FIELDS: Final = ("kernels", "hf_hub", "torch", "python", "backend", "platform")
_FIELD: Final = re.compile(r"([a-z_]+)/([A-Za-z0-9.+_-]{1,40})")
_OTHER: Final = tuple((field, "other") for field in _FIELDS)
_FILE: Final = ("kgate_requests_total", (("part", "file"), ("status", "200")))
_BYTES: Final[tuple[str, Labels]] = ("kgate_sent_bytes_total", ())

Labels = tuple[tuple[str, str], ...]
Sample = tuple[str, Labels, float]


class Metrics:
    """Counts; `directory` is shared by all workers, None if there is only this one."""

    def __init__(self, directory: Path | None = None) -> None:
        self._directory = directory
        self._counts: Counter[tuple[str, Labels]] = Counter()
        self._clients: set[Labels] = set()

    def count(self, name: str, labels: Labels = (), by: int = 1) -> None:
        """Add to a counter; `labels` come from closed sets."""
        self._counts[name, labels] += by

    def sent_file(self, announced: int) -> None:
        """Count a whole file that was sent, or its head, as `traffic.count` does."""
        self._counts[_FILE] += 1
        if announced:
            self._counts[_BYTES] += announced

    def client(self, user_agent: str) -> None:
        """Count a client by the versions that its user agent names."""
        told = dict(_FIELD.findall(user_agent[:1000]))
        labels: Labels = tuple((field, told.get(field, "")) for field in _FIELDS)
        if labels not in self._clients:
            if len(self._clients) >= MAX_CLIENTS:
                labels = _OTHER
            self._clients.add(labels)
        self.count("kgate_clients_total", labels)

    def of(self, name: str) -> Mapping[Labels, int]:
        """Return this worker's counts of one counter by their labels."""
        return {labels: value for (key, labels), value in self._counts.items() if key == name}

    def share(self) -> None:
        """Write this worker's counters where the others find them."""
        if self._directory is None:
            return
        rows = [[name, labels, value] for (name, labels), value in self._counts.items()]
        target = self._directory / f"{os.getpid()}.json"
        temporary = target.with_suffix(".tmp")
        try:
            temporary.write_text(json.dumps(rows), encoding="ascii")
            temporary.replace(target)
        except OSError:
            return  # counting must never stop serving

    def render(self, gauges: Iterable[Sample]) -> bytes:
        """Return all workers' counters and these gauges."""
        totals = Counter(self._counts)
        for path in sorted(self._directory.glob("*.json")) if self._directory else []:
            if path.stem != str(os.getpid()):
                totals.update(_read(path))
        lines: list[str] = []
        samples = [(name, labels, float(value)) for (name, labels), value in totals.items()]
        seen: set[str] = set()
        for name, labels, value in [*sorted(samples), *gauges]:
            if name not in seen:
                seen.add(name)
                kind = "counter" if name in HELP else "gauge"
                lines += [f"# HELP {name} {HELP.get(name, name)}", f"# TYPE {name} {kind}"]
            lines.append(f"{name}{_labels(labels)} {value:.17g}")
        return ("\n".join(lines) + "\n").encode("utf-8")


def _read(path: Path) -> Mapping[tuple[str, Labels], int]:
    try:
        rows = json.loads(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return {}
    return {
        (name, tuple((key, text) for key, text in labels)): value for name, labels, value in rows
    }


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    quoted = (
        f'{key}="' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
        for key, text in labels
    )
    return "{" + ",".join(quoted) + "}"

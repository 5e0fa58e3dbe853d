"""What people want to hear of at once, sent to one webhook: denied, revoked, moved, about to end.

One request carries all events of one command. A webhook that is slow, down or wrong costs a few
seconds and a sentence, and never fails what it tells of. Nothing is queued or sent twice: the
reports of `kgate sync` say the same.
"""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from pathlib import Path  # noqa: TC003  # pydantic reads the annotation
from typing import TYPE_CHECKING, Final

from pydantic import BaseModel, ConfigDict, field_validator

from kgate_core.clock import write_time
from kgate_core.errors import KgateError
from kgate_policy.exceptions import ending_soon

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from kgate_core.evidence import Facts
    from kgate_mirror_server.admit import KernelResult
    from kgate_mirror_server.ingest.sync import SyncResult
    from kgate_mirror_server.trust.revocation import Named

SCHEMA: Final = "kgate.dev/events/v1"
PATIENCE: Final = 5.0  # seconds for the whole delivery, name look-up included
MAX_EVENTS: Final = 1000  # in one request; the rest are counted


class Events(BaseModel):
    """Where events go: `events:` of kgate.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    webhook_url: str | None = None
    token_file: Path | None = None
    """File of mode 0600 whose content is sent as `Authorization: Bearer …`."""

    @field_validator("webhook_url")
    @classmethod
    def _usable(cls, url: str | None) -> str | None:
        if url is not None and not url.startswith(("http://", "https://")):
            raise ValueError(f"a webhook is http(s)://…, not {url!r}")
        return url


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened."""

    kind: str
    """kernel.denied, kernel.revoked, kernel.moved, exception.ending or download.ungated."""
    subject: str
    """The kernel that it is about, as a person names it."""
    text: str
    """The same in a sentence."""
    data: Facts = field(default_factory=dict)

    def to_json(self) -> Facts:
        """Return the event as a JSON object."""
        return {"kind": self.kind, "subject": self.subject, "text": self.text, "data": self.data}


def sync_events(result: SyncResult, now: datetime) -> list[Event]:
    """Return what a sync brought: new denials, moved branches, exceptions that end soon."""
    events = [event for kernel in result.kernels if kernel.fresh for event in _denied(kernel)]
    events += [
        Event(
            "kernel.moved",
            f"{moved.repo}@v{moved.version}",
            f"upstream moved v{moved.version} from {moved.locked.short} to {moved.now.short}",
            {"locked": str(moved.locked), "now": str(moved.now)},
        )
        for moved in result.moved
    ]
    events += [
        Event(
            "exception.ending",
            str(item.kernel),
            f"the exception {item.name} ends {write_time(item.until)}",
            item.to_json(),
        )
        for item in ending_soon(result.exceptions.granted, now)
    ]
    return events


def _denied(kernel: KernelResult) -> list[Event]:
    return [
        Event(
            "kernel.denied",
            f"{kernel.pin} {item.variant}",
            f"denied by {', '.join(reason.rule for reason in item.reasons)}",
            {
                "lane": kernel.lane,
                "manifest": str(item.manifest) if item.manifest else None,
                "reasons": [reason.to_json() for reason in item.reasons],
            },
        )
        for item in kernel.variants
        if not item.allowed
    ]


def revoked_events(revoked: Sequence[Named], reason: str) -> list[Event]:
    """Return one event for each digest that was pulled back."""
    return [
        Event("kernel.revoked", item.name, f"revoked: {reason}", {"digest": str(item.digest)})
        for item in revoked
    ]


def deliver(
    settings: Events,
    site: str,
    events: Sequence[Event],
    now: datetime,
    *,
    read_file: Callable[[Path], bytes],
    patience: float = PATIENCE,
) -> str:
    """Send events and return why they did not arrive; empty if they did, or there was nothing.

    Raises nothing and returns after `patience` seconds at the latest.
    """
    if settings.webhook_url is None or not events:
        return ""
    document = {
        "schema": SCHEMA,
        "site": site,
        "at": write_time(now),
        "events": [event.to_json() for event in events[:MAX_EVENTS]],
        "omitted": max(0, len(events) - MAX_EVENTS),
    }
    body = json.dumps(document, ensure_ascii=False).encode()
    headers = {"Content-Type": "application/json"}
    if settings.token_file is not None:
        try:
            token = read_file(settings.token_file).strip().decode("ascii")
        except (KgateError, UnicodeDecodeError) as exc:
            return f"{len(events)} events were not sent: {exc}"
        headers["Authorization"] = f"Bearer {token}"
    answers: list[str] = []
    thread = threading.Thread(
        target=lambda: answers.append(_post(str(settings.webhook_url), body, headers, patience)),
        name="webhook",
        daemon=True,  # looking up a name cannot be cut short: the process does not wait for it
    )
    thread.start()
    thread.join(patience)
    complaint = answers[0] if answers else f"the webhook did not answer within {patience:g} s"
    return f"{len(events)} events may not have arrived: {complaint}" if complaint else ""


def _post(url: str, body: bytes, headers: dict[str, str], patience: float) -> str:
    import httpx2  # noqa: PLC0415  # only sites with a webhook pay for it

    try:
        # Not where a redirect points: the token is for this address alone.
        response = httpx2.post(
            url, content=body, headers=headers, timeout=patience, follow_redirects=False
        )
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError, OSError) as exc:
        return f"the webhook cannot be reached ({type(exc).__name__})"
    return "" if response.is_success else f"the webhook answered {response.status_code}"

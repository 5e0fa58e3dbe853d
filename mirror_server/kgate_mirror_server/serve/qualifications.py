"""Takes results of `kgate qualify` from tokens that may submit them; the next sync signs them.

The submitter is whoever holds the token, whatever the result says. Nothing is decided or signed
here: this process holds no keys.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from kgate_mirror_server.catalog.qualifications import SqlQualifications
from kgate_mirror_server.catalog.tokens import QUALIFY
from kgate_mirror_server.serve.wire import error, json_answer

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from sqlalchemy import Engine

    from kgate_core.kernel import KernelId
    from kgate_mirror_server.serve.access import Caller
    from kgate_mirror_server.serve.wire import Answer, Request


class QualificationInbox:
    """Takes results into the catalog."""

    def __init__(self, engine: Callable[[], Engine], clock: Callable[[], datetime]) -> None:
        self._engine = engine
        self._clock = clock

    async def answer(self, request: Request, caller: Caller) -> Answer:
        """Take one result; raises InvalidInput if it is none, NotFound for unknown bytes."""
        # Knows the signer: not loaded where nobody submits anything.
        from kgate_mirror_server.ingest.qualification import (  # noqa: PLC0415
            MAX_RESULT,
            take_in,
        )

        if request.method != "POST":
            return error(405, "results are sent with POST", (b"allow", b"POST"))
        if caller.name is None or QUALIFY not in caller.may:
            return error(403, "this needs a token that may qualify (kgate token create --may)")
        data = await request.body(MAX_RESULT)

        def may(kernel: KernelId, lane: str) -> bool:
            return caller.sees(lane, str(kernel.repo))

        known = SqlQualifications(self._engine())
        item = await asyncio.to_thread(
            take_in, known, data, self._clock(), through=caller.name, may=may
        )
        said = {"manifest": str(item.manifest), "submitter": item.submitter, "state": "pending"}
        return json_answer(said, status=202)

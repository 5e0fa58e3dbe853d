"""The one error family of kgate.

An exception means "I could not answer". It never means "the answer is no": that is a value
(`Verdict`, `Decision`, `Finding`). HTTP statuses and exit codes are mapped at the edges, not here.
"""


class KgateError(Exception):
    """Root of every error that kgate raises on purpose.

    `code` is a stable slug for machines, `hint` says what a person can do next.
    """

    code = "error"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class InvalidInput(KgateError):  # noqa: N818  # the domain's names carry no "Error" suffix: these are said aloud
    """A pin, manifest, bundle, policy or configuration file is malformed."""

    code = "invalid-input"


class IntegrityError(KgateError):
    """Bytes are not what was promised: their size or digest differs."""

    code = "integrity"


class UpstreamError(KgateError):
    """A Hub, a mirror or a registry did not answer, or not in its own language."""

    code = "upstream"


class NotFound(KgateError):  # noqa: N818  # as above
    """There is no such kernel, revision, file or attestation."""

    code = "not-found"


class TrustError(KgateError):
    """The trusted root or a key is missing, expired or unusable."""

    code = "trust"


class Conflict(KgateError):  # noqa: N818  # as above
    """The catalog already says otherwise."""

    code = "conflict"

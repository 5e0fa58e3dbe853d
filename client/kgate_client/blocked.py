"""The exceptions with which the gate says no.

They say no and nothing else: whether a caller falls back, retries or stops is the caller's matter.
"""

TYPE_CHECKING = False  # imported at start-up: see `autoload`
if TYPE_CHECKING:
    from typing import Any


class KgateRefusal(Exception):  # noqa: N818  # the domain's name, said aloud
    """A kernel was not loaded; `reason` is a stable word, `message` a sentence."""

    def __init__(self, kernel: str, reason: str, message: str) -> None:
        super().__init__(f"{kernel} was not loaded ({reason}: {message})")
        self.kernel = kernel
        self.reason = reason
        self.message = message

    def __reduce__(self) -> "tuple[Any, ...]":
        return type(self), (self.kernel, self.reason, self.message)


class KgateBlocked(KgateRefusal, FileNotFoundError):  # noqa: N818  # as above
    """A kernel was not loaded, and the caller may use its own implementation.

    It is a FileNotFoundError because that is the only type which `kernels` and transformers
    understand as "there is no such kernel here, use your own implementation".
    """


class KgateStopped(KgateRefusal, RuntimeError):  # noqa: N818  # as above
    """A kernel was not loaded, and nobody may go on without it.

    Mode strict and `onDeny: block` raise it. It is no FileNotFoundError, so that no caller takes
    it for an invitation to fall back.
    """

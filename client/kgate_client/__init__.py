"""The shim in the pod: nothing is executed before its bytes matched a signed manifest.

Importing this package costs nothing and starts nothing: `autoload` does that, from a `.pth` file.
What people import is `load`, `fallback` and the refusals.
"""

from kgate_client.blocked import KgateBlocked, KgateRefusal, KgateStopped

TYPE_CHECKING = False  # every interpreter imports this package: not even `typing` comes along
if TYPE_CHECKING:
    from typing import Any

    from kgate_client.inventory import runtime_sbom
    from kgate_client.plain import fallback, load

__all__ = ["KgateBlocked", "KgateRefusal", "KgateStopped", "fallback", "load", "runtime_sbom"]


def __getattr__(name: str) -> "Any":  # noqa: ANN401  # the three names below have different types
    if name in {"fallback", "load"}:
        from kgate_client import plain

        return getattr(plain, name)
    if name == "runtime_sbom":
        from kgate_client.inventory import runtime_sbom

        return runtime_sbom
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

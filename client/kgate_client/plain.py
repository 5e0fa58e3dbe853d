"""A kernel or a function of your own, for code that calls `get_kernel` itself.

`load` returns the kernel's module, or what you give for the case that it is not there. A decorator
does the same for one function. Nothing is checked here: the gate is in `kernels`' load point.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from kgate_client.autoload import start
from kgate_client.blocked import KgateBlocked, KgateStopped

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
R = TypeVar("R")
_NOTHING: Any = object()


def load(
    repo: str,
    *,
    version: int | None = None,
    revision: str | None = None,
    fallback: Any = _NOTHING,  # noqa: ANN401  # a module, a class, a function: the caller's choice
    **options: Any,  # noqa: ANN401  # handed on to kernels.get_kernel
) -> Any:  # noqa: ANN401  # as above
    """Return the kernel's module, or `fallback` where it cannot or may not be loaded.

    Without a fallback it raises KgateBlocked; where nobody may fall back (mode strict, `onDeny:
    block`) it raises KgateStopped whatever is given. Other options go to `kernels.get_kernel`.
    """
    start()
    try:
        from kernels import get_kernel

        return get_kernel(repo, version=version, revision=revision, **options)
    except KgateStopped:
        raise  # mode strict or `onDeny: block`: a fallback is what nobody may take then
    except Exception as exc:
        if fallback is not _NOTHING:
            return fallback
        if isinstance(exc, KgateBlocked):
            raise
        raise KgateBlocked(repo, "load-error", str(exc)) from exc


def fallback(
    repo: str,
    function: str,
    *,
    version: int | None = None,
    revision: str | None = None,
    **options: Any,  # noqa: ANN401  # handed on to kernels.get_kernel
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make the decorated function the fallback for a kernel's function of the same signature.

    The kernel is asked for at the first call, once; from then on one of the two is called directly.
    """

    def decorate(own: Callable[P, R]) -> Callable[P, R]:
        chosen: list[Callable[P, R]] = []

        @functools.wraps(own)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            if not chosen:
                module = load(repo, version=version, revision=revision, fallback=None, **options)
                chosen.append(own if module is None else getattr(module, function))
            return chosen[0](*args, **kwargs)

        return call

    return decorate

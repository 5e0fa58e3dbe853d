"""What well known layers compute, in plain PyTorch: the right answers that the judge compares with.

Each takes the arguments of the kernel's function without its output. They run in the judge, never
in the candidate; torch is imported when one is called.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

from kgate_core.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Callable

Tensor = Any  # torch is not typed here


def gelu_and_mul(x: Tensor) -> Tensor:
    """Return gelu(first half) * second half of the last dimension."""
    from torch.nn.functional import gelu

    gate, up = x.chunk(2, dim=-1)
    return gelu(gate) * up


def gelu_tanh_and_mul(x: Tensor) -> Tensor:
    """Return the same with the tanh approximation of gelu."""
    from torch.nn.functional import gelu

    gate, up = x.chunk(2, dim=-1)
    return gelu(gate, approximate="tanh") * up


def silu_and_mul(x: Tensor) -> Tensor:
    """Return silu(first half) * second half of the last dimension."""
    from torch.nn.functional import silu

    gate, up = x.chunk(2, dim=-1)
    return silu(gate) * up


def rms_norm(x: Tensor, weight: Tensor, epsilon: float = 1e-6) -> Tensor:
    """Return x over the root of the mean of its squares, times weight."""
    return x * (x.square().mean(dim=-1, keepdim=True) + epsilon).rsqrt() * weight


def relu(x: Tensor) -> Tensor:
    """Return x where it is positive, else zero."""
    return x.clamp(min=0)


def add(x: Tensor, y: Tensor) -> Tensor:
    """Return the sum."""
    return x + y


KNOWN: Final[dict[str, Callable[..., Tensor]]] = {
    function.__name__: function
    for function in (gelu_and_mul, gelu_tanh_and_mul, silu_and_mul, rms_norm, relu, add)
}


def find_reference(name: str) -> Callable[..., Tensor]:
    """Return a reference by its name or as `module:function`; raises InvalidInput."""
    if name in KNOWN:
        return KNOWN[name]
    module, colon, function = name.partition(":")
    hint = f"known are {', '.join(KNOWN)}; anything else is written module:function"
    if not colon:
        raise InvalidInput(f"there is no reference {name}", hint=hint)
    try:
        found: Any = importlib.import_module(module)
        for part in function.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as exc:
        raise InvalidInput(f"the reference {name} cannot be imported ({exc})", hint=hint) from exc
    if not callable(found):
        raise InvalidInput(f"the reference {name} is not a function", hint=hint)
    function_found: Callable[..., Tensor] = found
    return function_found

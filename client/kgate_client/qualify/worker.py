"""The program in which the kernel runs, and, in a second process, the fallback for comparison.

    python -P -m kgate_client.qualify.worker DESCRIPTOR

Confines itself before any code of the kernel runs, then computes what it is told on memory that
the judge shares. Nothing that it says about a kernel is believed: a kernel may have changed
everything in this process, clock and torch included.
"""

from __future__ import annotations

import contextlib
import importlib
import mmap
import os
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from kgate_client.qualify.confinement import confine, python_paths
from kgate_client.qualify.references import find_reference
from kgate_client.qualify.wire import Wire
from kgate_core.errors import IntegrityError, KgateError, UpstreamError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

Json = Any  # the judge's messages
Torch = Any  # torch is not typed here
MAX_SAID: Final = 400  # characters of an error


def main(descriptor: int) -> None:
    """Serve the judge until it hangs up."""
    wire = Wire(socket.socket(fileno=descriptor))
    order, _ = wire.receive(None)
    scratch = Path(order["scratch"])
    readable = [*python_paths(), *([Path(order["root"])] if order["root"] else [])]
    wire.send({"confined": confine(scratch, readable)})
    os.chdir(scratch)
    try:
        module = _load(order) if order["root"] else None
        wire.send({"loaded": True})
    except BaseException as exc:  # noqa: BLE001  # whatever the kernel raised, the judge hears of it
        wire.send({"loaded": False, "why": _said(exc)})
        return
    known: dict[str, Callable[..., Any]] = {}
    with contextlib.suppress(UpstreamError):
        while True:
            order, region = wire.receive(None)
            if region is not None:
                wire.send(_answer(module, known, order, region))


def _answer(
    module: ModuleType | None, known: dict[str, Callable[..., Any]], order: Json, region: int
) -> dict[str, Any]:
    try:
        name = order["function"]
        if name not in known:
            known[name] = find_reference(name) if module is None else _function(module, name)
        return _run(known[name], order, region)
    except BaseException as exc:  # noqa: BLE001  # as above
        return {"done": False, "why": _said(exc)}
    finally:
        os.close(region)


def _load(order: Json) -> ModuleType:
    """Import the variant from its private copy; raises IntegrityError if that is another one."""
    from kgate_client.files import digest_files, walk
    from kgate_client.loader import import_sealed

    importlib.import_module("torch")
    root = Path(order["root"])
    manifest = digest_files(walk(root))
    if str(manifest.digest) != order["manifest"]:
        raise IntegrityError(f"{root} is {manifest.digest}, not {order['manifest']}")
    return import_sealed(
        root,
        manifest,
        name=order["name"],
        package=order["package"],
        context=contextlib.nullcontext(),
    )


def _function(module: ModuleType, name: str) -> Callable[..., Any]:
    """Return what a dotted name means; a class is made, its submodule imported where needed."""
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part) and found is module:
            importlib.import_module(f"{module.__name__}.{part}")
        found = getattr(found, part)
    made: Callable[..., Any] = found() if isinstance(found, type) else found
    return made


def _run(function: Callable[..., Any], order: Json, region: int) -> dict[str, Any]:
    """Call the function once for each item of the batch, on the judge's memory."""
    torch: Torch = importlib.import_module("torch")
    dtype = getattr(torch, order["dtype"])
    shared = torch.frombuffer(mmap.mmap(region, order["size"]), dtype=torch.uint8)
    whole = shared if order["device"] == "cpu" else shared.to(order["device"])
    arguments, outputs = [], []
    for item in order["slots"]:
        tensors = {
            name: whole[at : at + size].view(dtype).view(shape)
            for name, (at, size, shape) in item.items()
        }
        arguments.append([tensors.get(one, one) for one in order["call"]])
        outputs.append(tensors[order["output"]])
    results = []
    with torch.no_grad():
        begin = _begin(torch, order["device"])
        for values in arguments:
            results.append(function(*values))  # noqa: PERF401  # a loop is what is timed
        spent = _spent(torch, begin)
    aliased = False
    if order["returned"]:
        own = whole.untyped_storage().data_ptr()
        for result, place in zip(results, outputs, strict=True):
            aliased = aliased or result.untyped_storage().data_ptr() == own
            if result.shape != place.shape or result.dtype != dtype:
                raise TypeError(f"it returned {result.dtype} {tuple(result.shape)}")
            place.copy_(result)
    if whole is not shared:
        shared.copy_(whole)
    return {"done": True, "nanoseconds": spent, "aliased": aliased}


def _begin(torch: Torch, device: str) -> Torch:
    if device == "cpu":
        return time.perf_counter_ns()
    torch.cuda.synchronize()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def _spent(torch: Torch, begin: Torch) -> int:
    """Return the nanoseconds since: by CUDA events on a GPU."""
    if isinstance(begin, int):
        return time.perf_counter_ns() - begin
    end = torch.cuda.Event(enable_timing=True)
    end.record()
    torch.cuda.synchronize()
    return int(begin.elapsed_time(end) * 1e6)


def _said(exc: BaseException) -> str:
    text = exc.message if isinstance(exc, KgateError) else f"{type(exc).__name__}: {exc}"
    return " ".join(text.split())[:MAX_SAID]


if __name__ == "__main__":
    main(int(sys.argv[1]))

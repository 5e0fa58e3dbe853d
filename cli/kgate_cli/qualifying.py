"""Finds the variant that `qualify` and `bench` are to try, sends results, shows them to people.

A kernel by name comes from the mirror and through the gate, as in a pod; a folder is taken as it
is. What is tried is decided here, what is right never is.
"""

from __future__ import annotations

import json
import platform
import ssl
import urllib.error
import urllib.request
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from kgate_client.answer import Cleared
from kgate_client.asked import Asked
from kgate_client.hubcache import RepoCache, hub_folder
from kgate_client.process import build
from kgate_client.qualify.casefile import CaseFile, shipped_for
from kgate_client.qualify.run import Subject
from kgate_client.warm import Wanted as Kernel
from kgate_client.warm import warm
from kgate_core.errors import IntegrityError, InvalidInput, NotFound, UpstreamError
from kgate_core.kernel import Revision
from kgate_policy.why import consider, machines

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from kgate_cli.output import Output

SEND_SECONDS: Final = 30
MAX_ANSWER: Final = 64 * 1024  # bytes of the mirror's answer
ENDPOINT: Final = "/api/kgate/v1/qualifications"
_PPM: Final = 1_000_000


def find_subject(
    reference: str, variant: str | None, device: str, environ: Mapping[str, str]
) -> Subject:
    """Return what a folder or `org/name@v1` means on this machine.

    Raises InvalidInput, NotFound, UpstreamError, and IntegrityError if the gate refuses it.
    """
    folder = Path(reference)
    if folder.is_dir():
        return _local(folder.absolute(), variant, device)
    wanted = Kernel.parse(reference)
    report = warm(environ, [reference], patterns=[variant] if variant else [], seal=False)
    own = [row for row in report.rows if row.kernel == str(wanted)]
    refused = [row for row in own if row.reason]
    names = [row.variant for row in own if not row.reason]
    if not names and refused:
        row = refused[0]
        raise IntegrityError(f"{reference} {row.variant}: {row.reason}: {row.message}")
    if not names:
        raise NotFound(f"the mirror has no variant of {reference}", hint="see `kgate ls` there")
    pod = build(environ)
    hub = hub_folder(environ, pod.config)
    if hub is None:
        raise InvalidInput("there is no cache to read", hint="set HF_HOME")
    place = hub / f"kernels--{wanted.repo.org}--{wanted.repo.name}"
    named = wanted.pin.startswith("v")
    text = (place / "refs" / wanted.pin).read_text("utf-8").strip() if named else wanted.pin
    chosen = variant if variant in names else choose(names, device)
    path = RepoCache.of(hub, wanted.repo, Revision(text)).variant(chosen)
    answer = pod.gate.check(Asked(str(wanted.repo), wanted.pin), path, seal=True)
    if not isinstance(answer, Cleared) or answer.sealed is None:
        why = "no private copy" if isinstance(answer, Cleared) else answer.message
        raise IntegrityError(f"{reference} {chosen}: {why}")
    return Subject(answer.sealed, chosen, str(wanted.repo), text, verified=True)


def _local(folder: Path, variant: str | None, device: str) -> Subject:
    if (folder / "metadata.json").exists():
        return Subject(folder, folder.name, _repo_of(folder))
    builds = folder / "build"
    names = sorted(path.name for path in builds.iterdir()) if builds.is_dir() else []
    if not names:
        raise InvalidInput(
            f"{folder} is neither a build variant nor a kernel's repository",
            hint="name a folder such as build/torch-cpu, or the repository above it",
        )
    chosen = variant if variant in names else choose(names, device)
    if variant is not None and variant != chosen:
        raise NotFound(f"{folder} has no variant {variant}", hint=f"it has {', '.join(names)}")
    return Subject(builds / chosen, chosen, _repo_of(builds / chosen))


def _repo_of(folder: Path) -> str:
    """Return the kernel's name as its metadata says it; it is a claim."""
    try:
        document = json.loads((folder / "metadata.json").read_bytes())
        return str(document["name"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def choose(names: Iterable[str], device: str) -> str:
    """Return the variant that would load on this machine; raises NotFound."""
    try:
        torch = version("torch")
    except PackageNotFoundError:
        raise NotFound("torch is not installed here", hint="run it where kernels run") from None
    number, _, local = torch.partition("+")
    backend, cuda = "cpu", None
    if device != "cpu":
        backend = "cuda"
        cuda = f"{local[2:-1]}.{local[-1]}" if local.startswith("cu") else None
    release = ".".join(number.split(".")[:2])
    machine = machines(torch=release, backend=backend, version=cuda, cpu=platform.machine())[0]
    considered = consider(names, machine)
    for item in considered:
        if item.fits:
            return str(item.variant)
    said = "; ".join(f"{item.variant} {item.reason}" for item in considered)
    raise NotFound(f"no variant fits this machine: {said}", hint="name one with --variant")


def find_cases(named: Path | None, subject: Subject) -> CaseFile:
    """Return the named case file, or the one that ships with kgate; raises NotFound."""
    return CaseFile.read(named) if named is not None else shipped_for(subject.repo)


def submit(url: str, token: str | None, result: Mapping[str, Any], cafile: str | None) -> str:
    """Send a result to a mirror and return the name under which it keeps it.

    Raises UpstreamError if it does not answer, and what its refusal means otherwise.
    """
    headers = {"Content-Type": "application/json", "User-Agent": "kgate-client"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    if not url.startswith(("http://", "https://")):
        raise InvalidInput(f"{url} is not an address", hint="write https://mirror…")
    request = urllib.request.Request(  # noqa: S310  # its scheme was checked
        url.rstrip("/") + ENDPOINT, json.dumps(result).encode(), headers, method="POST"
    )
    context = ssl.create_default_context(cafile=cafile) if url.startswith("https:") else None
    try:
        with urllib.request.urlopen(request, timeout=SEND_SECONDS, context=context) as answer:  # noqa: S310  # as above
            said = json.loads(answer.read(MAX_ANSWER))
    except urllib.error.HTTPError as exc:
        with exc:
            raise _refused(exc) from exc
    except (OSError, ValueError) as exc:
        raise UpstreamError(f"{url} does not answer ({exc})") from exc
    return str(said.get("submitter", ""))


def _refused(exc: urllib.error.HTTPError) -> NotFound | InvalidInput | UpstreamError:
    try:
        said = str(json.loads(exc.read(MAX_ANSWER))["error"])
    except (OSError, ValueError, KeyError, TypeError):
        said = f"the mirror answered {exc.code}"
    match exc.code:
        case 404:
            return NotFound(said, hint="results count for what the mirror has: sync it there first")
        case 400 | 401 | 403:
            hint = "HF_TOKEN must hold a token made with `kgate token create … --may qualify`"
            return InvalidInput(said, hint=hint)
        case _:
            return UpstreamError(said)


def show_tried(output: Output, result: Mapping[str, Any]) -> None:
    """Print what was right and what was wrong."""
    output.table(
        ("FUNCTION", "DTYPE", "SHAPE", "EQUAL", "MAX ABS", "MAX REL", "WHY"),
        [
            (
                item["function"],
                item["dtype"],
                _shape(item["shape"]),
                "yes" if item["equal"] else "NO",
                _share(item["maxAbsErrorPpm"]),
                _share(item["maxRelErrorPpm"]),
                item.get("why", ""),
            )
            for item in result["tried"]
        ],
    )


def show_timed(output: Output, result: Mapping[str, Any]) -> None:
    """Print how fast the kernel is beside its fallback."""
    if not result["timed"]:
        return
    output.table(
        ("FUNCTION", "DTYPE", "SHAPE", "KERNEL µs", "FALLBACK µs", "RATIO", "MEMORY", "FALLBACK"),
        [
            (
                item["function"],
                item["dtype"],
                _shape(item["shape"]),
                f"{item['kernelNs'] / 1000:.1f}",
                f"{item['fallbackNs'] / 1000:.1f}",
                f"{item['speedupPpm'] / _PPM:.2f}",
                _memory(item["kernelMemoryBytes"]),
                _memory(item["fallbackMemoryBytes"]),
            )
            for item in result["timed"]
        ],
    )


def default_name() -> str:
    """Return who submits, if nobody says: user and host."""
    from kgate_cli.actor import who_runs

    found = who_runs({})
    return f"{found['user']}@{found['host']}"


def this_second() -> datetime:
    """Return the present time in whole seconds."""
    return datetime.now(UTC).replace(microsecond=0)


def _shape(shape: Mapping[str, list[int]]) -> str:
    return " ".join(f"{name}[{','.join(map(str, dims))}]" for name, dims in shape.items())


def _share(ppm: int) -> str:
    return "beyond" if ppm >= 10**12 else f"{ppm / _PPM:.1e}"  # 10**12 stands for infinite or NaN


def _memory(count: int | None) -> str:
    return "unknown" if count is None else f"{count / 1024**2:.1f} MiB"

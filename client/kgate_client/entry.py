"""The `kgate` script: everything where the `cli` extra is installed, a pod's commands elsewhere.

This is an edge: it reads arguments and the environment, prints, and returns exit codes (0 yes,
1 no, 2 usage, 3 could not reach, 4 configuration or trust root, 70 bug). Standard library only.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import importlib.util
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from kgate_core.errors import (
    IntegrityError,
    KgateError,
    NotFound,
    UpstreamError,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

YES: Final = 0
NO: Final = 1
USAGE: Final = 2
UNREACHABLE: Final = 3
CONFIGURATION: Final = 4
BUG: Final = 70
# Commands that only the `cli` extra has; named here so that a pod can say where they are.
_ELSEWHERE: Final = """
    add admission approve audit backup bench blast-radius bundle demo deploy diff discover feed
    fleet gc gkm init keys lint lock ls oci policy preflight promote qualify rebuild reinstate
    report restore revoke sbom scan scrub serve show sync token why
"""
_ALWAYS_HERE: Final = (["warm"], ["cache"])  # commands that the full command line leaves to us


@dataclass(frozen=True, slots=True)
class _Result:
    document: dict[str, Any]
    lines: tuple[str, ...]
    ok: bool


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `kgate`; hands over to the full command line where it is installed."""
    given = sys.argv[1:] if arguments is None else arguments
    if arguments is None and given[:1] not in _ALWAYS_HERE and full_cli():
        # By name: the pod's package may not depend on what only a mirror's install has.
        return int(importlib.import_module("kgate_cli.main").main() or 0)
    return run(given)


def full_cli() -> bool:
    """Return whether the packages behind the full command line are here."""
    return all(importlib.util.find_spec(name) is not None for name in ("click", "rich", "yaml"))


def run(arguments: Sequence[str]) -> int:
    """Run one of the commands that the base install has."""
    named = next((word for word in arguments if not word.startswith("-")), "")
    if named in _ELSEWHERE.split():
        _complain(f"`kgate {named}` needs more than the base install", 'pip install "kgate[cli]"')
        return USAGE
    parser = _parser()
    try:
        options = parser.parse_args(arguments)
    except SystemExit as exc:
        return USAGE if exc.code else YES
    try:
        result: _Result = options.run(options)
    except KgateError as exc:
        _complain(exc.message, exc.hint)
        return _code(exc)
    except BrokenPipeError:
        return YES
    if options.json:
        sys.stdout.write(json.dumps(result.document, indent=2, ensure_ascii=False) + "\n")
    else:
        sys.stdout.write("".join(f"{line}\n" for line in result.lines))
    return YES if result.ok else NO


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kgate",
        description="kgate in a pod. More commands come with: pip install 'kgate[cli]'",
    )
    version = f"kgate {importlib.metadata.version('kgate')}"
    parser.add_argument("--version", action="version", version=version)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    doctor = _add(
        commands, "doctor", _doctor, "Check this pod: endpoint, trust, cache, versions, hook."
    )
    doctor.add_argument(
        "--runtime-sbom",
        type=int,
        metavar="PID",
        help="instead: what that process has mapped, as CycloneDX JSON",
    )
    verify = _add(commands, "verify", _verify, "Check a variant directory, step by step.")
    verify.add_argument("path", type=Path, metavar="PATH")
    verify.add_argument("--root", type=Path, help="trust root to check against")
    warm = _add(commands, "warm", _warm, "Fill a client cache from the mirror, verified.")
    warm.add_argument("kernels", nargs="*", metavar="ORG/NAME@v1", help="default: the lock's")
    warm.add_argument("--variant", action="append", default=[], metavar="PATTERN")
    warm.add_argument("--seal", action="store_true", help="leave the verified private copies, too")
    cache = _add(commands, "cache", _cache, "Check the caches of this pod, or clean them.")
    cache.add_argument("action", choices=("verify", "purge"))
    trust = _add(commands, "trust", _trust, "Show or refresh the trust metadata of this pod.")
    trust.add_argument("action", choices=("show", "refresh"))
    return parser


def _add(
    commands: Any,  # noqa: ANN401  # argparse keeps this type private
    name: str,
    function: Any,  # noqa: ANN401  # one of the functions below
    text: str,
) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    command.add_argument("--json", action="store_true", help="print one JSON object")
    command.set_defaults(run=function)
    return command


def _doctor(options: argparse.Namespace) -> _Result:
    from kgate_client.doctor import examine

    if options.runtime_sbom is not None:
        from kgate_client.inventory import sbom_of

        document = sbom_of(os.environ, options.runtime_sbom)
        return _Result(document, (json.dumps(document, indent=2, ensure_ascii=False),), ok=True)
    report = examine(os.environ)
    return _Result(report.to_json(), tuple(report.lines()), report.healthy)


def _verify(options: argparse.Namespace) -> _Result:
    from kgate_client.verification import verify_path

    environ = dict(os.environ)
    if options.root is not None:
        environ["KGATE_TRUST_ROOT"] = str(options.root)
    report = verify_path(options.path, environ)
    return _Result(report.to_json(), tuple(report.lines()), report.ok)


def _warm(options: argparse.Namespace) -> _Result:
    from kgate_client.warm import warm

    report = warm(os.environ, options.kernels, patterns=options.variant, seal=options.seal)
    return _Result(report.to_json(), tuple(report.lines()), report.ok)


def _cache(options: argparse.Namespace) -> _Result:
    from kgate_client.cachecare import look_after

    report = look_after(os.environ, purge=options.action == "purge")
    return _Result(report.to_json(), tuple(report.lines()), report.ok)


def _trust(options: argparse.Namespace) -> _Result:
    from kgate_client.trustview import view

    seen = view(os.environ, refresh=options.action == "refresh")
    return _Result(seen.to_json(), tuple(seen.lines()), ok=True)


def _complain(message: str, hint: str) -> None:
    sys.stderr.write(f"kgate: {message}\n")
    if hint:
        sys.stderr.write(f"       → {hint}\n")


def _code(error: KgateError) -> int:
    match error:
        case UpstreamError():
            return UNREACHABLE
        case NotFound() | IntegrityError():
            return NO
        case _:
            return CONFIGURATION

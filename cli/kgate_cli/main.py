"""The command group: global rules, lazy commands, errors to exit codes.

A command module has one click command named `command`; its first line of help is here too, so
that the list needs no import.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Final

import click

from kgate_core.errors import KgateError

if TYPE_CHECKING:
    from collections.abc import Sequence

from kgate_cli import exits

COMMANDS: Final[dict[str, str]] = {
    "init": "Start a site: kgate.yaml, a policy, keys and the trust root that pods pin.",
    "add": "Propose a pin: a kernel's risk card, ready for a merge request.",
    "lock": "Resolve every pin to a commit and its variants' digests: kgate.lock.",
    "sync": "Admit every pin: fetch, verify, scan, decide, sign, publish. The CI command.",
    "worker": "Do queued jobs with others: bring in, sign, scrub. Needs PostgreSQL.",
    "sign": "Sign and publish what was brought in without keys; reaches no upstream.",
    "serve": "Serve what was published to stock Hub clients.",
    "ls": "List what is published and what was denied.",
    "show": "Show everything known about one kernel.",
    "scan": "Look into a library, a kernel, a wheel or a folder, down to the GPU code.",
    "diff": "Say what changed between two kernels: device images, kernels, imports, symbols.",
    "sbom": "Print the CycloneDX SBOM of a mirrored kernel or of a path.",
    "verify": "Check a kernel against its signatures, in numbered steps.",
    "why": "Say which variant would load on a machine, or why none.",
    "preflight": "Say which locked kernels an image upgrade would lose.",
    "revoke": "Pull a kernel back: nothing loads it from now on.",
    "reinstate": "Take a revocation back.",
    "promote": "Bring what one lane serves into another, by that lane's own rules.",
    "approve": "Give the second, human-held signature that the production lane needs.",
    "hold": "Keep a publication whatever gc would do, until it is released.",
    "gc": "Remove what nothing needs, after asking everybody who might.",
    "scrub": "Read every blob again; find and repair what the disk changed.",
    "audit": "Print or check the audit log: who changed what, and when.",
    "attest": "Sign published decisions once more with this CI job's identity, without a key.",
    "break-glass": "Let one kernel in for hours: one asks, two others with approve keys sign.",
    "keys": "Make, list, rotate and revoke the keys that sign for this site.",
    "trust": "Show, refresh and update the trust metadata.",
    "token": "Make, list and revoke the read-only tokens that clients send as HF_TOKEN.",
    "feed": "Take in advisories and VEX, show what is there, sign a feed of one's own.",
    "policy": "Check, test, explain and compare policies; grant exceptions.",
    "lint": "Read a project's own files for careless uses of kernels.",
    "bundle": "Carry kernels over an air gap: discs one way, a receipt the other.",
    "oci": "Push, pull and list kernels, SBOMs and attestations in OCI registries.",
    "backup": "Write everything of the site but its private keys.",
    "restore": "Bring a site back from a backup, into an empty place.",
    "rebuild": "Fill an empty catalog again, from the blob store or from a registry.",
    "qualify": "Try a kernel against its PyTorch fallback here: equal numbers, speed, memory.",
    "bench": "Time a kernel beside its PyTorch fallback on this machine.",
    "warm": "Fill a client cache from the mirror, so that it works with the network off.",
    "cache": "Check the caches of a pod, or clean them.",
    "doctor": "Check this host or pod: endpoint, trust, cache, versions, hook.",
    "demo": "Tell the whole story on this machine, offline.",
}


class _Group(click.Group):
    """Imports a command's module when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"kgate_cli.commands.{cmd_name.replace('-', '')}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(
    cls=_Group,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 yes · 1 the answer is no · 2 usage · 3 could not reach · "
    "4 configuration or trust root · 70 bug.",
)
@click.version_option(package_name="kgate", prog_name="kgate")
def group() -> None:
    """Let a GPU kernel into a pod only if it was pinned, scanned, allowed and signed.

    \b
    kgate init && kgate lock && kgate sync && kgate serve
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; prints errors, raises nothing."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        code = group.main(list(arguments), prog_name="kgate", standalone_mode=False)
    except click.exceptions.Exit as exc:
        return exc.exit_code
    except click.ClickException as exc:
        exc.show()
        return exits.USAGE
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped", err=True)
        return exits.NO
    except BrokenPipeError:
        return exits.NO
    except KgateError as exc:
        from kgate_cli.output import Output

        Output(as_json="--json" in arguments).error(exc)
        return exits.exit_code(exc)
    except Exception:  # noqa: BLE001  # the edge: a bug must not look like an answer
        import traceback

        traceback.print_exc()
        click.echo("this is a bug in kgate: please report it with the lines above", err=True)
        return exits.BUG
    return code if isinstance(code, int) else exits.YES

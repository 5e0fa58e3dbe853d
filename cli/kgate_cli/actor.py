"""Who runs a command, for the audit log: user and host, and what the CI system says about its job.

The environment is a claim: whoever starts the process may set it. Keys that were used are added by
what opens them. Nothing is looked up over the network.
"""

from __future__ import annotations

import os
import pwd
import socket
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from collections.abc import Mapping

_CI: Final[dict[str, tuple[str, ...]]] = {
    "GITHUB_ACTIONS": ("GITHUB_REPOSITORY", "GITHUB_ACTOR", "GITHUB_RUN_ID"),
    "GITLAB_CI": ("CI_PROJECT_PATH", "GITLAB_USER_LOGIN", "CI_JOB_ID"),
    "JENKINS_URL": ("JOB_NAME", "BUILD_USER_ID", "BUILD_NUMBER"),
    "BUILDKITE": ("BUILDKITE_PIPELINE_SLUG", "BUILDKITE_BUILD_CREATOR", "BUILDKITE_BUILD_ID"),
}
_LONGEST: Final = 200  # characters of one value
_UNSAID: Final = frozenset({"output", "config_path", "yes", "passphrase_file", "no_passphrase"})


def who_runs(environment: Mapping[str, str]) -> dict[str, str]:
    """Return user, host and, in CI, the job's own identity."""
    uid = os.getuid()
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:  # OpenShift runs containers under a number that no file knows
        user = f"uid {uid}"
    found = {"user": user, "host": socket.gethostname()}
    if (behind := environment.get("SUDO_USER")) and uid == 0:
        found["sudo"] = behind[:_LONGEST]
    for mark, names in _CI.items():
        if environment.get(mark):
            said = [environment[name] for name in names if environment.get(name)]
            found["ci"] = " ".join([mark.partition("_")[0].lower(), *said])[:_LONGEST]
            break
    return found


def what_runs() -> tuple[str, dict[str, Any]]:
    """Return the running command's name and what was asked of it; secrets are never options."""
    context = click.get_current_context()
    names = []
    inner: click.Context | None = context
    while inner is not None and inner.parent is not None:
        names.append(str(inner.info_name))
        inner = inner.parent
    asked = {
        name: _said(value)
        for name, value in context.params.items()
        if name not in _UNSAID and value not in (None, False, ())
    }
    return " ".join(reversed(names)), asked


def _said(value: object) -> Any:  # noqa: ANN401  # JSON
    match value:
        case bool() | int():
            return value
        case tuple() | list():
            return [_said(item) for item in value]
        case _:
            return str(value)[:_LONGEST]

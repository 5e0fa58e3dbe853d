"""A new site: its configuration, its policy, its keys and the trust root that pods will pin.

`found_site` refuses to overwrite anything. It opens no store and mirrors nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from kgate_core.errors import Conflict, InvalidInput, KgateError
from kgate_core.trust import Lane, Mode, SigningKey
from kgate_core.tuf import Role
from kgate_mirror_server.settings.site import FILE_NAME, load_config
from kgate_mirror_server.trust.files import PINNED, write_trust
from kgate_policy import load_policy, starter_policy
from kgate_signer.keys import FileKey, write_private_file
from kgate_signer.trustwriter import (
    HARD_STALENESS,
    KEY_LIFETIME,
    SOFT_STALENESS,
    RootKeys,
    create,
)

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from kgate_mirror_server.settings.site import Config

DEFAULT_UPSTREAM: Final = "https://huggingface.co"
ADMIT: Final = "admit"
KEY_NAMES: Final = ("root", ADMIT, "timestamp")
MAX_ROOT_KEYS: Final = 9  # holders that `kgate init` makes keys for
BACKDATED: Final = timedelta(minutes=5)  # pods whose clocks are a little late accept new keys too

_TEMPLATE: Final = """\
# What this mirror brings in. After a change: `kgate lock`, commit kgate.lock, `kgate sync`.
apiVersion: kgate.dev/v1

# Where kernels come from: a Hub, another kgate, or a folder of built kernels (./built).
upstream: {upstream}

# Each kernel is pinned to a version branch (resolved to a commit by `kgate lock` and never
# followed silently) or to a commit. Nothing that is not pinned is ever fetched or served.
kernels: []
#  - repo: kernels-community/activation
#    version: 1
#    variants: ["torch21?-cxx11-cu1*-x86_64-linux", "torch-cpu"]   # all, if left out
#  - repo: kernels-community/rmsnorm
#    revision: 5b1c0f2e9a7d4c3b8e6f1a2d3c4b5a69788f9e0d

# The name of this installation in everything it signs. Pods compare it; it cannot change later.
site: {site}

policy: policy/baseline.yaml      # what may run
store: ./kgate-data               # where the bytes are kept
database: sqlite:///kgate-data/kgate.db

# Private keys by address, never by value. root signs trust metadata only: take it offline.
keys:
  root: {root}
  admit: {admit}
  timestamp: file:keys/timestamp.pem

serve:
  host: 127.0.0.1
  port: 8800
"""


@dataclass(frozen=True, slots=True)
class Founding:
    """What a person chose for a new site."""

    upstream: str = DEFAULT_UPSTREAM
    site: str = "https://kgate.local"
    passphrase: bytes | None = None
    """Protects the root and admit keys; None leaves them unencrypted (mode 0600)."""
    passphrase_file: str = ""
    """Where later commands read the passphrase; empty: a person is asked."""
    root_keys: int = 1
    """How many people will hold a key of the root."""
    root_threshold: int = 1
    """How many of them must sign each change of trust."""


def found_site(folder: Path, choice: Founding, now: datetime) -> tuple[Path, ...]:
    """Write a new site and return its files; raises Conflict if any of them exists."""
    config_path = folder / FILE_NAME
    policy_path = folder / "policy" / "baseline.yaml"
    if not 1 <= choice.root_threshold <= choice.root_keys <= MAX_ROOT_KEYS:
        raise InvalidInput(
            f"{choice.root_threshold} of {choice.root_keys} holders of the root cannot be",
            hint=f"1 to {MAX_ROOT_KEYS} holders, of whom at most all must sign",
        )
    roots = ("root", *(f"root-{number}" for number in range(2, choice.root_keys + 1)))
    keys = {n: folder / "keys" / f"{n}.pem" for n in (*roots, *KEY_NAMES[1:])}
    root_path = folder / "trust" / PINNED
    paths = (config_path, policy_path, *keys.values(), root_path)
    for path in paths:
        if path.exists():
            raise Conflict(
                f"{path} exists",
                hint="`kgate init` overwrites nothing: choose another folder, or remove it",
            )
    try:
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
        (folder / "keys").chmod(0o700)
        config_path.write_text(_render(choice), encoding="utf-8")
        policy_path.write_text(starter_policy(), encoding="utf-8")
    except OSError as exc:
        raise KgateError(f"{folder}: cannot be written ({exc.strerror})") from exc
    made = {name: FileKey.generate() for name in keys}
    for name, path in keys.items():
        # The timestamp key signs every minute without anybody there to type.
        passphrase = None if name == "timestamp" else choice.passphrase
        write_private_file(path, made[name].to_pem(passphrase))
    holders = tuple(made[name] for name in roots)
    _write_first_trust(load_config(config_path), made, holders, choice.root_threshold, now)
    return paths


def _render(choice: Founding) -> str:
    suffix = f"?passphrase-file={choice.passphrase_file}" if choice.passphrase_file else ""
    return _TEMPLATE.format(
        upstream=choice.upstream,
        site=choice.site,
        root=f"file:keys/root.pem{suffix}",
        admit=f"file:keys/admit.pem{suffix}",
    )


def _write_first_trust(
    config: Config,
    keys: dict[str, FileKey],
    holders: tuple[FileKey, ...],
    threshold: int,
    now: datetime,
) -> None:
    admit, timestamp = keys[ADMIT].public_key(), keys["timestamp"].public_key()
    roots = tuple(key.public_key() for key in holders)
    lane = Lane(
        config.lane,
        Mode.ENFORCE,
        {ADMIT: Role(frozenset({admit.keyid}), 1)},
        frozenset({config.upstream.identity}),
        frozenset({load_policy(config.path(config.policy)).digest}),
        SOFT_STALENESS,
        HARD_STALENESS,
    )
    trust = create(
        config.site,
        [lane],
        [SigningKey(admit, now - BACKDATED, now + KEY_LIFETIME, ADMIT)],
        RootKeys(roots, roots, (timestamp,), threshold, threshold),
        offline=holders,
        timestamp=keys["timestamp"],
        now=now,
    )
    write_trust(config.path(config.trust), trust)

"""Check a publisher's own signature on a build variant, and what that check by itself forgets.

A publisher may sign `metadata.json` keyless (Sigstore), in `metadata.json.sigstore`; the metadata
lists a digest of every file. Checked here: that a workflow which an operator believes for this
repository signed these very bytes, that they are about the kernel and version asked for (a valid
signature on another one proves nothing), and that the digests cover exactly the files that came,
bytecode included. The roots come from a file or from the installed `sigstore` release, never from
a cache that anybody can write, and nothing is fetched. Whether an unsigned kernel may be used is a
policy's question.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from importlib import resources
from typing import TYPE_CHECKING, Any, Final, Protocol

from kgate_core import strictjson
from kgate_core.digest import Digest
from kgate_core.errors import InvalidInput, TrustError
from kgate_signer.predicates import UpstreamSignature, UpstreamVerdict

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sigstore.models import Bundle
    from sigstore.verify import Verifier

    from kgate_core.kernel import KernelRef
    from kgate_core.manifest import FileEntry, Manifest

METADATA: Final = "metadata.json"
SIGNATURE: Final = "metadata.json.sigstore"
MAX_SIGNED: Final = 4 * 1024 * 1024  # bytes of either of the two files
_GITHUB: Final = "https://token.actions.githubusercontent.com"
_HASHES: Final = frozenset({"sha256", "sha512"})
_PRODUCTION: Final = "https%3A%2F%2Ftuf-repo-cdn.sigstore.dev"


@dataclass(frozen=True, slots=True)
class Publisher:
    """Whose signatures count for the kernels of one organisation."""

    org: str
    """Organisation on the Hub, such as `kernels-community`."""
    issuer: str
    """Who vouched for the identity, such as GitHub's token service."""
    repository: str
    """Source repository that the build must have run in."""
    workflows: tuple[str, ...]
    """Build definitions that may sign, with their branch."""


HUGGING_FACE: Final = Publisher(
    "kernels-community",
    _GITHUB,
    "https://github.com/huggingface/kernels-community",
    tuple(
        "https://github.com/huggingface/kernels-community/.github/workflows/"
        f"{name}.yaml@refs/heads/main"
        for name in ("build", "build-mac", "build-windows", "sign-old-builds")
    ),
)
"""The workflows that the `kernels` client itself believes."""


class VariantFiles(Protocol):
    """The bytes of a variant that was stored already."""

    def open(self, entry: FileEntry, /) -> Iterable[bytes]:
        """Return a file's bytes in chunks, as the manifest describes it."""


class _Rejection(Exception):  # noqa: N818  # control flow inside this module, never leaves it
    pass


def shipped_root() -> bytes:
    """Return the public Sigstore roots that the installed release carries; raises TrustError."""
    try:
        return (resources.files("sigstore._store") / _PRODUCTION / "trusted_root.json").read_bytes()
    except (OSError, ModuleNotFoundError) as exc:
        raise TrustError(
            "the installed sigstore package carries no trusted root",
            hint="install kgate[sign], or name a trusted_root.json",
        ) from exc


@dataclass(frozen=True)
class UpstreamVerifier:
    """Checks publishers' signatures against one set of Sigstore roots."""

    publishers: tuple[Publisher, ...] = (HUGGING_FACE,)
    trusted_root: bytes = field(default_factory=shipped_root)
    """Sigstore's trusted_root.json."""

    def check(
        self, repo: KernelRef, version: int | None, manifest: Manifest, files: VariantFiles
    ) -> UpstreamSignature:
        """Return the verdict on a stored variant of `repo`; never raises for what came in.

        1. There is a signature, and somebody said whose counts for this organisation.
        2. One of that publisher's workflows signed these metadata bytes.
        3. The metadata is about the kernel, and the version if one was asked for.
        4. Its digests cover exactly the files that came.
        """
        signature = manifest.by_path.get(SIGNATURE)
        if signature is None:
            return UpstreamSignature(UpstreamVerdict.MISSING, f"there is no {SIGNATURE}")
        publishers = [item for item in self.publishers if item.org == repo.org]
        if not publishers:
            return UpstreamSignature(
                UpstreamVerdict.NOT_CHECKED,
                f"it is signed, but nobody said whose signatures count for {repo.org}",
                bundle=signature.digest,
            )
        try:
            bundle, metadata = self._signed(manifest, files)
            publisher, identity = self._verify(bundle, metadata, publishers)
            document = _read(metadata)
            _check_name(document, repo, version)
            _check_files(document, manifest, files)
        except _Rejection as exc:
            return UpstreamSignature(UpstreamVerdict.REJECTED, str(exc), bundle=signature.digest)
        return UpstreamSignature(
            UpstreamVerdict.VERIFIED,
            f"signed by {identity}; {len(manifest.files)} files",
            identity,
            publisher.issuer,
            signature.digest,
        )

    @cached_property
    def _verifier(self) -> Verifier:
        # Imported when the first signature is checked: it takes most of a second.
        from sigstore.models import TrustedRoot  # noqa: PLC0415
        from sigstore.verify import Verifier  # noqa: PLC0415
        from sigstore_models.trustroot.v1 import TrustedRoot as Inner  # noqa: PLC0415

        try:
            return Verifier(trusted_root=TrustedRoot(Inner.from_json(self.trusted_root)))
        except Exception as exc:  # the library documents no closed set of errors
            raise TrustError(
                f"the Sigstore trusted root cannot be used ({type(exc).__name__})",
                hint="give a trusted_root.json, or leave it out to use the shipped one",
            ) from exc

    def _signed(self, manifest: Manifest, files: VariantFiles) -> tuple[bytes, bytes]:
        found = []
        for name in (SIGNATURE, METADATA):
            entry = manifest.by_path.get(name)
            if entry is None:
                raise _Rejection(f"{name} is missing")
            if entry.size > MAX_SIGNED:
                raise _Rejection(f"{name} has {entry.size} bytes")
            data = b"".join(files.open(entry))
            if Digest.of(data) != entry.digest:
                raise _Rejection(f"{name} is not what was stored")
            found.append(data)
        return found[0], found[1]

    def _verify(
        self, data: bytes, metadata: bytes, publishers: list[Publisher]
    ) -> tuple[Publisher, str]:
        from sigstore.errors import Error  # noqa: PLC0415
        from sigstore.models import Bundle  # noqa: PLC0415

        verifier = self._verifier
        try:
            bundle = Bundle.from_json(data)
        except Exception as exc:  # hostile bytes find their own exceptions in any parser
            raise _Rejection(f"{SIGNATURE} is not a Sigstore bundle") from exc
        said = ""
        for publisher in publishers:
            try:
                verifier.verify_artifact(metadata, bundle, _policy(publisher))
            except Error as exc:
                said = str(exc)
            except Exception as exc:  # noqa: BLE001  # as above
                said = type(exc).__name__
            else:
                return publisher, _identity(bundle)
        raise _Rejection(f"the signature does not count: {said}")


def _policy(publisher: Publisher) -> Any:  # noqa: ANN401  # a type of the library imported lazily
    from sigstore.verify import policy  # noqa: PLC0415

    return policy.AllOf(
        [
            policy.OIDCIssuerV2(publisher.issuer),
            policy.OIDCSourceRepositoryURI(publisher.repository),
            policy.AnyOf([policy.OIDCBuildSignerURI(uri) for uri in publisher.workflows]),
        ]
    )


def _identity(bundle: Bundle) -> str:
    """Return the workflow that signed, which is what the certificate was issued for."""
    from cryptography import x509  # noqa: PLC0415

    names = bundle.signing_certificate.extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    return ", ".join(names.value.get_values_for_type(x509.UniformResourceIdentifier))


def _read(metadata: bytes) -> dict[str, Any]:
    try:
        document = strictjson.loads(metadata, what=METADATA, max_bytes=MAX_SIGNED, floats=True)
    except InvalidInput as exc:
        raise _Rejection(exc.message) from exc
    if not isinstance(document, dict):
        raise _Rejection(f"{METADATA} is no object")
    return document


def _check_name(document: dict[str, Any], repo: KernelRef, version: int | None) -> None:
    name, signed = document.get("name"), document.get("version")
    # Module names write underscores where repository names have dashes.
    if not isinstance(name, str) or name.replace("_", "-") != repo.name.replace("_", "-"):
        raise _Rejection(f"the signature is about the kernel {name!r}, asked for {repo.name!r}")
    if version is not None and (signed != version or isinstance(signed, bool)):
        raise _Rejection(f"the signature is about version {signed!r}, asked for {version}")


def _check_files(document: dict[str, Any], manifest: Manifest, files: VariantFiles) -> None:
    digest = document.get("digest")
    algorithm = digest.get("algorithm") if isinstance(digest, dict) else None
    listed = digest.get("files") if isinstance(digest, dict) else None
    if algorithm not in _HASHES or not isinstance(listed, dict):
        raise _Rejection(f"{METADATA} lists no sha256 or sha512 digests")
    # Upstream's own check skips bytecode; here every file must be covered.
    covered = {path for path in manifest.by_path if path not in {METADATA, SIGNATURE}}
    if odd := sorted(covered ^ listed.keys()):
        where = "not covered by the signature" if odd[0] in covered else "missing"
        raise _Rejection(f"{odd[0]} is {where}")
    for path in sorted(covered):
        entry = manifest.by_path[path]
        if algorithm == "sha256":
            found = bytes.fromhex(entry.digest.hex)
        else:
            state = hashlib.sha512()
            for chunk in files.open(entry):
                state.update(chunk)
            found = state.digest()
        if _decoded(listed[path]) != found:
            raise _Rejection(f"{path} differs from the signed digest")


def _decoded(text: object) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True) if isinstance(text, str) else None
    except (binascii.Error, ValueError):
        return None

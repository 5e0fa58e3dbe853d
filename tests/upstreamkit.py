"""Variants as a publisher signs them, for tests of what is believed about that signature."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from kgate_signer.upstream import METADATA, SIGNATURE, Publisher, UpstreamVerifier
from tests.sigstorekit import ISSUER, REPOSITORY, WORKFLOW, PrivateSigstore
from tests.trustkit import KERNEL, manifest_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kgate_core.kernel import KernelRef
    from kgate_core.manifest import FileEntry
    from kgate_signer.predicates import UpstreamSignature

ACME: Final = Publisher("acme", ISSUER, REPOSITORY, (WORKFLOW,))
SIGSTORE: Final = PrivateSigstore()
VERIFIER: Final = UpstreamVerifier((ACME,), SIGSTORE.trusted_root)


@dataclass
class Variant:
    """The files of one variant; `open` is how a store gives them out."""

    files: dict[str, bytes] = field(
        default_factory=lambda: {"__init__.py": b"x = 1\n", "_ops.abi3.so": b"\x7fELF" * 64}
    )

    def open(self, entry: FileEntry, /) -> Iterable[bytes]:
        data = self.files[entry.path]
        return (data[at : at + 100] for at in range(0, len(data), 100))

    def digested(self, algorithm: str = "sha256", **fields: Any) -> Variant:
        """Write metadata.json over the files that are there, as upstream's builder does."""
        listed = {
            path: base64.b64encode(hashlib.new(algorithm, data).digest()).decode()
            for path, data in self.files.items()
            if path not in {METADATA, SIGNATURE}
        }
        document = {
            "name": "relu",
            "id": "relu_1",
            "version": 1,
            "digest": {"algorithm": algorithm, "files": listed},
        }
        self.files[METADATA] = json.dumps(document | fields).encode()
        return self

    def signed(self, sigstore: PrivateSigstore = SIGSTORE, **identity: Any) -> Variant:
        """Sign the metadata as the publisher's workflow, or as somebody else."""
        self.files[SIGNATURE] = sigstore.sign(self.files[METADATA], **identity)
        return self

    def check(
        self,
        repo: KernelRef = KERNEL.repo,
        version: int | None = 1,
        verifier: UpstreamVerifier = VERIFIER,
    ) -> UpstreamSignature:
        """Return what is believed about the signature."""
        return verifier.check(repo, version, manifest_of(self.files), self)

"""One repository in an OCI registry: blobs streamed both ways, every digest checked, resumable.

Distribution specification 1.1. Transfers survive cut connections (uploads by asking how far they
came, downloads by a Range); manifests are compared with the digest that was asked for; a registry
without the referrers API gets the tag `sha256-<hex>` instead. What is stored there is not
interpreted here.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import requests
import stamina

from kgate_core import strictjson
from kgate_core.digest import Digest
from kgate_core.errors import IntegrityError, InvalidInput, NotFound, UpstreamError
from kgate_mirror_server.oci.connection import ATTEMPTS, Connection, Retryable, translated
from kgate_mirror_server.oci.shape import EMPTY, INDEX, MANIFEST, Descriptor
from kgate_mirror_server.oci.uploads import HashedChunk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kgate_core.kernel import KernelRef
    from kgate_mirror_server.oci.uploads import Opened

CHUNK: Final = 1024 * 1024  # bytes
UPLOAD_CHUNK: Final = 64 * 1024**2  # bytes in one PATCH; what has to be sent again at most
MAX_MANIFEST: Final = 4 * 1024**2  # bytes; what registries must accept, so nobody sends more
_DOCKER: Final = "application/vnd.docker.distribution.manifest"  # what images still often are
_ACCEPT: Final = f"{INDEX}, {MANIFEST}, {_DOCKER}.list.v2+json, {_DOCKER}.v2+json"
_REDIRECTED_TAG: Final = "sha256-"


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest or index as the registry holds it."""

    descriptor: Descriptor
    data: bytes

    @property
    def fields(self) -> dict[str, Any]:
        """Its JSON object; raises InvalidInput."""
        found = strictjson.loads(self.data, what=str(self.descriptor.digest))
        if not isinstance(found, dict):
            raise InvalidInput(f"{self.descriptor.digest}: not a manifest")
        return found

    def descriptors(self, key: str) -> tuple[Descriptor, ...]:
        """Return what it points at under `manifests` or `layers`; raises InvalidInput."""
        what = str(self.descriptor.digest)
        items = strictjson.take(self.fields, key, list, what=what)
        return tuple(read_descriptor(item, what=what) for item in items)


class Registry(Connection):
    """A registry under whose namespace kernels lie."""

    def repository(self, repo: KernelRef) -> Repository:
        """Return where a kernel lies; raises InvalidInput for names that registries refuse."""
        return Repository(self, self.place.repository(repo))

    def named(self, name: str) -> Repository:
        """Return a repository by its name in the registry."""
        return Repository(self, name)

    def repositories(self) -> list[str]:
        """Return the names of all repositories in the namespace; raises UpstreamError.

        Not every registry lists them for everybody.
        """
        prefix = f"{self.place.namespace}/" if self.place.namespace else ""
        names = self.pages("/v2/_catalog?n=1000", "repositories")
        return sorted(name for name in names if name.startswith(prefix))


class Repository:
    """One repository of a registry."""

    def __init__(self, registry: Registry, name: str) -> None:
        self.name = name
        self._registry = registry
        self._path = f"/v2/{name}"
        self._present: set[Digest] = set()  # blobs that were seen there in this run

    def has_blob(self, digest: Digest) -> bool:
        """Return whether the registry has a blob."""
        try:
            self._registry.ask("HEAD", f"{self._path}/blobs/{digest}", allow_redirects=True)
        except NotFound:
            return False
        return True

    def push_blob(self, digest: Digest, size: int, opened: Opened) -> int:
        """Send a blob unless it is there; returns the bytes sent.

        Raises IntegrityError if the bytes are not the digest's; then the registry keeps nothing.
        """
        if digest in self._present or self.has_blob(digest):
            self._present.add(digest)
            return 0
        location = self._begin()
        state = hashlib.sha256()
        offset = 0
        while offset < size:
            count = min(UPLOAD_CHUNK, size - offset)
            ahead = state.copy()
            location = self._send(location, offset, count, opened, ahead)
            state = ahead
            offset += count
        if state.hexdigest() != digest.hex:
            raise IntegrityError(f"{digest}: the stored bytes are sha256:{state.hexdigest()}")
        joiner = "&" if "?" in location else "?"
        self._registry.ask("PUT", f"{location}{joiner}digest={digest}")
        self._present.add(digest)
        return size

    def pull_blob(self, digest: Digest, size: int, offset: int = 0) -> Iterator[bytes]:
        """Yield a blob's bytes, going on after a cut connection; check them with the digest.

        Yields at most `size` bytes and one chunk. Raises NotFound, UpstreamError.
        """
        path = f"{self._path}/blobs/{digest}"
        attempts = stamina.retry_context(
            on=Retryable, attempts=ATTEMPTS, timeout=None, wait_initial=0.1, wait_max=5.0
        )
        try:
            for attempt in attempts:
                with attempt:
                    for chunk in self._stream(path, offset):
                        offset += len(chunk)
                        yield chunk
                        if offset > size:
                            return
                    _check_ended(offset, size)
        except Retryable as exc:
            raise UpstreamError(f"{self.name}: {digest} could not be fetched: {exc}") from exc

    def manifest(self, reference: str | Digest) -> Manifest:
        """Return a manifest by tag or digest; raises NotFound, IntegrityError."""
        path = f"{self._path}/manifests/{reference}"
        response = self._registry.ask("GET", path, headers={"Accept": _ACCEPT}, stream=True)
        with response, translated(self._registry.place):
            data = response.raw.read(MAX_MANIFEST + 1, decode_content=True)
        if len(data) > MAX_MANIFEST:
            raise IntegrityError(
                f"{self.name}: the manifest {reference} is over {MAX_MANIFEST} bytes"
            )
        digest = Digest.of(data)
        stated = response.headers.get("Docker-Content-Digest", str(digest))
        if stated != str(digest) or (isinstance(reference, Digest) and reference != digest):
            raise IntegrityError(
                f"{self.name}: the manifest {reference} has the digest {digest}"
                + (f", the registry says {stated}" if stated != str(digest) else ""),
                hint="the registry, or somebody before it, changed it: nothing was taken",
            )
        kind = response.headers.get("Content-Type", "").partition(";")[0]
        return Manifest(Descriptor(kind, digest, len(data)), data)

    def push_manifest(self, data: bytes, media_type: str, reference: str | Digest) -> bool:
        """Store a manifest; returns whether the registry indexed its `subject` by itself."""
        if len(data) > MAX_MANIFEST:
            raise InvalidInput(f"a manifest of {len(data)} bytes; registries take {MAX_MANIFEST}")
        response = self._registry.ask(
            "PUT",
            f"{self._path}/manifests/{reference}",
            data=data,
            headers={"Content-Type": media_type},
        )
        digest = Digest.of(data)
        if response.headers.get("Docker-Content-Digest", str(digest)) != str(digest):
            raise IntegrityError(f"{self.name}: the registry stored another manifest than {digest}")
        return "OCI-Subject" in response.headers

    def tags(self) -> list[str]:
        """Return all tags, without those that stand in for the referrers API."""
        found = self._registry.pages(f"{self._path}/tags/list?n=1000", "tags")
        return sorted(tag for tag in found if not tag.startswith(_REDIRECTED_TAG))

    def referrers(self, subject: Digest) -> tuple[Descriptor, ...]:
        """Return what is attached to a manifest, by the API or else by the fallback tag."""
        try:
            response = self._registry.ask("GET", f"{self._path}/referrers/{subject}")
            kind = response.headers.get("Content-Type", "").partition(";")[0]
            if kind == INDEX:
                found = Manifest(
                    Descriptor(INDEX, subject, len(response.content)), response.content
                )
                return found.descriptors("manifests")
        except NotFound:
            pass
        return self._tagged(subject)

    def attach(self, data: bytes, descriptor: Descriptor, subject: Digest) -> None:
        """Store a manifest with a subject so that `referrers` finds it."""
        if self.push_manifest(data, MANIFEST, descriptor.digest):
            return
        try:
            items = list(self.manifest(_fallback(subject)).fields.get("manifests", ()))
        except NotFound:
            items = []
        if any(item.get("digest") == str(descriptor.digest) for item in items):
            return
        fields = strictjson.loads(data, what="referrer")
        # In this index, unlike ours, the specification demands the artifact type.
        items.append(descriptor.to_json() | {"artifactType": fields.get("artifactType", EMPTY)})
        items.sort(key=lambda item: str(item["digest"]))
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": items}
        self.push_manifest(strictjson.dumps(index), INDEX, _fallback(subject))

    def _tagged(self, subject: Digest) -> tuple[Descriptor, ...]:
        try:
            return self.manifest(_fallback(subject)).descriptors("manifests")
        except NotFound:
            return ()

    def _begin(self) -> str:
        response = self._registry.ask("POST", f"{self._path}/blobs/uploads/", data=b"")
        location = response.headers.get("Location")
        if not location:
            raise UpstreamError(f"{self.name}: the registry names no place for an upload")
        return location

    def _send(
        self,
        location: str,
        offset: int,
        count: int,
        opened: Opened,
        state: Any,  # noqa: ANN401  # hashlib names no type
    ) -> str:
        """Send one chunk, again from where it was cut; `state` ends with all of it hashed."""
        hashed = HashedChunk(opened, offset, count, state)
        at = offset
        for number in range(1, ATTEMPTS + 1):
            headers = {
                "Content-Type": "application/octet-stream",
                "Content-Range": f"{at}-{offset + count - 1}",
            }
            body = hashed.rest(at)
            try:
                response = self._registry.once(
                    "PATCH", location, body=lambda body=body: body, headers=headers
                )
            except Retryable as exc:
                if number == ATTEMPTS:
                    raise UpstreamError(
                        f"{self.name}: an upload was cut {ATTEMPTS} times: {exc}"
                    ) from exc
                location, at = self._go_on(location, offset)
            else:
                hashed.finish()
                return str(response.headers.get("Location", location))
        raise AssertionError("the loop returns or raises")

    def _go_on(self, location: str, offset: int) -> tuple[str, int]:
        """Return where a cut upload goes on."""
        at = self._arrived(location)
        if at <= 1:
            # "0-0" means one byte or none: only a new upload is certain.
            location, at = self._begin(), 0
        if at < offset:
            raise UpstreamError(f"{self.name}: the registry lost the beginning of an upload")
        return location, at

    def _arrived(self, location: str) -> int:
        """Return how many bytes of an upload the registry has."""
        response = self._registry.ask("GET", location)
        last = response.headers.get("Range", "").rpartition("-")[2]
        return int(last) + 1 if last.isdecimal() else 0

    def _stream(self, path: str, offset: int) -> Iterator[bytes]:
        headers = {"Accept-Encoding": "identity"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
        response = self._registry.once("GET", path, headers=headers, stream=True)
        with response, translated(self._registry.place):
            skip = offset if response.status_code == requests.codes.ok else 0
            for chunk in response.iter_content(CHUNK):
                if skip >= len(chunk):
                    skip -= len(chunk)
                    continue
                yield chunk[skip:]
                skip = 0


def _fallback(subject: Digest) -> str:
    """Return the tag that stands in for the referrers API."""
    return f"{_REDIRECTED_TAG}{subject.hex}"


def _check_ended(offset: int, size: int) -> None:
    if offset < size:
        raise Retryable(f"the body ended after {offset} of {size} bytes")


def read_descriptor(data: strictjson.JsonValue, *, what: str) -> Descriptor:
    """Read a descriptor; raises InvalidInput."""
    annotations = data.get("annotations") or {} if isinstance(data, dict) else {}
    platform = data.get("platform") or {} if isinstance(data, dict) else {}
    return Descriptor(
        strictjson.take(data, "mediaType", str, what=what),
        Digest.parse(strictjson.take(data, "digest", str, what=what)),
        strictjson.take(data, "size", int, what=what),
        {str(key): str(value) for key, value in annotations.items()},
        {str(key): value for key, value in platform.items() if isinstance(value, str)},
    )

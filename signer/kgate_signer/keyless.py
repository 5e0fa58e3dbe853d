"""Sign and verify statements without keys of one's own, through a private or public Sigstore.

A short-lived certificate ties a signature to whoever a CI system or a cluster says is running
(GitHub, GitLab, a Kubernetes service account), and a log keeps it. Which Sigstore that is, is said
by its ClientTrustConfig (services to sign with, roots to believe), which an operator pins as a
file: nothing is fetched from a TUF repository and no default is assumed. Pods read key-signed
bundles only; these are for audits, archives and other sites. Errors of the `sigstore` library do
not leave this module.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from kgate_core.errors import InvalidInput, TrustError, UpstreamError
from kgate_core.statement import PAYLOAD_TYPE, Statement

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from sigstore.models import Bundle, ClientTrustConfig
    from sigstore.verify import Verifier

_MAX_TOKEN: Final = 64 * 1024  # characters; service account tokens take about 1,200


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose keyless signatures count: a name that one issuer vouches for."""

    issuer: str
    """Address of the token service, such as `https://token.actions.githubusercontent.com`."""
    name: str
    """The certificate's name in full: a workflow with its branch, a service account, an e-mail."""


@dataclass(frozen=True, slots=True)
class Signed:
    """A statement that one of the identities signed, while its certificate was valid."""

    statement: Statement
    identity: Identity


@dataclass(frozen=True, slots=True)
class Doubted:
    """A bundle that proves nothing here, and why."""

    message: str


def ambient_token() -> str:
    """Return the identity token of the CI job or pod around us; raises TrustError without one."""
    from sigstore.oidc import IdentityError, detect_credential  # noqa: PLC0415  # slow to import

    try:
        token = detect_credential()
    except IdentityError as exc:
        raise TrustError(
            f"the CI system gave no identity token ({exc})",
            hint="in GitHub Actions the job needs `permissions: id-token: write`",
        ) from exc
    if token is None:
        raise TrustError(
            "nothing around this process vouches for an identity",
            hint="run it in CI with an identity token, or sign with a key",
        )
    return token


def file_token(path: Path) -> str:
    """Return the identity token in a file, as Kubernetes projects one; raises TrustError.

    Read anew for every signature: the cluster replaces it long before it runs out.
    """
    try:
        with path.open(encoding="ascii") as stream:
            token = stream.read(_MAX_TOKEN).strip()
    except (OSError, ValueError) as exc:
        raise TrustError(
            f"the identity token {path} cannot be read ({type(exc).__name__})",
            hint="project a service account token with the audience sigstore into the pod",
        ) from exc
    if not token:
        raise TrustError(f"the identity token {path} is empty")
    return token


@dataclass(frozen=True)
class Keyless:
    """One Sigstore, as its ClientTrustConfig describes it."""

    trust_config: bytes
    """The JSON document; only its roots are used for verifying."""

    def sign(self, statement: Statement, token: Callable[[], str] = ambient_token) -> bytes:
        """Return a bundle over the statement's bytes, verified before it leaves.

        Raises TrustError for an identity or an answer that does not count, UpstreamError if a
        service does not answer.
        """
        from sigstore.dsse import Statement as Payload  # noqa: PLC0415  # slow to import
        from sigstore.oidc import IdentityError, IdentityToken  # noqa: PLC0415
        from sigstore.sign import SigningContext  # noqa: PLC0415

        config = self._config
        try:
            identity = IdentityToken(token())
        except IdentityError as exc:
            raise TrustError(f"the identity token cannot be used: {exc}") from exc
        try:
            context = SigningContext.from_trust_config(config)
            with context.signer(identity) as signer:
                bundle = signer.sign_dsse(Payload(statement.data))
        except Exception as exc:  # the library lets errors of requests, jwt and pydantic through
            raise UpstreamError(
                f"the Sigstore services did not sign ({type(exc).__name__}: {exc})",
                hint="nothing was published; are they reachable, and is the token's issuer known?",
            ) from exc
        vouched = _vouched(identity.federated_issuer)
        if (doubt := self._doubt(bundle, vouched, statement)) is not None:
            raise TrustError(
                f"what the Sigstore services signed does not verify: {doubt}",
                hint="nothing was published; do services and roots belong together?",
            )
        return bundle.to_json().encode()

    def verify(self, data: bytes, identities: Sequence[Identity]) -> Signed | Doubted:
        """Return the statement in a bundle and who signed it, or why it does not count.

        Asks nobody: the bundle carries the log's proof, and the roots are pinned.
        """
        from sigstore.models import Bundle  # noqa: PLC0415  # slow to import

        try:
            bundle = Bundle.from_json(data)
        except Exception as exc:  # noqa: BLE001  # hostile bytes find their own exceptions
            return Doubted(f"not a Sigstore bundle ({type(exc).__name__})")
        said = "nobody's signature counts here"
        for identity in identities:
            doubt = self._doubt(bundle, _named(identity), None)
            if doubt is None:
                return self._statement(bundle, identity)
            said = doubt
        return Doubted(said)

    @cached_property
    def _config(self) -> ClientTrustConfig:
        from sigstore.models import ClientTrustConfig  # noqa: PLC0415  # slow to import

        try:
            return ClientTrustConfig.from_json(self.trust_config.decode())
        except Exception as exc:  # the library documents no closed set of errors
            raise TrustError(
                f"the Sigstore trust configuration cannot be used ({type(exc).__name__})",
                hint="give a ClientTrustConfig: trusted root and signing configuration in one",
            ) from exc

    @cached_property
    def _verifier(self) -> Verifier:
        from sigstore.verify import Verifier  # noqa: PLC0415  # slow to import

        try:
            return Verifier(trusted_root=self._config.trusted_root)
        except Exception as exc:  # the library documents no closed set of errors
            raise TrustError(
                f"the Sigstore roots cannot be used ({exc})",
                hint="they name a certificate authority, its log and a signature log",
            ) from exc

    def _doubt(self, bundle: Bundle, wanted: Any, statement: Statement | None) -> str | None:  # noqa: ANN401  # a policy of the library imported lazily
        verifier = self._verifier  # outside: roots that cannot be used are no doubt but an error
        try:
            kind, payload = verifier.verify_dsse(bundle, wanted)
        except Exception as exc:  # noqa: BLE001  # hostile bytes find their own exceptions
            return str(exc) or type(exc).__name__
        if kind != PAYLOAD_TYPE:
            return f"payload type {kind!r} is not in-toto's"
        if statement is not None and payload != statement.data:
            return "other bytes were signed"
        return None

    def _statement(self, bundle: Bundle, identity: Identity) -> Signed | Doubted:
        _, payload = self._verifier.verify_dsse(bundle, _named(identity))
        try:
            return Signed(Statement.parse(payload), identity)
        except InvalidInput as exc:
            return Doubted(exc.message)


def _vouched(issuer: str) -> Any:  # noqa: ANN401  # a policy of the library imported lazily
    """Return a policy: this issuer vouched, in the old spelling of the certificate or the new."""
    from sigstore.verify import policy  # noqa: PLC0415  # slow to import

    return policy.AnyOf([policy.OIDCIssuer(issuer), policy.OIDCIssuerV2(issuer)])


def _named(identity: Identity) -> Any:  # noqa: ANN401  # as above
    from sigstore.verify import policy  # noqa: PLC0415  # slow to import

    return policy.AllOf([policy.Identity(identity=identity.name), _vouched(identity.issuer)])

"""One page per kernel, for people: what is published, and why what is not was denied.

HTML for browsers, the same as JSON for programs. Everything on it is escaped; it runs no script.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from kgate_core.clock import write_time
from kgate_core.kernel import RepoType
from kgate_mirror_server.inventory import means
from kgate_mirror_server.serve.lookup import parse_ref
from kgate_mirror_server.serve.podapi import told, withheld_from
from kgate_mirror_server.serve.wire import Answer, error, json_answer

if TYPE_CHECKING:
    from kgate_core.kernel import KernelRef
    from kgate_mirror_server.ports import Denial
    from kgate_mirror_server.serve.lookup import Visible
    from kgate_mirror_server.serve.wire import Request

SCHEMA = "kgate.dev/kernel/v1"
_HEADERS = (
    (b"content-type", b"text/html; charset=utf-8"),
    (b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'"),
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-cache"),
)
_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem}"
    "table{border-collapse:collapse;width:100%}td,th{border-bottom:1px solid #ccc;padding:.3rem;"
    "text-align:left;vertical-align:top}code{font-size:.9em;word-break:break-all}"
    ".no{color:#a00}.yes{color:#060}"
)


def kernel_page(request: Request, org: str, name: str, visible: Visible) -> Answer:
    """Answer `/k/{org}/{name}`."""
    ref = parse_ref(org, name)
    if ref is None:
        return error(404, "this is not the name of a kernel")
    document = _document(ref, visible)
    found = any(document[part] for part in ("published", "denied", "withheld"))
    status = 200 if found else 404
    if "text/html" not in (request.header(b"accept") or ""):
        return json_answer(document, (b"cache-control", b"no-cache"), status=status)
    return Answer(status, _html(ref, document).encode("utf-8"), _HEADERS)


def _document(ref: KernelRef, visible: Visible) -> dict[str, Any]:
    repo = visible.repo(ref, RepoType.KERNEL) or visible.repo(ref, RepoType.MODEL)
    denials = told(visible, str(ref))
    published = []
    if repo is not None:
        for view in repo.revisions.values():
            versions = [
                f"v{number}" for number, served in repo.branches.items() if served == view.served
            ]
            published += [
                {
                    "revision": str(view.served),
                    "upstream": str(view.upstream),
                    "versions": versions,
                    "variant": variant.item.variant,
                    "manifest": str(variant.item.manifest),
                    "size": sum(file.size for file in variant.item.files),
                    "publishedAt": write_time(view.published_at),
                    "validUntil": write_time(variant.proof.valid_until),
                    "deniedSince": [
                        _denied(denial)
                        for denial in denials
                        if denial.repo_type is repo.repo_type
                        and denial.variant == variant.item.variant
                        and denial.denied_at >= view.published_at
                        and means(denial, view.upstream, variant.item.manifest)
                    ],
                }
                for variant in view.variants.values()
            ]
    return {
        "schema": SCHEMA,
        "repo": str(ref),
        "lane": visible.name,
        "published": published,
        "denied": [_denied(denial) for denial in denials],
        "withheld": [
            {
                "type": str(item.repo_type),
                "revision": str(item.served),
                "variant": item.variant,
                "revoked": item.revoked,
                "reason": item.reason,
            }
            for item in withheld_from(visible, str(ref))
        ],
    }


def _denied(denial: Denial) -> dict[str, Any]:
    return {
        "type": str(denial.repo_type),
        "upstream": str(denial.upstream),
        "version": None if denial.version is None else f"v{denial.version}",
        "variant": denial.variant,
        "deniedAt": write_time(denial.denied_at),
        "reasons": list(denial.reasons),
    }


def _html(ref: KernelRef, document: dict[str, Any]) -> str:
    rows = [
        _row(
            (item["variant"], *_state(item["deniedSince"])),
            f"{', '.join(item['versions']) or 'by commit'} · {item['revision']}",
            f"{item['manifest']} · {item['size']} bytes · counts until {item['validUntil']}",
        )
        for item in document["published"]
    ]
    rows += [
        _row(
            (item["variant"], "no", "denied"),
            f"{item['version'] or 'by commit'} · {item['upstream']}",
            "\n".join(
                f"{reason.get('rule', '?')}: {reason.get('seen', '')} {reason.get('hint', '')}"
                for reason in item["reasons"]
            ),
        )
        for item in document["denied"]
    ]
    rows += [
        _row(
            (item["variant"], "no", "revoked" if item["revoked"] else "withheld"),
            item["revision"],
            item["reason"],
        )
        for item in document["withheld"]
    ]
    if not rows:
        rows = ["<tr><td colspan=4>Nothing of this name is published in this lane.</td></tr>"]
    title = f"{ref} in lane {document['lane']}"
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(title)} — kgate</title>"
        f"<style>{_STYLE}</style><h1>{escape(str(ref))}</h1><p>Lane {escape(document['lane'])}</p>"
        "<table><tr><th>Variant<th>State<th>Version and commit<th>Details</tr>"
        f"{''.join(rows)}</table>"
    )


def _state(denied_since: list[dict[str, Any]]) -> tuple[str, str]:
    if not denied_since:
        return "yes", "published"
    return "no", "published, but denied by today's policy: served until it is revoked"


def _row(state: tuple[str, str, str], where: str, details: str) -> str:
    variant, colour, word = state
    return (
        f"<tr><td><code>{escape(variant)}</code><td class={colour}>{escape(word)}"
        f"<td><code>{escape(where)}</code><td>{escape(details).replace(chr(10), '<br>')}</tr>"
    )

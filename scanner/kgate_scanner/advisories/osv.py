"""OSV records, with the part that kgate's own kernel advisories add.

Format: the OSV schema 1.x of the Open Source Security Foundation. kgate reads packages of PyPI
and kernel repositories. What OSV has no field for stands under
`affected[].ecosystem_specific.kgate`: `files`, `images` and `manifests` (digests), `buildIds`,
`commits`, and `toolkits` (objects with `name`, and `introduced`, `fixed` or `last`). See
docs/advisories.md.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from kgate_core.digest import Digest
from kgate_core.errors import InvalidInput
from kgate_core.kernel import KernelRef
from kgate_scanner.advisories import fields
from kgate_scanner.advisories.model import Advisory, Kind, Target
from kgate_scanner.advisories.purls import project, read_purl
from kgate_scanner.advisories.severities import severity_of_vector, worst
from kgate_scanner.advisories.versions import Range, parse_version

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kgate_core.evidence import Severity

OWN: Final = "kgate"
"""The ecosystem of kernel repositories, and the name of kgate's own part."""
_OWN_FIELDS: Final = {"files", "images", "manifests", "buildIds", "commits", "toolkits"}
_TOOLKITS: Final = frozenset({"cuda", "rocm"})
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_BUILD_ID: Final = re.compile(r"[0-9a-f]{8,128}")
_HUB: Final = re.compile(r"https?://[^/]+/(?:kernels/)?([^/]+/[^/]+?)(?:\.git)?/?")


def read_osv(value: Mapping[str, Any], *, what: str) -> Advisory:
    """Return one record; raises InvalidInput if it, or kgate's own part of it, is malformed."""
    name = fields.required(value, "id", what=what)
    what = f"{what} ({name})"
    targets: list[Target] = []
    for affected in fields.items(value, "affected"):
        targets += _targets(affected, what)
    text = "\n".join(filter(None, (fields.text(value, "summary"), fields.text(value, "details"))))
    return Advisory(
        name,
        fields.date(value, "modified", what=what),
        _severity(value),
        tuple(targets),
        fields.texts(value, "aliases"),
        text,
        bool(fields.text(value, "withdrawn")),
    )


def _targets(affected: Mapping[str, Any], what: str) -> Iterator[Target]:
    package = fields.mapping(affected, "package")
    named = read_purl(fields.text(package, "purl"))
    ecosystem, name = fields.text(package, "ecosystem"), fields.text(package, "name")
    own = fields.mapping(fields.mapping(affected, "ecosystem_specific"), OWN)
    yield from _own_targets(own, what)
    versions = frozenset(fields.texts(affected, "versions"))
    if ecosystem.partition(":")[0].lower() == "pypi" or (named and named.kind is Kind.PACKAGE):
        wanted = named.name if named and named.kind is Kind.PACKAGE else project(name)
        yield _package(wanted, affected, versions)
        return
    if ecosystem.lower() == OWN or (named and named.kind is Kind.REPO):
        try:
            repo = named.name if named else str(KernelRef.parse(name)).lower()
        except InvalidInput as exc:
            raise InvalidInput(f"{what}: {exc.message}") from exc
        yield from _repository(repo, affected, versions | _commits(own, what))
        return
    for item in fields.items(affected, "ranges"):
        found = _HUB.fullmatch(fields.text(item, "repo"))
        if found and fields.text(item, "type") == "GIT" and "huggingface" in item["repo"]:
            yield from _repository(found[1].lower(), affected, versions)
            return


def _package(name: str, affected: Mapping[str, Any], versions: frozenset[str]) -> Target:
    ranges: list[Range] = []
    unparsed: list[str] = []
    for item in fields.items(affected, "ranges"):
        if fields.text(item, "type") in {"ECOSYSTEM", "SEMVER"}:
            for found in _ranges(item):
                if isinstance(found, Range):
                    ranges.append(found)
                else:
                    unparsed.append(found)
    every = not (versions or ranges or unparsed)
    return Target(Kind.PACKAGE, name, versions, tuple(ranges), tuple(unparsed), every=every)


def _ranges(item: Mapping[str, Any]) -> Iterator[Range | str]:
    """Yield the spans between events, or the text of an event that is no version."""
    start: tuple[int, ...] | None = None
    is_open = False
    for event in fields.items(item, "events"):
        kind = next((key for key in ("introduced", "fixed", "last_affected") if key in event), "")
        written = fields.text(event, kind)
        if kind == "introduced":
            start, is_open = None, True
            if written != "0" and (start := parse_version(written)) is None:
                yield f"from {written}"
                is_open = False
        elif kind and is_open:
            is_open = False
            end = parse_version(written)
            if end is None:
                yield f"{kind} {written}"
            else:
                yield Range(start, end) if kind == "fixed" else Range(start, None, end)
    if is_open:
        yield Range(start)


def _repository(
    repo: str, affected: Mapping[str, Any], versions: frozenset[str]
) -> Iterator[Target]:
    commits = {text.lower() for text in versions if _COMMIT.fullmatch(text.lower())}
    unparsed = [text for text in versions if text.lower() not in commits]
    every = False
    for item in fields.items(affected, "ranges"):
        events = {key: fields.text(e, key) for e in fields.items(item, "events") for key in e}
        if not events:
            continue
        if set(events) == {"introduced"} and events["introduced"] == "0":
            every = True
            continue
        # Which commit came before which is in no document: only those that it names are known.
        if events.get("introduced", "0") != "0":
            commits.add(events["introduced"].lower())
        if "last_affected" in events:
            commits.add(events["last_affected"].lower())
        fixed = events.get("fixed", "").lower()
        yield Target(
            Kind.REPO, repo, unparsed=("a range of commits",), clean=frozenset({fixed} - {""})
        )
    if commits or unparsed or every:
        odd = tuple(sorted(unparsed))
        yield Target(Kind.REPO, repo, frozenset(commits), unparsed=odd, every=every)


def _own_targets(own: Mapping[str, Any], what: str) -> Iterator[Target]:
    if odd := sorted(set(own) - _OWN_FIELDS):
        # A field that a newer version adds may say what is affected: passing it over would be a no.
        raise InvalidInput(f"{what}: kgate has no field {odd[0]!r}; upgrade if a newer one has")
    for key, kind in (("files", Kind.FILE), ("manifests", Kind.FILE), ("images", Kind.IMAGE)):
        if key in own:
            values = frozenset(str(Digest.parse(text)) for text in _all_texts(own, key, what))
            yield Target(kind, values=values)
    if "buildIds" in own:
        ids = _all_texts(own, "buildIds", what)
        if any(_BUILD_ID.fullmatch(text) is None for text in ids):
            raise InvalidInput(f"{what}: buildIds are lower-case hex digits")
        yield Target(Kind.BUILD_ID, values=frozenset(ids))
    toolkits = own.get("toolkits", [])
    if not isinstance(toolkits, list):
        raise InvalidInput(f"{what}: toolkits should be a list")
    for item in toolkits:
        name = fields.text(item, "name").lower()
        bounds = {key: fields.text(item, key) for key in ("introduced", "fixed", "last")}
        parsed = {key: parse_version(text) for key, text in bounds.items() if text}
        if name not in _TOOLKITS or None in parsed.values() or set(item) - {"name", *bounds}:
            raise InvalidInput(f"{what}: {item!r} is no range of a toolkit (cuda, rocm)")
        span = Range(parsed.get("introduced"), parsed.get("fixed"), parsed.get("last"))
        yield Target(Kind.TOOLKIT, name, ranges=(span,))


def _all_texts(own: Mapping[str, Any], key: str, what: str) -> tuple[str, ...]:
    found = fields.texts(own, key)
    if not isinstance(own[key], list) or len(found) != len(own[key]):
        raise InvalidInput(f"{what}: {key} should be a list of texts")
    return found


def _commits(own: Mapping[str, Any], what: str) -> frozenset[str]:
    if "commits" not in own:
        return frozenset()
    found = _all_texts(own, "commits", what)
    if any(_COMMIT.fullmatch(text) is None for text in found):
        raise InvalidInput(f"{what}: commits have 40 lower-case hex digits")
    return frozenset(found)


def _severity(value: Mapping[str, Any]) -> Severity:
    found = [severity_of_vector(item.get("score")) for item in fields.items(value, "severity")]
    words = [fields.text(fields.mapping(value, "database_specific"), "severity")]
    for affected in fields.items(value, "affected"):
        found += [
            severity_of_vector(item.get("score")) for item in fields.items(affected, "severity")
        ]
        words.append(fields.text(fields.mapping(affected, "ecosystem_specific"), "severity"))
    return worst(found, *words)

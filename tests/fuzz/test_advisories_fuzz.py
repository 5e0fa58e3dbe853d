"""Documents of feeds with anything in any place: read, or refused by name; never anything else."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from kgate_core.errors import KgateError
from kgate_scanner.advisories.documents import read_document
from kgate_scanner.advisories.inventory import take_inventory
from kgate_scanner.advisories.matching import match
from tests.feedkit import (
    COMMIT,
    KERNEL,
    MANIFEST,
    VEX_AUTHOR,
    csaf,
    feed_of,
    openvex,
    osv,
    own,
    report,
)

ROUNDS = 400  # for each seed; some ten thousand documents in all take two seconds
ODD: list[Any] = [
    None,
    True,
    7,
    -1.5,
    "",
    "x",
    "vers:generic/>=|<",
    "pkg:huggingface/a",
    "sha256:",
    "All versions prior to",
    [],
    [[]],
    [None, 7, "x", {}],
    {},
    {"introduced": "x"},
    {"a": {"b": []}},
    "0" * 40,
    "9999999-01-01",
    "0001-01-01T00:00:00+23:59",
]
CDX = {
    "bomFormat": "CycloneDX",
    "metadata": {"timestamp": "2026-10-02T00:00:00Z", "authors": [{"name": VEX_AUTHOR}]},
    "components": [{"bom-ref": "k", "purl": "pkg:huggingface/kernels-community/relu"}],
    "vulnerabilities": [
        {
            "id": "A",
            "analysis": {"state": "not_affected", "justification": "code_not_present"},
            "affects": [{"ref": "k"}],
        }
    ],
}
OSV = osv(
    severity=[{"type": "CVSS_V3", "score": "CVSS:3.1/AV:L/AC:H/PR:N/UI:N/S:U/C:L/I:N/A:H"}],
    affected=[
        own(commits=[COMMIT], toolkits=[{"name": "cuda", "introduced": "1", "fixed": "13"}]),
        {
            "package": {"ecosystem": "PyPI", "name": "torch"},
            "versions": ["2.8.0"],
            "ranges": [
                {"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2.9"}]},
                {
                    "type": "GIT",
                    "repo": "https://huggingface.co/a/b",
                    "events": [{"introduced": "0"}, {"fixed": COMMIT}],
                },
            ],
        },
    ],
)
OWN_FEED = {
    "schema": "kgate.dev/advisory-feed/v1",
    "name": "f",
    "records": [OSV],
    "statements": [openvex()],
}


def spoiled(value: Any, chance: random.Random) -> Any:
    """Return a copy with one thing anywhere in it replaced, taken out or doubled."""
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        pairs = node.items() if isinstance(node, dict) else enumerate(node)
        for key, item in pairs:
            places.append((node, key))
            if isinstance(item, (dict, list)):
                walk(item)

    copy = json.loads(json.dumps(value))
    walk(copy)
    node, key = chance.choice(places)
    action = chance.randrange(4)
    if action == 0 and isinstance(node, dict):
        del node[key]
    elif action == 1 and isinstance(node, list):
        node.append(node[key])
    else:
        node[key] = chance.choice(ODD)
    return copy


@pytest.mark.parametrize("seed", [OSV, csaf(), openvex(), CDX, OWN_FEED], ids=lambda _: "")
def test_a_spoiled_document_is_read_or_refused_and_nothing_else(seed: dict[str, Any]) -> None:
    chance = random.Random(52)  # the same documents every time
    inventory = take_inventory(report(needed=["libnvjpeg.so.12"]), KERNEL)
    read = 0
    for _ in range(ROUNDS):
        document = seed
        for _ in range(chance.randrange(1, 4)):
            document = spoiled(document, chance)
        try:
            content = read_document(json.dumps(document).encode(), what="fuzz")
            match(feed_of(document), inventory, MANIFEST, [VEX_AUTHOR])
        except KgateError:
            continue
        read += not content.skipped
    assert read > ROUNDS // 10

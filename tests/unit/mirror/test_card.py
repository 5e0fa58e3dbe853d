"""What is kept of a README.md, and what a fleet's targets are."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from kgate_mirror_server.ingest.card import MAX_HEADINGS, parse_card
from kgate_mirror_server.settings.targets import Target, declared_archs, fleet_facts

CARD = b"""---
license: apache-2.0
tags: [kernel]
empty:
---
# Activation

```python
# not a heading
```

## Benchmarks ##
"""


def test_a_card_is_its_size_its_fields_and_its_headings() -> None:
    assert parse_card(CARD) == {
        "size": len(CARD),
        "fields": ["license", "tags"],
        "headings": ["Activation", "Benchmarks"],
    }


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"---\nlicense: mit\n",
        b"---\n- a list\n---\n",
        b"---\na: &x 1\nb: *x\n---\n",
        b"---\nlicense: mit\nlicense: mit\n---\n",
        b"\xff\xfe\x00",
    ],
)
def test_a_card_that_says_nothing_readable_has_no_fields(data: bytes) -> None:
    assert parse_card(data)["fields"] == []


def test_a_card_of_many_headings_is_cut() -> None:
    assert len(parse_card(b"# again\n" * 9999)["headings"]) == MAX_HEADINGS


@pytest.mark.parametrize("backend", [None, "cuda", {}, {"archs": 9}, {"archs": {"9.0": 1}}])
def test_architectures_that_are_not_declared_as_a_list_are_none(backend: object) -> None:
    assert declared_archs({"backend": backend}) == []


def test_the_fleet_is_asked_about_with_all_variants_of_a_pin() -> None:
    facts = fleet_facts([Target(torch="2.13", cuda="13.0", gpus=("sm_90",))], {"torch-cuda": {}})
    assert facts == {
        "targets": [{"torch": "2.13", "cuda": "13.0", "arch": "x86_64", "gpus": ["sm_90"]}],
        "siblings": {"torch-cuda": []},
    }
    assert fleet_facts([], {"torch-cuda": {}}) == {}


@pytest.mark.parametrize(
    "fields",
    [
        {"torch": "new"},
        {"torch": "2.13", "cuda": "13"},
        {"torch": "2.1", "cuda": "1.2", "rocm": "7.1"},
    ],
)
def test_a_target_that_is_no_machine_is_refused(fields: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        Target.model_validate(fields)

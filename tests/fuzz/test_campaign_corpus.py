"""The corpus that fuzz campaigns left: what reached a new place once is read by every run."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.fuzz.campaign import NAMES, ONE_INPUT_SECONDS
from tests.fuzz.readers import READERS

CORPUS = Path(__file__).parent / "corpus"


def test_the_campaign_knows_every_reader() -> None:
    assert set(NAMES) == set(READERS)
    assert {path.name for path in CORPUS.iterdir()} == set(READERS)


@pytest.mark.parametrize("name", NAMES)
def test_no_input_of_the_corpus_raises_or_hangs(name: str) -> None:
    inputs = sorted((CORPUS / name).iterdir())
    assert len(inputs) > 5
    for path in inputs:
        started = time.monotonic()
        READERS[name].read(path.read_bytes())
        assert time.monotonic() - started < ONE_INPUT_SECONDS, path.name

from __future__ import annotations

from tests.denialkit import transcript, written


def test_the_transcript_of_a_denial_in_the_docs_is_what_a_mirror_says() -> None:
    said = transcript()

    assert said == written(), "run: python -m tests.denialkit"
    assert "[]" in said
    assert said.count("no-bytecode") == 2
    assert "kgate mirror is read-only" in said
    assert "403" in said

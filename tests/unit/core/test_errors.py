from __future__ import annotations

import pytest

from kgate_core import errors
from kgate_core.errors import KgateError


def test_every_error_has_its_own_stable_code() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    codes = {kind.code for kind in kinds if issubclass(kind, KgateError)}
    assert codes == {
        "error",
        "invalid-input",
        "integrity",
        "upstream",
        "not-found",
        "trust",
        "conflict",
    }


def test_an_error_says_what_happened_and_what_to_do() -> None:
    with pytest.raises(KgateError, match="the disk is full") as caught:
        raise errors.IntegrityError("the disk is full", hint="make room")
    assert (caught.value.message, caught.value.hint) == ("the disk is full", "make room")
    assert KgateError("x").hint == ""

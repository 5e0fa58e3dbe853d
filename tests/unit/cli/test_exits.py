from __future__ import annotations

import pytest

from kgate_cli import exits
from kgate_core import errors
from kgate_core.errors import KgateError


def family(root: type[KgateError] = KgateError) -> set[type[KgateError]]:
    return {root}.union(*(family(child) for child in root.__subclasses__()))


def test_every_error_class_has_its_own_row() -> None:
    own = {kind for kind in family() if kind.__module__ == errors.__name__}
    assert own == set(exits.CODES)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.InvalidInput("x"), 4),
        (errors.IntegrityError("x"), 1),
        (errors.UpstreamError("x"), 3),
        (errors.NotFound("x"), 1),
        (errors.TrustError("x"), 4),
        (errors.Conflict("x"), 1),
        (KgateError("x"), 4),
    ],
)
def test_the_codes_are_those_of_the_contract(error: KgateError, code: int) -> None:
    assert exits.exit_code(error) == code


def test_a_new_kind_of_error_gets_the_code_of_its_nearest_ancestor() -> None:
    class Slow(errors.UpstreamError):
        pass

    assert exits.exit_code(Slow("x")) == exits.UNREACHABLE


def test_no_answer_weighs_more_than_a_no() -> None:
    assert exits.worst([], refused=False) == exits.YES
    assert exits.worst([], refused=True) == exits.NO
    assert exits.worst([errors.UpstreamError("x")], refused=True) == exits.UNREACHABLE
    assert exits.worst([errors.TrustError("x"), errors.UpstreamError("x")], refused=True) == 4

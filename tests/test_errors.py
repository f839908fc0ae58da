from __future__ import annotations

import pickle

import pytest

from tlcore.errors import GateError, PluginError, RetryableError, TlcoreError, UnknownName, UserError

ERRORS: list[TlcoreError] = [
    UserError("no such folder", where="photos", choices=["a", "b"], hint="tlcore run --help"),
    RetryableError("the hub did not answer"),
    PluginError("gave NaN", distribution="theirs", where="scorer x"),
    GateError("differs"),
    UnknownName("scorer", "logmee", ["logme", "leep"], where="run.toml"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_errors_survive_a_process_boundary(error: TlcoreError) -> None:
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - made one line above
    assert type(again) is type(error) and str(again) == str(error) and vars(again) == vars(error)


def test_an_error_says_what_where_the_choices_and_the_next_command() -> None:
    assert str(ERRORS[0]) == "photos: no such folder\n  known: a, b\n  next: tlcore run --help"


def test_an_unknown_name_offers_the_nearest() -> None:
    assert 'did you mean "logme"?' in str(ERRORS[4])
    assert "did you mean" not in str(UnknownName("scorer", "zzz", ["logme"]))


def test_only_the_callers_mistakes_exit_with_2() -> None:
    assert [error.exit_code for error in ERRORS] == [2, 1, 1, 1, 2]

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlcore.config import SelectionConfig, parse_config
from tlcore.errors import UserError
from tlcore.selection.constraints import (
    constrain,
    none_left,
    over_latency,
    reason_to_remove,
    teachers,
    with_latencies,
)
from tlcore.values import Candidate, Preprocess, Ranked, Ranking

SMALL = Preprocess(height=32, width=32)


def candidate(name: str = "one", **fields: object) -> Candidate:
    given = {"params": 2_200_000, "gmacs": 0.3, "licence": "Apache-2.0", "preprocess": SMALL} | fields
    return Candidate.model_validate({"name": name, "source": {}, "architecture": "resnet18"} | given)


def limits(**given: object) -> SelectionConfig:
    return SelectionConfig.model_validate(given)


def test_without_limits_everybody_who_can_takes_part() -> None:
    skipped = candidate("b", skipped="no weights")
    kept, removed = constrain([candidate("a"), skipped, candidate("c", params=None, gmacs=None)], limits())
    assert [one.name for one in kept] == ["a", "c"] and removed == [(skipped, "no weights")]


def test_a_reason_says_the_cost_and_the_limit() -> None:
    said = reason_to_remove(candidate(), limits(max_params=1))
    assert said == "2.2 M parameters, over the limit of 1 M"
    said = reason_to_remove(candidate(gmacs=4.1235), limits(max_gmacs=0.5))
    assert said == "4.1 GMACs an image, over the limit of 0.5"
    assert over_latency(12.34, limits(max_latency_ms=5)) == "12 ms for one image, over the limit of 5 ms"
    said = reason_to_remove(candidate(licence="CC-BY-NC-4.0"), limits(licences=["MIT"]))
    assert said == "its licence CC-BY-NC-4.0 is not among those allowed"


def test_all_limits_that_are_broken_are_named() -> None:
    said = reason_to_remove(candidate(), limits(max_params=1, max_gmacs=0.1, licences=["MIT"]))
    assert said is not None and said.count(";") == 2


@given(value=st.floats(1e-3, 1e4), share=st.floats(1e-6, 1, exclude_max=True))
def test_a_reason_never_shows_a_cost_that_looks_allowed(value: float, share: float) -> None:
    bound = limits(max_gmacs=value * share)
    said = reason_to_remove(candidate(gmacs=value), bound)
    if value > (bound.max_gmacs or 0):
        assert said is not None and float(said.split()[0].replace(",", "")) > (bound.max_gmacs or 0)
    else:
        assert said is None


@pytest.mark.parametrize("value", [1.0, 2.2])
def test_a_limit_itself_is_allowed(value: float) -> None:
    exact = candidate(params=round(value * 1e6), gmacs=value)
    bound = limits(max_params=value, max_gmacs=value, max_latency_ms=value)
    assert constrain([exact], bound)[0] == [exact] and over_latency(value, bound) is None


@pytest.mark.parametrize(
    ("licence", "allowed", "passes"),
    [
        ("apache-2.0", ["Apache-2.0"], True),
        ("Apache-2.0", ["apache-2.0"], True),
        ("CC-BY-4.0", ["cc-by-*"], True),
        ("CC-BY-NC-4.0", ["MIT", "apache*"], False),
        ("bsd-3-clause", ["BSD-?-Clause"], True),
        ("unknown", ["*"], False),
        ("unknown", ["MIT", "unknown"], True),
        ("Unknown", ["u*"], False),
        ("unstated", ["*"], False),
        ("NOASSERTION", ["noassertion"], True),
        ("MIT", ["*"], True),
        ("MIT", [], True),
    ],
)
def test_licences_are_compared_without_case_and_unknown_passes_only_by_name(
    licence: str, allowed: list[str], passes: bool
) -> None:
    kept, _ = constrain([candidate(licence=licence)], limits(licences=allowed))
    assert bool(kept) is passes


@pytest.mark.parametrize(
    ("fields", "bound", "said"),
    [
        ({"params": None}, {"max_params": 5}, "number of parameters cannot be told"),
        ({"gmacs": None}, {"max_gmacs": 5}, "work for an image cannot be told"),
        ({"params": None, "gmacs": None}, {"max_params": 1, "max_gmacs": 1}, "and its work"),
    ],
)
def test_an_unknown_cost_does_not_pass_a_limit(
    fields: dict[str, object], bound: dict[str, object], said: str
) -> None:
    kept, removed = constrain([candidate(**fields)], limits(**bound))
    assert not kept and said in removed[0][1]


def test_a_limit_speaks_before_a_missing_download_and_not_before_what_is_unknown() -> None:
    absent = candidate("absent", skipped="its weights are not in the local hub cache")
    sound = candidate("sound", params=None, gmacs=None, preprocess=None, skipped="made for audio")
    _, removed = constrain([absent, sound], limits(max_params=1))
    assert [reason for _, reason in removed] == ["2.2 M parameters, over the limit of 1 M", "made for audio"]


def test_where_nobody_is_left_every_reason_and_the_way_on_are_named() -> None:
    bound = limits(max_params=1, max_gmacs=0.1, licences=["Apach-2.0"])
    some = [candidate(f"m{number}") for number in range(9)]
    kept, removed = constrain([*some, candidate("big", params=90_000_000)], bound)
    error = none_left(removed, bound)
    assert not kept and "m0, m1, m2, m3, m4 and 4 more: 2.2 M parameters" in error.what
    assert "big: 90 M parameters" in error.what
    assert "--max-params 2.2" in error.hint and "--max-gmacs 0.3" in error.hint
    assert "licences here: Apache-2.0" in error.hint and 'did you mean "Apache-2.0"' in error.hint
    assert error.exit_code == 2


def test_the_way_on_is_one_that_works() -> None:
    bound = limits(max_params=1)
    some = [candidate(params=params) for params in (2_223_872, 11_176_512)]
    hint = none_left(constrain(some, bound)[1], bound).hint
    wide = limits(max_params=float(hint.split("--max-params ")[1].split()[0]))
    assert [one.params for one in constrain(some, wide)[0]] == [2_223_872]


def test_limits_that_nobody_meets_together_are_loosened_one_by_one() -> None:
    some = [candidate("free", licence="MIT"), candidate("light", params=400_000, licence="unstated")]
    hint = none_left(*_removed(some, limits(max_params=1, licences=["MIT"]))).hint
    assert "--max-params 2.2 lets the smallest in" in hint and "licences here: unstated" in hint


def test_without_a_broken_limit_the_way_on_is_another_model() -> None:
    error = none_left(*_removed([candidate(skipped="made for audio")], limits(max_params=9)))
    assert error.hint == "name other models with --models"


def _removed(
    some: list[Candidate], bound: SelectionConfig
) -> tuple[list[tuple[Candidate, str]], SelectionConfig]:
    kept, removed = constrain(some, bound)
    assert not kept
    return removed, bound


def test_an_error_about_a_thousand_candidates_stays_readable() -> None:
    bound = limits(max_params=1)
    some = [candidate(f"m{number}", params=2_000_000 + 12_345 * number) for number in range(1000)]
    error = none_left(constrain(some, bound)[1], bound)
    assert len(str(error)) < 2000 and "models for other reasons" in error.what


def test_a_measured_latency_is_shown_beside_its_candidate() -> None:
    entries = tuple(Ranked(candidate=name, rank=None, skipped="slow") for name in "ab")
    shown = with_latencies(Ranking(entries=entries, scorers=("s",), images=1), {"b": 7.5})
    assert [entry.latency_ms for entry in shown.entries] == [None, 7.5]


@pytest.mark.parametrize("name", ["max_params", "max_gmacs", "max_latency_ms"])
@pytest.mark.parametrize("value", [-1, 0, float("nan"), "many"])
def test_a_limit_that_is_no_positive_number_is_refused(name: str, value: object) -> None:
    document = {"data": {"source": "x"}, "models": ["local:zoo"], "selection": {name: value}}
    with pytest.raises(UserError, match=rf"selection\.{name}"):
        parse_config(document)


def test_those_that_only_cost_keeps_out_may_teach_the_best_known_first() -> None:
    bound = limits(max_params=1, max_gmacs=0.1, licences=["Apache-2.0"])
    found = [
        candidate("plain", prior=70.0),
        candidate("best", prior=80.0),
        candidate("closed", prior=90.0, licence="CC-BY-NC-4.0"),
        candidate("absent", prior=90.0, skipped="no weights"),
        candidate("within", params=500_000, gmacs=0.05),
    ]
    kept, removed = constrain(found, bound)
    assert [one.name for one in kept] == ["within"]
    assert [one.name for one in teachers(removed, bound)] == ["best", "plain"]


def test_no_more_than_the_shortlist_holds_may_teach_and_without_a_prior_the_largest_come_first() -> None:
    bound = limits(max_params=1, shortlist=2)
    _, removed = constrain([candidate(f"{n}", params=n * 1_000_000) for n in (3, 9, 5, 7)], bound)
    assert [one.name for one in teachers(removed, bound)] == ["9", "7"]
    assert [one.name for one in teachers(removed, bound, most=1)] == ["9"]

"""The do-no-harm gate and the collapse that ends a training early."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlcore.evaluation.gate import AGREEMENT, SHARE, collapse, collapsed, verdict
from tlcore.evaluation.label_free import batch_nuclear_norm, top_share
from tlcore.values import AccuracyEstimates, Adapted

SOURCE_ONLY = Adapted(
    strategy="source-only", validator_score=0.5, validators={"im": 1.0, "bnm": 0.6}, source_validation_accuracy=0.9,
    nuclear_norm=0.2, top_share=0.3, cluster_agreement=0.5,
)  # fmt: skip


def adapted(**parts: object) -> Adapted:
    better = {
        "strategy": "mcc",
        "validator_score": 0.7,
        "validators": {"im": 1.2, "bnm": 0.7},
        "top_share": 0.25,
        "cluster_agreement": 0.6,
    }
    return SOURCE_ONLY.model_copy(update={**better, **parts})


def test_what_every_validator_prefers_is_kept() -> None:
    kept, why = verdict(SOURCE_ONLY, adapted(), floor=0.05, classes=10)
    assert kept and "im 1.200 above 1.000" in why and "agreement with clusters 0.600 above 0.500" in why


@pytest.mark.parametrize(
    "scores", [{"im": 0.9, "bnm": 0.7}, {"im": 1.2, "bnm": 0.6}, {"im": float("nan"), "bnm": 0.7}]
)
def test_one_validator_against_it_is_enough(scores: dict[str, float]) -> None:
    kept, why = verdict(SOURCE_ONLY, adapted(validators=scores), floor=0.05, classes=10)
    assert not kept and "is not above source-only's" in why


@pytest.mark.parametrize("agreement", [None, 0.0, 0.5, 0.509, float("nan")])
def test_confidence_alone_is_not_enough(agreement: float | None) -> None:
    kept, why = verdict(SOURCE_ONLY, adapted(cluster_agreement=agreement), floor=0.05, classes=10)
    assert not kept and "clusters" in why
    assert verdict(SOURCE_ONLY, adapted(cluster_agreement=0.5 + AGREEMENT), floor=0.05, classes=10)[0]


@pytest.mark.parametrize(("classes", "growth"), [(2, 1 / 6), (3, 1 / 9), (7, SHARE), (1000, SHARE)])
def test_the_most_frequent_class_may_grow_a_little(classes: int, growth: float) -> None:
    assert verdict(SOURCE_ONLY, adapted(top_share=0.3 + growth), floor=0.05, classes=classes)[0]
    kept, why = verdict(SOURCE_ONLY, adapted(top_share=0.31 + growth), floor=0.05, classes=classes)
    assert not kept and "one class takes" in why


def expecting(low: float, high: float) -> AccuracyEstimates:
    middle = (low + high) / 2
    return AccuracyEstimates(
        atc_confidence=low,
        atc_entropy=middle,
        difference_of_confidences=high,
        low=low,
        high=high,
        temperature=1,
    )


@pytest.mark.parametrize(("high", "kept"), [(0.9, True), (0.46, True), (0.44, False), (0.05, False)])
def test_an_expected_accuracy_far_below_source_only_is_refused(high: float, kept: bool) -> None:
    base = SOURCE_ONLY.model_copy(update={"estimates": expecting(0.6, 0.7)})
    found, why = verdict(base, adapted(estimates=expecting(0.01, high)), floor=0.05, classes=10)
    assert found == kept and ("expected target accuracy" in why) != kept


def test_source_accuracy_below_the_floor_is_named() -> None:
    kept, why = verdict(SOURCE_ONLY, adapted(source_validation_accuracy=0.84), floor=0.05, classes=10)
    assert not kept and "84.0 %" in why and "5 points below" in why
    assert verdict(SOURCE_ONLY, adapted(source_validation_accuracy=0.85), floor=0.05, classes=10)[0]


def test_a_network_for_the_target_alone_is_not_asked_for_source_accuracy() -> None:
    alone = adapted(source_validation_accuracy=0.1, target_only=True)
    kept, why = verdict(SOURCE_ONLY, alone, floor=0.05, classes=10)
    assert kept and "for the target alone" in why


def test_a_class_that_took_over_is_never_kept() -> None:
    kept, why = verdict(SOURCE_ONLY, adapted(top_share=0.7, nuclear_norm=0.1), floor=0.05, classes=10)
    assert not kept and "one class takes 70.0 % of its target predictions" in why


def test_of_two_classes_a_collapse_within_the_growth_is_refused_too() -> None:
    base = SOURCE_ONLY.model_copy(update={"top_share": 0.9})
    kept, why = verdict(base, adapted(top_share=0.99, nuclear_norm=0.1), floor=0.05, classes=2)
    assert not kept and "collapse: one class takes 99.0 %" in why
    assert verdict(base, adapted(top_share=0.99), floor=0.05, classes=2)[0]


def seen(share: float, norm: float) -> Adapted:
    return SOURCE_ONLY.model_copy(update={"top_share": share, "nuclear_norm": norm})


@given(st.floats(0.1, 1), st.floats(0.1, 1), st.floats(0.01, 1), st.floats(0.01, 1))
def test_nobody_collapses_against_itself(share: float, base: float, norm: float, base_norm: float) -> None:
    assert not collapsed(seen(share, norm), seen(share, norm))
    found = collapsed(seen(base, base_norm), seen(share, norm))
    assert found == ((2 * share - 1 > base) and norm < base_norm)


def test_a_collapse_is_told_in_numbers() -> None:
    rng = np.random.default_rng(0)
    fallen = np.full((200, 4), 0.02)
    fallen[:, 2] = 0.94
    fine, gone = (
        seen(top_share(p), batch_nuclear_norm(p)) for p in (rng.dirichlet(np.full(4, 0.2), 200), fallen)
    )
    assert collapse(fine, fine) == ""
    told = collapse(fine, gone)
    assert told.startswith("collapse: one class takes 100.0 % of the target images") and "BNM fell" in told

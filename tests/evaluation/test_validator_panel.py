"""Several validators as one number."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlcore.errors import PluginError, UserError
from tlcore.evaluation.panel import Panel
from tlcore.protocols import Card, Validator, ValidatorOutputs

OUTPUTS = ValidatorOutputs(
    target_probabilities=np.full((4, 2), 0.5), source_probabilities=np.full((2, 2), 0.5), source_labels=np.zeros(2, np.int64),
    target_features=np.zeros((4, 3), np.float32), source_features=np.zeros((2, 3), np.float32),
)  # fmt: skip


class Fixed(Validator):
    card: ClassVar[Card] = Card(name="fixed", summary="x", reference="x")
    value: float
    low: float = 0.0
    high: float = 1.0

    def score(self, outputs: ValidatorOutputs) -> float:
        return self.value

    def bounds(self, outputs: ValidatorOutputs) -> tuple[float, float] | None:
        return None if self.high < self.low else (self.low, self.high)


class Other(Fixed):
    card: ClassVar[Card] = Card(name="other", summary="x", reference="x")


@given(st.floats(0, 1), st.floats(0, 1), st.floats(-5, 5), st.floats(0.1, 10))
def test_the_score_of_several_is_the_mean_place_between_their_bounds(
    a: float, b: float, low: float, span: float
) -> None:
    panel = Panel([Fixed(value=a), Other(value=low + b * span, low=low, high=low + span)])
    scores = panel.scores(OUTPUTS)
    assert list(scores) == ["fixed", "other"]
    assert panel.combined(scores, OUTPUTS) == pytest.approx((a + b) / 2, abs=1e-9)


def test_one_validator_counts_as_it_is_with_or_without_bounds() -> None:
    panel = Panel([Fixed(value=-7.5, low=1, high=0)])
    assert panel.combined(panel.scores(OUTPUTS), OUTPUTS) == -7.5


def test_one_without_bounds_cannot_stand_among_several() -> None:
    panel = Panel([Fixed(value=0.2), Other(value=3, low=1, high=0)])
    with pytest.raises(UserError, match='"other" has no bounds'):
        panel.combined(panel.scores(OUTPUTS), OUTPUTS)


def test_a_score_that_is_not_finite_is_the_validators_fault() -> None:
    with pytest.raises(PluginError, match='"fixed" gave nan'):
        Panel([Fixed(value=float("nan"))]).scores(OUTPUTS)


def test_a_validator_counts_once() -> None:
    with pytest.raises(UserError, match="named twice"):
        Panel([Fixed(value=0), Fixed(value=1)])

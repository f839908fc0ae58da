from __future__ import annotations

import pytest
from few_shots import check_few_shots
from pydantic import ValidationError

from tlcore_tuners.ridge import Ridge


@pytest.mark.parametrize("tuner", [Ridge(), Ridge(penalties=7)])
@pytest.mark.parametrize("shots", [1, 5])
def test_a_few_images_a_class_make_a_head_that_knows_them_and_names_no_absent_class(
    tuner: Ridge, shots: int
) -> None:
    check_few_shots(tuner, shots)


def test_the_card_says_what_it_needs_and_promises() -> None:
    assert Ridge.card.name == "ridge" and Ridge.card.traits == {"target-labels", "regression", "multi-label"}


def test_options_out_of_bounds_are_refused() -> None:
    with pytest.raises(ValidationError):
        Ridge.model_validate({next(iter(Ridge.model_fields)): 0})

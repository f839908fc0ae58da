from __future__ import annotations

import pytest
from few_shots import check_few_shots
from pydantic import ValidationError

from tlcore_tuners.knn import KNearestNeighbours


@pytest.mark.parametrize("tuner", [KNearestNeighbours(), KNearestNeighbours(neighbours=3)])
@pytest.mark.parametrize("shots", [1, 5])
def test_a_few_images_a_class_make_a_head_that_knows_them_and_names_no_absent_class(
    tuner: KNearestNeighbours, shots: int
) -> None:
    check_few_shots(tuner, shots)


def test_the_card_says_what_it_needs_and_promises() -> None:
    assert KNearestNeighbours.card.name == "knn" and KNearestNeighbours.card.traits == {"target-labels"}


def test_options_out_of_bounds_are_refused() -> None:
    with pytest.raises(ValidationError):
        KNearestNeighbours.model_validate({next(iter(KNearestNeighbours.model_fields)): 0})

from __future__ import annotations

import numpy as np
import pytest

from tlcore.errors import GateError, UserError
from tlcore.export.output_parity import check_answers, enforce_answers, unit_of


def names(count: int) -> list[str]:
    return [f"i{k}" for k in range(count)]


def test_numbers_are_compared_in_their_deviation() -> None:
    model = np.array([[100.0], [300.0], [500.0]])
    file = model + np.array([[0.0], [0.1], [0.0]])
    found = check_answers(model, file, names(3), "regression")
    assert found.max_probability_difference == pytest.approx(0.1 / model.std())
    assert found.passed and found.worst == ("i1",) and found.accuracy_model is None
    wide = check_answers(model, model + 1.0, names(3), "regression")
    assert not wide.passed
    with pytest.raises(
        GateError, match=r"3 of 3 images differ by more than 0.001 deviations(.|\n)*i0: model 100, file 101"
    ):
        enforce_answers(wide, model, model + 1.0, names(3), where="model.onnx")
    enforce_answers(found, model, file, names(3), where="model.onnx")


def test_rounding_of_large_numbers_that_hardly_differ_is_no_difference() -> None:
    model = np.float32(1e6) + np.arange(4, dtype=np.float32)[:, None] / 16
    file = np.nextafter(model, np.float32(2e6), dtype=np.float32)
    assert check_answers(model, file, names(4), "regression").passed
    assert unit_of(np.zeros((3, 1))) == 1 and unit_of(np.full((2, 1), np.nan)) == 1


def test_tags_must_agree_at_a_half_unless_they_are_too_near() -> None:
    model = np.array([[0.2, 0.9], [0.5002, 0.1]])
    file = np.array([[0.2, 0.9], [0.4998, 0.1]])
    found = check_answers(model, file, names(2), "multi-label")
    assert found.passed and found.ties == 1 and found.top1_agreement == 1
    other = np.array([[0.2, 0.4], [0.5, 0.1]])
    wrong = check_answers(model, other, names(2), "multi-label")
    assert not wrong.passed and wrong.top1_agreement == pytest.approx(2 / 3)
    with pytest.raises(GateError, match="same tags at 0.5 in 66.67%"):
        enforce_answers(wrong, model, other, names(2), where="model.onnx")


@pytest.mark.parametrize("task", ["regression", "multi-label"])
def test_an_answer_that_is_not_finite_never_passes(task: str) -> None:
    model = np.array([[0.2], [0.7]])
    broken = np.array([[0.2], [np.nan]])
    for pair in ((model, broken), (broken, model)):
        found = check_answers(*pair, names(2), task)  # type: ignore[arg-type]
        assert not found.passed and found.max_probability_difference == 1
        with pytest.raises(GateError, match="no finite answer on 1 images"):
            enforce_answers(found, *pair, names(2), where="model.onnx")


def test_nothing_to_compare_proves_nothing() -> None:
    with pytest.raises(GateError, match="no images"):
        check_answers(np.ones((0, 1)), np.ones((0, 1)), [], "regression")
    with pytest.raises(GateError, match="for 2 images"):
        check_answers(np.ones((3, 1)), np.ones((3, 1)), names(2), "regression")
    with pytest.raises(UserError, match="tolerance"):
        check_answers(np.ones((1, 1)), np.ones((1, 1)), names(1), "regression", tolerance=0.7)

"""The parity gate's three rules, against plain NumPy and hand-made cases."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tlcore.errors import GateError, UserError
from tlcore.export.gate import check_metadata, check_parity, enforce, select_images
from tlcore.export.metadata import FileMetadata
from tlcore.values import Parity, Preprocess

CLASSES = ("ant", "bee", "cat")


def softmax(logits: np.ndarray) -> np.ndarray:
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def ids(count: int) -> list[str]:
    return [f"image-{index}" for index in range(count)]


def answers(count: int = 40, seed: int = 0) -> np.ndarray:
    return softmax(np.random.default_rng(seed).normal(0, 3, (count, 3))).astype(np.float32)


def test_equal_answers_pass_with_difference_zero() -> None:
    model = answers()
    parity = check_parity(model, model.copy(), [0] * 40, ids(40))
    assert parity.passed
    assert parity.max_probability_difference == 0
    assert parity.top1_agreement == 1
    assert parity.images == 40
    assert parity.worst == ()


@settings(max_examples=50, deadline=None)
@given(
    logits=hnp.arrays(
        np.float64, st.tuples(st.integers(1, 30), st.integers(2, 6)), elements=st.floats(-8, 8)
    ),
    noise=st.floats(0, 0.02),
    seed=st.integers(0, 2**16),
)
def test_measures_equal_a_plain_loop_over_images(logits: np.ndarray, noise: float, seed: int) -> None:
    draw = np.random.default_rng(seed)
    model = softmax(logits)
    file = softmax(np.log(model) + draw.normal(0, noise, model.shape))
    labels = draw.integers(-1, model.shape[1], len(model))
    parity = check_parity(model, file, labels.tolist(), ids(len(model)), tolerance=1e-3)

    largest, agreed, compared, ties, right_model, right_file, labelled = 0.0, 0, 0, 0, 0, 0, 0
    for p, q, label in zip(model, file, labels, strict=True):
        largest = max(largest, *(abs(a - b) for a, b in zip(p, q, strict=True)))
        first, second = sorted(p, reverse=True)[:2]
        if first - second < 2e-3:
            ties += 1
            continue
        compared += 1
        agreed += int(np.argmax(p) == np.argmax(q))
        if label >= 0:
            labelled += 1
            right_model += int(np.argmax(p) == label)
            right_file += int(np.argmax(q) == label)
    assert parity.max_probability_difference == pytest.approx(largest, abs=1e-15)
    assert parity.ties == ties
    assert parity.top1_agreement == (agreed / compared if compared else 1.0)
    if labelled:
        assert parity.accuracy_model == pytest.approx(right_model / labelled)
        assert parity.accuracy_file == pytest.approx(right_file / labelled)
    else:
        assert parity.accuracy_model is None
        assert parity.accuracy_file is None
    assert parity.passed == (largest <= 1e-3 and agreed == compared and right_model == right_file)


def test_a_difference_above_the_tolerance_fails_though_all_first_classes_agree() -> None:
    model = np.array([[0.9, 0.05, 0.05], [0.1, 0.8, 0.1]])
    file = model + np.array([[0, 0, 0], [0.0015, -0.0015, 0]])
    parity = check_parity(model, file, [0, 1], ids(2))
    assert not parity.passed
    assert parity.top1_agreement == 1
    assert parity.worst == ("image-1",)
    assert check_parity(model, file, [0, 1], ids(2), tolerance=2e-3).passed


def test_a_tie_may_change_its_first_class_and_is_counted() -> None:
    model = np.array([[0.5004, 0.4996, 0.0], [0.1, 0.8, 0.1]])
    file = np.array([[0.4996, 0.5004, 0.0], [0.1, 0.8, 0.1]])
    parity = check_parity(model, file, [0, 1], ids(2))
    assert parity.passed
    assert parity.ties == 1
    assert parity.accuracy_model == parity.accuracy_file == 1.0


def test_unlabelled_images_count_for_probabilities_and_not_for_accuracy() -> None:
    model = np.array([[0.9, 0.1], [0.2, 0.8]])
    parity = check_parity(model, model, [-1, -1], ids(2))
    assert parity.passed
    assert parity.accuracy_model is None
    half = check_parity(model, model, [-1, 0], ids(2))
    assert half.accuracy_model == half.accuracy_file == 0.0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_answer_that_is_not_finite_fails_and_the_image_is_named(value: float) -> None:
    model = answers(5)
    file = model.copy()
    file[3, 1] = value
    parity = check_parity(model, file, [0] * 5, ids(5))
    assert not parity.passed
    assert parity.worst[0] == "image-3"
    assert Parity.model_validate_json(parity.model_dump_json()) == parity
    with pytest.raises(GateError, match="no finite answer on 1 images"):
        enforce(parity, model, file, ids(5), CLASSES, where="model.onnx")


def test_nan_on_both_sides_is_not_an_agreement() -> None:
    both = np.full((2, 3), np.nan)
    parity = check_parity(both, both, [0, 1], ids(2))
    assert not parity.passed
    with pytest.raises(GateError, match="training diverged"):
        enforce(parity, both, both, ids(2), CLASSES, where="model.onnx")


def test_enforce_is_silent_when_the_gate_passed() -> None:
    model = answers()
    enforce(check_parity(model, model, [0] * 40, ids(40)), model, model, ids(40), CLASSES, where="model.onnx")


def test_enforce_names_the_worst_images_the_numbers_and_both_classes() -> None:
    model = np.tile([0.9, 0.05, 0.05], (6, 1))
    file = model.copy()
    file[4] = [0.05, 0.05, 0.9]
    file[1] = [0.8, 0.15, 0.05]
    parity = check_parity(model, file, [0] * 6, ids(6))
    with pytest.raises(GateError) as caught:
        enforce(parity, model, file, ids(6), CLASSES, where="model.onnx")
    text = str(caught.value)
    assert "model.onnx" in text
    assert "2 of 6 images differ" in text
    assert "image-4: model ant 0.9000, file cat 0.9000, difference 0.85" in text
    assert "image-1: model ant 0.9000, file ant 0.8000, difference 0.1" in text
    assert text.index("image-4") < text.index("image-1")
    assert "accuracy 1.0000 with the model, 0.8333 with the file" in text
    assert "nothing was promoted" in text


def test_answers_of_different_shape_are_refused() -> None:
    with pytest.raises(GateError, match=r"\[4, 3\] and the file \[4, 2\]"):
        check_parity(answers(4), answers(4)[:, :2], [0] * 4, ids(4))
    with pytest.raises(GateError, match="4 answers for 3 images"):
        check_parity(answers(4), answers(4), [0] * 4, ids(3))


def test_no_images_prove_nothing() -> None:
    with pytest.raises(GateError, match="nothing is proven"):
        check_parity(np.empty((0, 3)), np.empty((0, 3)), [], [])


@pytest.mark.parametrize("tolerance", [0.0, -1.0, 0.5, np.nan])
def test_a_tolerance_that_could_not_fail_or_could_not_pass_is_refused(tolerance: float) -> None:
    with pytest.raises(UserError, match="tolerance"):
        check_parity(answers(2), answers(2), [0, 0], ids(2), tolerance=tolerance)


def test_all_validation_images_are_compared_and_few_are_topped_up() -> None:
    assert select_images(range(300), range(1000, 1010)) == list(range(300))
    assert select_images([1, 2], [3, 4, 5], minimum=4) == [1, 2, 3, 4]
    assert select_images([1, 2], minimum=4) == [1, 2]


def test_class_names_in_another_order_are_found_in_the_metadata() -> None:
    rule = Preprocess(height=32, width=32)
    check_metadata(FileMetadata(classes=CLASSES, preprocess=rule), rule, CLASSES, where="model.onnx")
    with pytest.raises(GateError, match="class 0 is 'ant' in the model and 'bee' in the file"):
        check_metadata(
            FileMetadata(classes=("bee", "ant", "cat"), preprocess=rule), rule, CLASSES, where="model.onnx"
        )
    with pytest.raises(GateError, match="3 classes in the model, 2 in the file"):
        check_metadata(FileMetadata(classes=CLASSES[:2], preprocess=rule), rule, CLASSES, where="model.onnx")


def test_another_resize_rule_is_found_in_the_metadata() -> None:
    rule = Preprocess(height=32, width=32, crop_pct=0.875)
    other = FileMetadata(classes=CLASSES, preprocess=Preprocess(height=32, width=32, resize="squash"))
    with pytest.raises(GateError, match="preprocess.resize is 'crop' in the model and 'squash' in the file"):
        check_metadata(other, rule, CLASSES, where="model.onnx")

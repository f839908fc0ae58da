"""What the card says of how far the result may be trusted."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest

from tests.report.pages import Page, page
from tlcore.evaluation.calibration import fit_temperature
from tlcore.report.calibration_figures import merged, reliability_diagram
from tlcore.report.document import run_document
from tlcore.values import Reliability, ReliabilityBin, RunRecord

Make = Callable[..., RunRecord]


def test_calibration_stands_before_and_after_on_validation_and_on_the_test_images(
    card: str, record: RunRecord
) -> None:
    fitted, before, after = record.calibration, record.uncalibrated, record.metrics.reliability
    assert fitted is not None and before is not None and after is not None and fitted.kept
    assert after.calibration_error < before.calibration_error
    text = Page(card).text
    assert f"divides its logits by a temperature of {fitted.temperature:.3g}" in text
    row = [
        f"{100 * fitted.error_before:.1f} %",
        f"{100 * fitted.error_after:.1f} %",
        f"{fitted.nll_before:.3f}",
    ]
    assert "validation, cross-fitted 250 " + " ".join(row) in text
    assert (
        f"target test images 500 {100 * before.calibration_error:.1f} % {100 * after.calibration_error:.1f} %"
        in text
    )
    labels = [a.get("aria-label", "") for tag, a in Page(card).elements if tag == "svg"]
    assert any(label.startswith("Reliability diagram") for label in labels)


@pytest.mark.slow
def test_a_temperature_that_was_not_kept_or_not_wanted_is_said_to(record: RunRecord) -> None:
    plain = record.model_copy(update={"uncalibrated": None, "adaptation": None, "label_errors": None})
    assert "was fitted and left out of the file (export.calibrate)" in page(plain).text
    few = fit_temperature(np.zeros((4, 2)), np.array([0, 1, 0, 1]))
    text = page(plain.model_copy(update={"calibration": few})).text
    assert "No temperature is in the file: 4 images are too few" in text
    none = page(plain.model_copy(update={"calibration": None})).text
    assert "cross-fitted 250" not in none and "No temperature" not in none


def test_likely_label_errors_are_pictures_with_the_label_and_the_suggestion(
    card: str, record: RunRecord
) -> None:
    found = record.label_errors
    assert found is not None and found.suspects
    shown = Page(card)
    pictures = [a for tag, a in shown.elements if tag == "img" and "looks like" in a["alt"]]
    assert len(pictures) == len(found.suspects) and all(
        a["src"].startswith("data:image/jpeg") for a in pictures
    )
    first = found.suspects[0]
    assert f"{first.label} ({100 * first.self_confidence:.0f} %) → {first.suggested}" in shown.text
    assert f"Estimated share of wrong labels: {100 * found.error_share:.1f} %" in shown.text
    assert "a linear probe of the same network trained without it" in shown.text


@pytest.mark.slow
def test_without_a_suspect_the_card_says_so(record: RunRecord) -> None:
    assert record.label_errors is not None
    clean = record.label_errors.model_copy(update={"suspects": (), "found": 0})
    text = page(record.model_copy(update={"label_errors": clean, "adaptation": None})).text
    assert "No image looks more like another class than like its own" in text


@pytest.mark.slow
def test_top_losses_tell_wrong_answers_from_unsure_right_ones(record: RunRecord) -> None:
    wrong = next(hard for hard in record.metrics.top_losses if hard.label != hard.predicted)
    unsure = wrong.model_copy(
        update={"predicted": wrong.label, "probability": 0.412, "label_probability": 0.412}
    )
    metrics = record.metrics.model_copy(update={"top_losses": (wrong, unsure)})
    text = page(record.model_copy(update={"metrics": metrics, "adaptation": None, "label_errors": None})).text
    assert f"{wrong.label} ({100 * wrong.label_probability:.1f} %), taken for {wrong.predicted}" in text
    assert f"{wrong.label} , right at 41.2 %" in text
    assert "Worst mistakes" not in text


@pytest.mark.slow
def test_classes_have_recall_precision_f1_and_intervals_and_many_are_folded(make: Make, card: str) -> None:
    text = Page(card).text
    assert "Class Images Recall 95 % interval Precision 95 % interval F1" in text
    assert not [tag for tag, _ in Page(card).elements if tag == "details"]
    names = tuple(f"species {i:03d}" for i in range(40))
    many = page(make(classes=names, images=600, skill=3.0, trials=(), adaptation=None, label_errors=None))
    assert [tag for tag, _ in many.elements].count("details") == 1 and not many.misplaced
    assert "All 40 classes: recall, precision and F1" in many.text


def test_domains_and_how_each_strategy_was_validated_are_shown(card: str) -> None:
    text = Page(card).text
    assert "Domain Test images Accuracy 95 % interval phone camera 167" in text
    assert "94.3 % 92.5 – 95.7 % held-out, 797 images" in text
    assert "fonts-resnet10t, lp-ft: bf16 autocast: 0.41 of the time of float32" in text


def test_what_transfer_brings_is_one_sentence_in_the_card_and_in_the_document(
    card: str, record: RunRecord
) -> None:
    said = run_document(record)["transfer"]
    assert (
        said.startswith("Transfer pays: better than the same network from scratch by")
        and "frozen probe" in said
    )
    assert said in Page(card).text


def test_the_document_has_the_numbers_of_the_card(record: RunRecord) -> None:
    document = run_document(record)
    assert record.calibration is not None and record.label_errors is not None
    assert document["calibration"]["temperature"] == record.calibration.temperature
    assert document["label_errors"]["found"] == record.label_errors.found
    assert document["domains"]["scans"]["images"] == 333
    assert set(document["metrics"]["classes"]) == set(document["metrics"]["per_class"])
    assert document["trained"][1]["validation_ci"] == [0.925, 0.957]
    assert document["metrics"]["top_losses"][0]["loss"] == record.metrics.top_losses[0].loss


@pytest.mark.slow
def test_a_record_of_an_earlier_version_is_still_read(record: RunRecord) -> None:
    document = json.loads(record.model_dump_json())
    for name in ("calibration", "uncalibrated", "label_errors", "domains"):
        del document[name]
    for name in ("reliability", "classes", "top_losses"):
        del document["metrics"][name]
    for trial in document["trials"]:
        for name in ("validation_ci", "validated_on", "notes"):
            del trial[name]
    old = RunRecord.model_validate(document)
    assert run_document(old)["metrics"]["log_loss"] is None
    assert "calibration" not in [
        a.get("id") for _, a in page(old.model_copy(update={"adaptation": None})).elements
    ]


def test_bins_of_few_images_are_merged_and_no_image_is_lost(record: RunRecord) -> None:
    whole = record.metrics.reliability
    assert whole is not None
    found = merged(whole)
    assert len(found) < len(whole.bins) and all(b.images >= 20 for b in found)
    assert sum(b.images for b in found) == 500
    for field in ("accuracy", "confidence"):
        means = [sum(b.images * getattr(b, field) for b in bins) / 500 for bins in (found, whole.bins)]
        assert means[0] == pytest.approx(means[1])


@pytest.mark.parametrize("bins", [0, 1])
def test_a_reliability_diagram_of_few_or_no_bins_can_be_drawn(bins: int, record: RunRecord) -> None:
    whole = record.metrics.reliability
    assert whole is not None
    few = Reliability(images=1, log_loss=0, calibration_error=0, bins=whole.bins[:bins])
    assert reliability_diagram(few).axes and reliability_diagram(few, whole).axes


@pytest.mark.parametrize("sure", [0.4, 0.93, 0.99, 1.0])
def test_no_axis_of_a_reliability_diagram_names_more_than_100_percent(sure: float) -> None:
    bins = (ReliabilityBin(confidence=sure, accuracy=0.9, images=50),)
    (axes,) = reliability_diagram(Reliability(images=50, log_loss=0, calibration_error=0, bins=bins)).axes
    for ticks, (low, high) in ((axes.get_xticks(), axes.get_xlim()), (axes.get_yticks(), axes.get_ylim())):
        shown = [tick for tick in ticks if low <= tick <= high]
        assert len(shown) >= 3 and 0.85 < max(shown) < 1 + 1e-6

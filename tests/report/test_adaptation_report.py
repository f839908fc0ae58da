"""What a person sees of domain adaptation: the gap, the adapters, the figures, and the words for it."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from rich.console import Console

from tests.report import adapted
from tests.report.adapted import adaptation
from tests.report.pages import Page
from tlcore.evaluation.accuracy_estimates import CANNOT_SEE
from tlcore.report import adaptation_figures, figures, gap_figures
from tlcore.report.card import render
from tlcore.report.document import RUN_SCHEMA, run_document
from tlcore.report.drawing import HUES, SOFT, png, svg
from tlcore.report.gap import balance_classes, gap_line, gap_measures, label_sets_sentence
from tlcore.report.verdicts import NOT_MEASURABLE, pictured_adapter
from tlcore.values import SOURCE_ONLY, Adaptation, Adapted, DomainGap, Epoch, Point, RunRecord, Scatter
from tlcore_flows.cli_adaptation import print_adaptation

ATTACK = "<script>alert('x')</script>"
BLIND = {"accuracy": None, "accuracy_ci": None, "accuracy_last": None, "accuracy_oracle": None}


@pytest.fixture(scope="module")
def full(record: RunRecord) -> Adaptation:
    assert record.adaptation is not None
    return record.adaptation


ELSEWHERE = {
    "trials": (), "baselines": (), "halving": None, "calibration": None, "uncalibrated": None, "label_errors": None,
    "domains": (),
}  # fmt: skip
"""What other sections of the card are made of."""


def section(record: RunRecord, changed: Adaptation) -> Page:
    """The card's section on adaptation alone."""
    html = render(record.model_copy(update={"adaptation": changed, **ELSEWHERE}))
    found = re.search(r'<section id="adaptation">.*?</section>', html, re.S)
    assert found is not None
    return Page(found.group())


def undrawn(whole: Adaptation) -> Adaptation:
    """The same without what its two largest figures are drawn from."""
    tried = tuple(entry.model_copy(update={"history": ()}) for entry in whole.tried)
    return whole.model_copy(update={"tried": tried, "scatter": None})


@pytest.fixture(scope="module")
def shown(record: RunRecord, full: Adaptation) -> Page:
    """The section of the whole record, drawn once."""
    return section(record, full)


def unlabelled(whole: Adaptation) -> Adaptation:
    return whole.model_copy(
        update={
            "source_only": whole.source_only.model_copy(update=BLIND),
            "tried": tuple(entry.model_copy(update=BLIND) for entry in whole.tried),
        }
    )


def gap(**changes: Any) -> DomainGap:
    return DomainGap(**({"label_sets": "closed", "declared": False} | changes))


# the card


def test_the_gap_is_reported_before_the_adapters(shown: Page) -> None:
    text = shown.text
    assert text.index("The gap between the domains") < text.index("The adapters against source-only")
    for words in (
        "Label sets closed (assumed) the target has the classes of the source, as is assumed: nobody said so",
        "Proxy A-distance 1.64 of 2 clearly apart: a linear classifier finds the domain of 91 % of new images",
        "MMD² 0.047 the features differ: p 0.005",
        "Class balance, target as predicted",
        "Duplicates 7 files with the same bytes in both domains: scans/4/0012.png = paper/0131.png",
    ):
        assert words in text, words


def test_images_of_both_domains_stand_side_by_side(shown: Page) -> None:
    named = [a["alt"] for tag, a in shown.elements if tag == "img"]
    assert named == [
        f"{name.title()}: {name}-{place}.png" for name in ("source", "target") for place in range(6)
    ]


@pytest.mark.slow
def test_a_picture_that_is_gone_is_named(record: RunRecord, full: Adaptation) -> None:
    assert full.gap is not None
    changed = full.gap.model_copy(update={"target_examples": ("/nowhere/gone.png",)})
    shown = section(record, undrawn(full).model_copy(update={"gap": changed}))
    assert "gone.png not found" in shown.text and "/nowhere" not in shown.text


def test_every_adapter_has_its_scores_its_estimates_and_three_accuracies(shown: Page) -> None:
    text = shown.text
    assert (
        "dann kept 0.855 im 1.954 bnm 0.861 clusters 0.671 98.6 % 14.6 % 10 classes 88 – 93 % 87.1 % 83.5 – 90.2 % 85.2 % 88.4 %"
        in text
    )
    assert "Kept: dann. im 1.954 above 1.712, bnm 0.861 above 0.792" in text
    assert "Not kept: bnm 0.781 is not above source-only's 0.792." in text
    assert CANNOT_SEE in text and NOT_MEASURABLE not in text


def test_refused_failed_and_stopped_adapters_say_why(shown: Page) -> None:
    text = shown.text
    assert f"mcc ⚠ refused {adapted.REFUSED}" in text
    assert "cdan ✗ failed the loss is not finite" in text
    assert f"⚠ stopped early {adapted.STOPPED}. Not kept: im 1.705 is not above" in text
    assert "a cross is where a training was stopped" in text


@pytest.mark.slow
def test_a_target_without_labels_is_said_not_to_be_measurable(record: RunRecord, full: Adaptation) -> None:
    shown = section(record, unlabelled(undrawn(full)))
    assert shown.text.count(NOT_MEASURABLE) == 4  # one for each that finished
    assert "88 – 93 %" in shown.text and "its accuracy can only be estimated" in shown.text
    assert "Expected target accuracy of each adapter" in [
        a.get("aria-label") for t, a in shown.elements if t == "svg"
    ]
    assert not shown.misplaced


@pytest.mark.slow
def test_where_source_only_is_kept_each_adapter_says_why_not(record: RunRecord, full: Adaptation) -> None:
    tried = tuple(entry for entry in full.tried if entry.strategy != "dann")
    text = section(record, undrawn(full.model_copy(update={"tried": tried, "kept": "source-only"}))).text
    assert "Kept: source-only. No adapter passed the rule; why not stands with each one below." in text
    assert "Blue : the adapter that was kept" not in text


@pytest.mark.slow
def test_where_no_adapter_finished_the_gap_and_source_only_are_shown(
    record: RunRecord, full: Adaptation
) -> None:
    tried = tuple(entry for entry in full.tried if entry.refused or entry.failed)
    shown = section(
        record, full.model_copy(update={"tried": tried, "kept": "source-only", "scatter": None, "reason": "mcc: refused."})
    )  # fmt: skip
    assert "Kept: source-only. Mcc: refused." in shown.text and "The gap between" in shown.text
    assert "source-only kept" in shown.text and f"mcc ⚠ refused {adapted.REFUSED}" in shown.text
    assert not shown.misplaced
    printed(full.model_copy(update={"tried": tried, "kept": "source-only", "scatter": None}))


@pytest.mark.slow
def test_source_only_has_its_name_where_the_record_has_that_of_its_tuner(
    record: RunRecord, full: Adaptation
) -> None:
    base = full.source_only.model_copy(update={"strategy": "lp-ft"})
    changed = undrawn(full).model_copy(update={"source_only": base, "kept": SOURCE_ONLY})
    shown = section(record, changed)
    assert "source-only kept lp-ft 0.768" in shown.text
    assert [a["class"] for tag, a in shown.elements if tag == "p" and "note" in a.get("class", "")][
        0
    ] == "note warn"
    assert "source-only (kept)" in printed(changed)


@pytest.mark.slow
def test_a_network_for_the_target_alone_has_no_source_accuracy(record: RunRecord, full: Adaptation) -> None:
    own = full.tried[1].model_copy(update={"target_only": True})
    text = section(record, undrawn(full.model_copy(update={"tried": (own,)}))).text
    assert "for the target alone" in text and "dann kept 0.855 im 1.954 bnm 0.861 clusters 0.671 –" in text


@pytest.mark.slow
def test_more_than_three_validators_have_a_table_of_their_own(record: RunRecord, full: Adaptation) -> None:
    more = {"im": 1.0, "bnm": 0.5, "snd": 3.25, "entropy": -0.125}
    changed = full.model_copy(
        update={
            "source_only": full.source_only.model_copy(update={"validators": more}),
            "tried": tuple(entry.model_copy(update={"validators": more}) for entry in full.tried[:2]),
        }
    )
    text = section(record, undrawn(changed)).text
    assert "Every validator" in text and "dann 1.000 0.500 3.250 −0.125" in text


@pytest.mark.slow
def test_an_old_record_without_gap_estimates_and_verdicts_still_has_its_section(record: RunRecord) -> None:
    line = Epoch(phase="adapt", epoch=1, losses={"total": 1.0}, measures={"im": 1.9})
    old = Adaptation(
        source_only=Adapted(strategy="source-only", validator_score=1.7, source_validation_accuracy=0.9, accuracy=0.7),
        tried=(
            Adapted(
                strategy="coral", validator_score=1.9, source_validation_accuracy=0.9, accuracy=0.8, history=(line, line)
            ),
        ),
        kept="coral", validator="im", reason="Kept: its label-free score 1.900 is above source-only's 1.700.",
        target_images=9,
    )  # fmt: skip
    shown = section(record, old)
    assert "Kept: coral. Its label-free score 1.900 is above" in shown.text
    for words in ("The gap between", CANNOT_SEE, "Features before", "None", "nan"):
        assert words not in shown.text
    labels = [a["aria-label"] for tag, a in shown.elements if tag == "svg"]
    assert labels == ["Target accuracy of each adapter", "Validators of each adapter by epoch"]
    assert not shown.misplaced and not shown.open


@pytest.mark.slow
def test_names_of_strangers_are_escaped(record: RunRecord, full: Adaptation, tmp_path: Path) -> None:
    names = (ATTACK, '"><img src=x onerror=alert(1)>', "$\\frac{1}{2}$", "a&b", "\u202ename\x00")
    hostile = adaptation(tmp_path, names)
    known = hostile.gap
    assert known is not None
    known = known.model_copy(
        update={
            "a_distance": {ATTACK: 1.0, "b": 0.2}, "missing_classes": names, "new_classes": names, "notes": (ATTACK,),
            "label_sets": "open-partial", "duplicate_examples": (f"{ATTACK} = b",),
            "source_examples": (*known.source_examples, f'/x/"><img src=x>{ATTACK}.png', f"/x/{names[1]}.png"),
        }
    )  # fmt: skip
    tried = tuple(
        entry.model_copy(update={"strategy": f"{ATTACK}{place}", "verdict": ATTACK, "stopped": ATTACK})
        for place, entry in enumerate(hostile.tried)
    )
    marked = hostile.scatter
    assert marked is not None
    elsewhere = tuple(point.model_copy(update={"domain": ATTACK}) for point in marked.before)
    changed = hostile.model_copy(
        update={
            "gap": known, "tried": tried, "kept": f"{ATTACK}1",
            "scatter": Scatter(before=elsewhere, after=marked.after),
        }
    )  # fmt: skip
    shown = section(record, changed)
    assert "script" not in {tag for tag, _ in shown.elements}
    assert not shown.misplaced and not shown.open
    assert all(a["src"].startswith("data:image/jpeg") for tag, a in shown.elements if tag == "img")
    assert not any(name.startswith("on") for _, a in shown.elements for name in a)
    assert ATTACK in shown.text and r"$\frac{1}{2}$" in shown.text


# words


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "the target has the classes of the source, as is assumed: nobody said so"),
        ({"declared": True}, "the target has the classes of the source, as declared"),
        (
            {"label_sets": "partial", "declared": True, "missing_classes": ("a", "b")},
            "the target lacks classes of the source (a, b), as declared",
        ),
        ({"label_sets": "open", "declared": True}, "the target has classes that the source lacks, as declared"),
        (
            {"label_sets": "open-partial", "declared": True, "missing_classes": tuple("abcdefg"), "new_classes": ("z",)},
            "the target lacks classes of the source (a, b, c, d, e and 2 more), and has classes that the source lacks "
            "(z), as declared",
        ),
    ],
)  # fmt: skip
def test_label_sets_are_said_in_words(changes: dict[str, Any], words: str) -> None:
    assert label_sets_sentence(gap(**changes)) == words


@pytest.mark.parametrize(
    ("distance", "words"),
    [
        (0.0, "hardly apart: a linear classifier finds the domain of 50 %"),
        (0.9, "partly apart: a linear classifier finds the domain of 72 %"),
        (1.5, "clearly apart: a linear classifier finds the domain of 88 %"),
        (2.0, "all but separate: a linear classifier finds the domain of 100 %"),
    ],
)
def test_a_proxy_a_distance_is_read_in_plain_words(distance: float, words: str) -> None:
    reading = gap_measures(gap(a_distance={"source": distance}))[1].reading
    assert reading.startswith(words) and reading.endswith("0 is chance (50 %), 2 all of them")


def test_every_source_domain_has_its_distance() -> None:
    many = gap(a_distance={"art": 1.25, "clipart": 0.5}, mmd=-0.00003, mmd_p=0.4, duplicates=1)
    lines = {one.name: one for one in gap_measures(many)}
    assert lines["Proxy A-distance, art"].value == "1.25 of 2"
    assert lines["MMD²"].value.replace("\u202f", " ") == "−3.0 × 10⁻⁵"
    assert lines["MMD²"].reading.startswith("not shown to differ: p 0.400")
    assert lines["Duplicates"].value == "1 file"
    assert gap_line(many).replace("\u202f", " ") == (
        "gap: proxy A-distance art 1.25, clipart 0.50 of 2 (clearly apart), label sets closed (assumed), CORAL 0.000, "
        "MMD² −3.0 × 10⁻⁵ (p 0.400), 1 duplicate"
    )


def test_class_balance_is_the_share_of_images_that_would_have_to_change() -> None:
    shifted = gap(source_shares={"a": 0.5, "b": 0.5}, predicted_shares={"a": 0.75, "b": 0.25})
    line = next(one for one in gap_measures(shifted) if one.name == "Class balance, target as predicted")
    assert line.value == "0.25 of 1" and line.reading.replace("\u202f", " ").startswith("25 % of the images")


def test_of_many_classes_those_that_differ_most_are_shown() -> None:
    names = [f"class {i:03d}" for i in range(300)]
    own = dict.fromkeys(names, 1 / 300)
    predicted = own | {"class 123": 0.2, "class 007": 0.1}
    labels = own | {"class 250": 0.15}
    shown = balance_classes(gap(source_shares=own, predicted_shares=predicted, label_shares=labels))
    assert shown[:3] == ["class 123", "class 250", "class 007"] and len(shown) == 12
    assert balance_classes(gap(source_shares={"b": 1.0, "a": 0.0})) == ["b", "a"]


def test_the_picture_is_of_the_kept_adapter_or_else_of_the_best(full: Adaptation) -> None:
    assert pictured_adapter(full) == "dann"
    assert pictured_adapter(full.model_copy(update={"kept": "source-only", "tried": full.tried[2:]})) == "mcd"
    assert pictured_adapter(full.model_copy(update={"kept": "source-only", "tried": full.tried[3:]})) == ""


# figures


@pytest.mark.slow
@pytest.mark.parametrize("k", [1, 2, 12, 300])
def test_figures_are_drawn_for_any_number_of_classes(k: int, tmp_path: Path) -> None:
    names = tuple(f"class {i:03d} with a long name" for i in range(k))
    made = adaptation(tmp_path, names)
    assert made.gap is not None and made.scatter is not None
    drawn = [
        gap_figures.class_balance(made.gap),
        gap_figures.examples(made.gap),
        adaptation_figures.validators_over_time(made),
        adaptation_figures.scatter(made.scatter, "domain"),
        adaptation_figures.scatter(made.scatter, "class"),
    ]
    for figure in drawn:
        assert figure is not None
        ET.fromstring(svg(figure, "x"))
        assert png(figure, dpi=40).startswith(b"\x89PNG")


def test_where_there_is_nothing_to_draw_there_is_no_figure(full: Adaptation) -> None:
    assert gap_figures.class_balance(gap()) is None
    assert gap_figures.examples(gap(source_examples=("/nowhere.png",))) is None
    assert adaptation_figures.scatter(Scatter(before=(), after=()), "class") is None
    assert adaptation_figures.validators_over_time(full.model_copy(update={"tried": full.tried[3:]})) is None


def test_one_adapter_of_one_epoch_has_its_figures(full: Adaptation) -> None:
    entry = full.tried[1]
    one = entry.model_copy(update={"history": (entry.history[7],)})
    alone = full.model_copy(update={"tried": (one,)})
    figure = adaptation_figures.validators_over_time(alone)
    assert figure is not None
    svg(figure, "x")
    svg(figures.adapters(alone), "x")


def test_a_panel_for_each_validator_with_the_chosen_checkpoint_and_source_only(full: Adaptation) -> None:
    figure = adaptation_figures.validators_over_time(full)
    assert figure is not None
    titles = [axes.get_title("left") for axes in figure.axes]
    assert titles == [
        "im", "bnm", "all validators together", "source validation accuracy, %", "target test accuracy, %",
        "training loss",
    ]  # fmt: skip
    lines = figure.axes[0].lines
    dots = {
        tuple(map(float, (*one.get_xdata(), *one.get_ydata()))) for one in lines if one.get_marker() == "o"
    }
    assert dots == {(7.0, 1.803), (8.0, 1.954), (2.0, 1.705)}
    crosses = [one.get_xdata() for one in lines if one.get_marker() == "X"]
    assert [list(x) for x in crosses] == [[4]]  # mcd was stopped in its fourth epoch
    assert any(set(map(float, one.get_ydata())) == {1.712} for one in lines)


def test_without_labels_no_target_accuracy_is_drawn(full: Adaptation) -> None:
    def without(entry: Adapted) -> Adapted:
        kept = tuple(
            line.model_copy(
                update={"measures": {n: v for n, v in line.measures.items() if n != "target_test_accuracy"}}
            )
            for line in entry.history
        )
        return entry.model_copy(update=BLIND | {"history": kept})

    blind = full.model_copy(
        update={"source_only": without(full.source_only), "tried": tuple(map(without, full.tried))}
    )
    figure = adaptation_figures.validators_over_time(blind)
    assert figure is not None
    assert "target test accuracy, %" not in [axes.get_title("left") for axes in figure.axes]


def test_of_more_than_ten_classes_the_most_frequent_have_colours_and_the_others_are_grey() -> None:
    labels = [name for i, name in enumerate("abcdefghijklm") for _ in range(20 - i)]
    points = tuple(Point(x=i, y=i, domain="s", label=label) for i, label in enumerate(labels))
    figure = adaptation_figures.scatter(Scatter(before=points, after=points), "class")
    assert figure is not None
    drawn = {line.get_color(): len(line.get_xdata()) for line in figure.axes[0].lines}  # type: ignore[arg-type]
    assert set(drawn) == {*HUES, SOFT} and drawn[SOFT] == 10 + 9 + 8
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [*"abcdefghij", "others"]


def test_ten_colours_are_ten() -> None:
    assert len(set(HUES)) == 10 and SOFT not in HUES


def test_expected_accuracy_is_a_band_from_the_lowest_estimate_to_the_highest(full: Adaptation) -> None:
    bands = figures.adapters(full).axes[0].patches
    assert len(bands) == 4  # of those that finished
    x0, x1 = bands[2].get_extents().transformed(bands[2].axes.transData.inverted()).intervalx  # type: ignore[union-attr]
    assert (x0, x1) == (pytest.approx(0.88), pytest.approx(0.93))


# the document


def test_the_document_has_the_gap_and_every_field_of_an_adapter(record: RunRecord, full: Adaptation) -> None:
    document = run_document(record)["adaptation"]
    assert set(document["gap"]) == set(DomainGap.model_fields)
    assert document["gap"]["source_examples"] and "scatter" not in document
    assert set(document["tried"][0]) == set(Adapted.model_fields) - {"history", "nuclear_norm"}
    dann, stopped, refused = document["tried"][1], document["tried"][2], document["tried"][3]
    assert dann["validators"] == {"im": 1.954, "bnm": 0.861}
    assert dann["estimates"] == {
        "atc_confidence": 0.89, "atc_entropy": 0.88, "difference_of_confidences": 0.93, "low": 0.88, "high": 0.93,
        "temperature": 1.31,
    }  # fmt: skip
    assert stopped["stopped"] == adapted.STOPPED and stopped["verdict"].startswith("Not kept: ")
    assert refused["refused"] == adapted.REFUSED and refused["estimates"] is None


@pytest.mark.parametrize("changes", [{}, {"gap": None}, {"tried": ()}])
def test_documents_of_every_adaptation_follow_the_schema(
    record: RunRecord, full: Adaptation, changes: dict[str, Any]
) -> None:
    validator = jsonschema.Draft202012Validator(RUN_SCHEMA)
    for one in (full, unlabelled(full)):
        document = run_document(record.model_copy(update={"adaptation": one.model_copy(update=changes)}))
        validator.validate(document)
        for name in ("gap", "kept"):
            short = {key: value for key, value in document["adaptation"].items() if key != name}
            assert not validator.is_valid(document | {"adaptation": short})


# the terminal


def printed(whole: Adaptation, width: int = 200) -> str:
    out = io.StringIO()
    print_adaptation(Console(file=out, width=width, highlight=False), whole)
    return out.getvalue()


def test_the_terminal_has_the_gap_the_table_and_every_verdict(full: Adaptation) -> None:
    text = printed(full)
    words = " ".join(text.split())
    assert "gap: proxy A-distance 1.64 of 2 (clearly apart), label sets closed (assumed)" in words
    assert "adapter score target accuracy last oracle expected" in words
    assert "dann (kept) 0.855 87.1 % [83.5, 90.2] 85.2 % 88.4 % 88–93 %" in words
    assert "coral: Not kept: bnm 0.781 is not above source-only's 0.792." in words
    assert f"mcd: stopped early, {adapted.STOPPED}" in words
    assert f"mcc: refused, {adapted.REFUSED}" in words and "cdan: failed, the loss is not finite" in words
    assert CANNOT_SEE in words and NOT_MEASURABLE not in words
    assert text.index("gap:") < text.index("adapter ") < text.index("coral: Not kept")


def test_without_labels_the_terminal_says_so_once_and_has_no_empty_column(full: Adaptation) -> None:
    text = printed(unlabelled(full))
    assert text.count(NOT_MEASURABLE) == 1
    assert "oracle" not in text and "–\n" not in text and "88–93 %" in text


@pytest.mark.parametrize("width", [80, 100])
def test_the_terminal_keeps_its_width(full: Adaptation, width: int) -> None:
    assert max(map(len, printed(full, width).splitlines())) <= width


def test_markup_of_strangers_is_no_markup_on_the_terminal(full: Adaptation) -> None:
    assert full.gap is not None
    known = full.gap.model_copy(
        update={"notes": ("[red]note[/red]",), "a_distance": {"[bold]a": 1.0, "b": 0.1}}
    )
    entry = full.tried[0].model_copy(update={"strategy": "[red]x", "verdict": "[/red] y"})
    text = printed(full.model_copy(update={"gap": known, "tried": (entry,)}))
    for name in ("[red]note[/red]", "[bold]a 1.00", "[red]x", "[/red] y"):
        assert name in text


def test_a_record_of_old_is_printed_with_its_reason(full: Adaptation) -> None:
    entry = Adapted(strategy="coral", validator_score=1.9, source_validation_accuracy=0.9, accuracy=0.8)
    base = Adapted(strategy="source-only", validator_score=1.7, source_validation_accuracy=0.9, accuracy=0.7)
    old = full.model_copy(
        update={"source_only": base, "tried": (entry,), "gap": None, "kept": "coral", "reason": "Kept: so."}
    )
    text = printed(old)
    assert "Kept: so." in text and "gap:" not in text and "expected" not in text

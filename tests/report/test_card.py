from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.report.pages import Page, page
from tlcore.evaluation.comparison import compare, negative_transfer
from tlcore.report.card import render
from tlcore.report.document import run_document
from tlcore.report.formatting import started
from tlcore.selection.halving import achieved_in_trial
from tlcore.values import (
    Chosen,
    DataReport,
    DomainRow,
    Interval,
    Metrics,
    Mistake,
    Parity,
    Ranked,
    Ranking,
    Rung,
    RunRecord,
    Suspect,
    TopLoss,
)

Make = Callable[..., RunRecord]


def test_the_card_is_well_formed_and_has_every_section(card: str) -> None:
    shown = Page(card)
    assert not shown.misplaced and not shown.open
    sections = [attributes["id"] for tag, attributes in shown.elements if tag == "section"]
    assert sections == [
        "result", "ranking", "trial", "training", "adaptation", "classes", "calibration", "labels", "parity", "data",
        "run",
    ]  # fmt: skip
    linked = [a["href"][1:] for tag, a in shown.elements if tag == "a"]
    assert linked == sections


def test_the_card_loads_nothing_and_runs_nothing(card: str) -> None:
    shown = Page(card)
    assert not {"script", "link", "iframe", "object", "embed", "base"} & {tag for tag, _ in shown.elements}
    for _, attributes in shown.elements:
        for name in ("src", "href", "xlink:href", "action"):
            assert attributes.get(name, "#").startswith(("#", "data:image/")), attributes
        assert not any(name.startswith("on") for name in attributes)
    assert not re.search(r"url\((?!#)|@import|https?://", card)
    policy = next(a["content"] for t, a in shown.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy


def test_every_id_is_unique_and_every_reference_has_its_target(card: str) -> None:
    ids = re.findall(r'\bid="([^"]+)"', card)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:url\(#|href="#)([^)"]+)', card)) <= set(ids)


def test_the_verdict_names_the_choice_the_numbers_and_the_baselines(card: str) -> None:
    text = Page(card).text
    assert "fonts-resnet10t with lp-ft answers 95.2 % of 500 target test images correctly" in text
    assert (
        "better than always answering the most frequent class, a linear probe on frozen features and" in text
    )
    assert "The exported file answers as the model does" in text


ATTACK = "<script>alert('x')</script>"


@pytest.mark.slow
@pytest.mark.parametrize("kept", [True, False])
def test_names_of_strangers_are_escaped_everywhere(make: Make, tmp_path: Path, kept: bool) -> None:
    record = make(
        classes=(ATTACK, '"><img src=x onerror=alert(1)>', "$\\frac{1}{2}$", "a&b", "\u202ename\x00"),
        name=ATTACK,
        warnings=(ATTACK,),
        config={ATTACK: ATTACK},
        versions={ATTACK: ATTACK},
        seconds={ATTACK: 1.0},
        onnx=ATTACK,
        skill=1.0,
    )
    mistake = Mistake(
        sample_id="x", uri=str(tmp_path / f"{ATTACK}.png"), label=ATTACK, predicted="a&b", probability=1
    )
    entry = Ranked(
        candidate=ATTACK, rank=1, scores={ATTACK: 1.0, "logme": 0.1}, notes=(ATTACK,), achieved=0.5
    )
    left = Ranked(candidate=ATTACK, rank=None, skipped=ATTACK)
    hard = TopLoss(**mistake.model_dump(), label_probability=0, loss=87.3)
    suspect = Suspect(
        sample_id="y",
        uri=mistake.uri,
        label=ATTACK,
        suggested="a&b",
        self_confidence=0,
        suggested_probability=1,
    )
    shown = (hard,) if kept else ()  # records of earlier versions have mistakes alone
    assert record.label_errors is not None
    record = record.model_copy(
        update={
            "metrics": record.metrics.model_copy(update={"mistakes": (mistake,), "top_losses": shown}),
            "label_errors": record.label_errors.model_copy(
                update={"suspects": (suspect,), "found_by": ATTACK, "notes": (ATTACK,)}
            ),
            "domains": (DomainRow(domain=ATTACK, images=1, accuracy=1, accuracy_ci=Interval(low=0, high=1)),),
            "trials": tuple(
                t.model_copy(update={"notes": (ATTACK,), "validated_on": ATTACK}) for t in record.trials
            ),
            "ranking": Ranking(entries=(entry, entry, left), scorers=(ATTACK, "logme"), images=1),
            "adaptation": record.adaptation.model_copy(update={"reason": ATTACK, "kept": ATTACK}),
        }
    )
    html = render(record)
    card = Page(html)
    assert "script" not in {tag for tag, _ in card.elements}
    assert not card.misplaced and not card.open
    assert all(a.get("src", "data:").startswith("data:") for _, a in card.elements)
    assert ATTACK in card.text  # it is there, as text
    assert r"$\frac{1}{2}$" in card.text  # and mathematics is not typeset, in figures either


@pytest.mark.slow
def test_of_many_that_were_left_out_thirty_are_listed_and_the_others_counted(record: RunRecord) -> None:
    left = tuple(Ranked(candidate=f"net-{k:04}", rank=None, skipped="too large") for k in range(1130))
    entries = (*(e for e in record.ranking.entries if e.rank is not None), *left)
    ranking = record.ranking.model_copy(update={"entries": entries})
    shown = page(record.model_copy(update={"ranking": ranking, "trials": (), "adaptation": None}))
    assert "net-0029 too large" in shown.text and "net-0030" not in shown.text
    assert f"And 1,100 more; tlcore runs show {record.run_id} --json" in shown.text


@pytest.mark.slow
def test_a_first_by_rank_that_goes_on_below_another_is_said_to(record: RunRecord) -> None:
    assert record.halving is not None
    rungs = [
        rung.model_copy(update={"images": 60, "validation": accuracy})
        for rung, accuracy in zip(record.halving.rungs[:3], (0.9, 0.95, 0.6), strict=True)
    ]
    first, second = record.halving.shortlist[:2]
    assert [rung.candidate for rung in rungs[:2]] == [first, second]
    trial = record.halving.model_copy(update={"rungs": tuple(rungs), "winner": first})
    last = {rung.candidate: rung.validation for rung in rungs}
    entries = tuple(e.model_copy(update={"achieved": last.get(e.candidate)}) for e in record.ranking.entries)
    ranking = record.ranking.model_copy(
        update={"entries": entries, "achieved_measure": achieved_in_trial("accuracy")}
    )
    text = page(record.model_copy(update={"ranking": ranking, "halving": trial, "adaptation": None})).text
    assert (
        f"{first}, the first by rank, was 5.0 points below {second}; why it goes on all the same is said above"
        in text
    )
    assert "No regret" not in text and "regret 5.0 points" in text


def test_top_losses_are_shown_as_pictures(card: str) -> None:
    shown = [
        a for tag, a in Page(card).elements if tag == "img" and re.search("taken for|recognised", a["alt"])
    ]
    assert len(shown) == 12
    assert all(a["src"].startswith("data:image/jpeg;base64,") for a in shown)


@pytest.mark.slow
def test_a_missing_picture_is_tolerated_unless_the_record_knows_another_place(make: Make) -> None:
    record = make(trials=(), adaptation=None, baselines=(), label_errors=None)
    first, second = record.metrics.top_losses[:2]
    Path(first.uri).unlink()
    without = page(record)
    assert len([1 for tag, _ in without.elements if tag == "img"]) == 11
    assert "file not found" in without.text
    moved = record.model_copy(update={"thumbnails": {first.sample_id: second.uri}})
    assert "file not found" not in page(moved).text


def test_a_record_with_nothing_optional_still_makes_a_card(make: Make) -> None:
    bare = make()
    bare = bare.model_copy(
        update={
            "data": DataReport(),
            "ranking": Ranking(entries=(Ranked(candidate="only", rank=1),), scorers=(), images=0),
            "metrics": bare.metrics.model_copy(
                update={
                    "per_class": {},
                    "confusion": (),
                    "mistakes": (),
                    "reliability": None,
                    "classes": (),
                    "top_losses": (),
                }
            ),
            "calibration": None,
            "uncalibrated": None,
            "label_errors": None,
            "domains": (),
            "baselines": (),
            "trials": (),
            "halving": None,
            "adaptation": None,
            "seconds": {},
            "cached": (),
            "config": {},
            "versions": {},
            "warnings": (),
            "parity": bare.parity.model_copy(
                update={"accuracy_model": None, "accuracy_file": None, "worst": ()}
            ),
        }
    )
    card = page(bare)
    assert not card.misplaced and not card.open
    assert "training" not in [a.get("id") for _, a in card.elements]
    assert "No baseline was measured" in card.text and "None" not in card.text and "nan" not in card.text


@pytest.mark.slow
def test_negative_transfer_is_flagged_in_plain_words(make: Make) -> None:
    scratch = compare([True] * 30 + [False] * 70, [True] * 70 + [False] * 30, "scratch")
    text = page(make(baselines=(scratch,), trials=(), adaptation=None)).text
    assert "⚠ Negative transfer: the same network trained from scratch is better by 40.0 points" in text
    assert "It is worse than the same network trained from scratch" in text


@pytest.mark.slow
def test_a_failed_parity_is_said_at_the_top_and_names_the_images(record: RunRecord) -> None:
    parity = Parity(
        images=9, max_probability_difference=0.2, top1_agreement=0.8, accuracy_model=0.9, accuracy_file=0.8,
        tolerance=1e-3, passed=False, worst=("scans/8/0031",),
    )  # fmt: skip
    text = page(record.model_copy(update={"parity": parity, "trials": (), "adaptation": None})).text
    assert "does not answer as the model does; nothing was promoted" in text
    assert "Largest differences: scans/8/0031" in text
    assert "✓ passed" not in text


def test_ties_skipped_candidates_and_the_agreement_are_in_the_ranking(card: str) -> None:
    text = Page(card).text
    assert text.count("2=") == 2
    assert "weights do not fit" in text
    assert "Weighted Kendall τ 0.940 over 6 candidates" in text
    assert "No regret" in text
    assert "Negative transfer" not in text and "No benefit" not in text


def test_the_trial_says_what_was_tried_what_survived_and_what_it_took(card: str) -> None:
    text = Page(card).text
    assert (
        "fonts-resnet10t goes on: one candidate was left. 23.2 s of the budget of 60.0 s were used." in text
    )
    assert "2 2 fonts-resnet10t 91.2 % 0.350 7.2 s ✓ goes on" in text.replace("\xa0", " ")
    assert "1 1 letters-mobilenetv3 85.2 % 0.520 3.0 s drops out" in text


@pytest.mark.slow
def test_after_a_trial_the_figure_names_validation_accuracy_and_the_regret_at_equal_epochs(
    record: RunRecord,
) -> None:
    assert record.halving is not None
    last = {rung.candidate: rung.validation for rung in record.halving.rungs}
    entries = tuple(e.model_copy(update={"achieved": last.get(e.candidate)}) for e in record.ranking.entries)
    ranking = record.ranking.model_copy(
        update={"entries": entries, "achieved_measure": achieved_in_trial("accuracy")}
    )
    record = record.model_copy(update={"ranking": ranking, "adaptation": None})
    text = page(record).text
    assert "validation accuracy in the trial, %" in text and "No regret: the first by rank" in text
    assert "Was the ranking right?" not in text and "nothing was chosen by it" not in text
    first = record.halving.rungs[:3]  # no time for the second rung: the second by rank wins
    trial = record.halving.model_copy(update={"rungs": first, "winner": "fonts-mobilenetv3"})
    text = page(record.model_copy(update={"halving": trial})).text
    assert "fonts-resnet10t, the first by rank, was 1.3 points below fonts-mobilenetv3" in text


@pytest.mark.slow
def test_a_trial_that_failed_or_had_no_time_is_shown_as_such(record: RunRecord) -> None:
    assert record.halving is not None
    failed = Rung(candidate=ATTACK, rung=1, epochs=1, failed="the loss is not finite")
    trial = record.halving.model_copy(
        update={"rungs": (failed,), "shortlist": (ATTACK, "b"), "winner": ATTACK}
    )
    record = record.model_copy(update={"trials": (), "adaptation": None})
    shown = page(record.model_copy(update={"halving": trial}))
    assert "✗ failed the loss is not finite" in shown.text and not shown.misplaced
    idle = page(record.model_copy(update={"halving": trial.model_copy(update={"rungs": ()})}))
    assert "goes on" in idle.text and "drops out" not in idle.text and not idle.misplaced


def panel_of(record: RunRecord, candidates: int) -> RunRecord:
    """A ranking by three scorers, with costs, places and intervals."""
    entries = tuple(
        Ranked(
            candidate=f"net-{i:02}", rank=i + 1, scores={"logme": 1 - i / 50, "hscore": 2.0 - i / 50, "knn": 0.5},
            panel=(i + 1) / (candidates + 1), rank_interval=Interval(low=max(1, i - 1), high=min(candidates, i + 3)),
            params=1_000_000 * (i + 1), gmacs=0.1 * (i + 1), prior_rank=candidates - i, latency_ms=3.2, onnx_bytes=4_100_000,
            achieved=0.9 - 0.01 * i,
        )
        for i in range(candidates)
    )  # fmt: skip
    ranking = Ranking(
        entries=entries, scorers=("logme", "hscore", "knn"), images=300, shortlist=("net-00", "net-01"), prior="parameters",
        achieved_measure="test accuracy after lp-ft",
    )  # fmt: skip
    return record.model_copy(update={"ranking": ranking, "adaptation": None, "halving": None})


@pytest.mark.slow
@pytest.mark.parametrize("candidates", [1, 3, 14])
def test_a_panel_has_its_figures_its_table_of_scores_and_every_regret(
    record: RunRecord, candidates: int
) -> None:
    shown = page(panel_of(record, candidates))
    assert not shown.misplaced and not shown.open
    labels = [a.get("aria-label", "") for tag, a in shown.elements if tag == "svg"]
    assert "panel of each candidate against GMACs per image" in labels
    assert "Rank of each candidate by panel, with intervals" in labels
    assert "Every score" in shown.text and "Pareto front" in shown.text
    assert ("Who foretold it best" in shown.text) == (candidates > 1)
    if candidates > 1:
        assert "panel against test accuracy after lp-ft" in labels
        assert "static prior (parameters)" in shown.text and "an order drawn at random" in shown.text
    assert ("Dots without a name" in shown.text) == (candidates > 12)


@pytest.mark.slow
def test_a_wrong_first_choice_shows_its_regret(record: RunRecord) -> None:
    first, *rest = record.ranking.entries
    worse = first.model_copy(update={"achieved": 0.80})
    ranking = record.ranking.model_copy(update={"entries": (worse, *rest)})
    text = page(record.model_copy(update={"ranking": ranking, "trials": (), "adaptation": None})).text
    assert "taking the first by logme gave 12.6 points less than the best (fonts-mobilenetv3)" in text


@pytest.mark.slow
def test_many_classes_get_confused_pairs_and_a_summary_instead_of_huge_tables(make: Make) -> None:
    record = make(
        classes=tuple(f"species {i:03d}" for i in range(60)),
        images=900,
        skill=3.0,
        trials=(),
        adaptation=None,
    )
    card = page(record)
    assert "The most confused pairs of 60 classes" in card.text
    assert "(the 24 weakest of 60)" in card.text
    assert "Smallest class" in card.text
    assert "Confusion matrix: true class by predicted class" not in [
        a.get("aria-label") for _, a in card.elements
    ]


@pytest.mark.slow
def test_warnings_of_the_measures_are_shown(make: Make) -> None:
    record = make(classes=tuple("abcdefgh"), images=6, trials=(), adaptation=None)
    assert record.metrics.warnings
    assert record.metrics.warnings[0] in page(record).text


def test_stages_from_the_store_are_marked(record: RunRecord, card: str) -> None:
    text = Page(card).text
    assert text.count("from the store") == len(record.cached)
    assert "check from the store 0.9 s" in text


def test_both_colour_schemes_and_print_are_styled(card: str) -> None:
    assert "@media screen and (prefers-color-scheme: dark)" in card
    assert "@media print" in card
    light, dark = (
        set(re.findall(r"--(\w+):", block)) for block in re.findall(r":root \{(.*?)\}", card, re.S)[:2]
    )
    assert set(re.findall(r"var\(--([a-z-]+)\)", card)) <= {name.replace("_", "-") for name in light} | {
        "warn-edge", "bad-edge", "good-edge",
    }  # fmt: skip
    assert light == dark


def test_no_colour_of_the_light_palette_is_left_in_a_figure(card: str) -> None:
    figures = re.findall(r"<svg.*?</svg>", card, re.S)
    assert len(figures) == 12
    for figure in figures:
        assert not re.findall(r"#[0-9a-fA-F]{6}", figure)


@pytest.mark.slow
def test_cards_made_in_threads_are_as_good_as_one_after_another(make: Make) -> None:
    record = make(trials=(), adaptation=None, baselines=())

    def bare(html: str) -> str:
        return re.sub(r"\bf\d+\b", "f", html)

    with ThreadPoolExecutor(3) as pool:
        cards = list(pool.map(lambda _: bare(render(record)), range(3)))
    assert cards == [bare(render(record))] * 3


@pytest.mark.slow
@pytest.mark.parametrize("accuracy", [0.0, 1.0])
def test_all_right_and_all_wrong_make_a_card(make: Make, accuracy: float) -> None:
    record = make(skill=200.0 if accuracy else -200.0, images=40, trials=(), adaptation=None)
    assert record.metrics.accuracy == accuracy
    metrics: Metrics = record.metrics
    assert ("All test images were recognised" in page(record).text) == (metrics.accuracy == 1)


@pytest.mark.slow
def test_a_warning_said_twice_is_shown_once_and_negative_transfer_in_its_own_place(make: Make) -> None:
    scratch = compare([True] * 30 + [False] * 70, [True] * 70 + [False] * 30, "scratch")
    said = negative_transfer([scratch])
    assert said is not None
    record = make(baselines=(scratch,), warnings=("twice", "twice", said), trials=(), adaptation=None)
    text = page(record).text
    assert text.count("twice") == 1
    assert text.count("trained from scratch is better by") == 1


@pytest.mark.slow
def test_an_adapted_model_is_found_among_the_trials_by_its_tuner(make: Make) -> None:
    record = make(
        chosen=Chosen(candidate="fonts-resnet10t", strategy="lp-ft+dann"), baselines=(), adaptation=None
    )
    text = page(record).text
    assert "fonts-resnet10t with lp-ft+dann answers" in text
    assert "fonts-resnet10t lp-ft chosen 94.3 %" in text


@pytest.mark.slow
def test_a_strategy_that_kept_its_start_is_called_what_it_is(make: Make) -> None:
    record = make(adaptation=None)
    chosen = record.chosen.model_copy(update={"kept_start": "the linear probe"})
    rows = tuple(
        trial.model_copy(update={"kept_start": "the linear probe"}) if record.chosen.made_by(trial) else trial
        for trial in record.trials
    )
    text = page(record.model_copy(update={"chosen": chosen, "trials": rows})).text
    assert "with lp-ft , which kept its start: the linear probe, answers 9" in text
    assert text.count("kept the linear probe") == 1
    assert "which kept its start" not in page(record).text
    assert started("full", "its start") == "full, which kept its start"


@pytest.mark.slow
def test_rows_of_one_strategy_are_told_apart_by_their_options_and_one_is_chosen(make: Make) -> None:
    record = make(adaptation=None)
    rows = [
        record.trials[0].model_copy(update={"strategy": "prototype", "options": options})
        for options in ({}, {"metric": "mahalanobis", "sam": None})
    ]
    chosen = Chosen(candidate=rows[1].candidate, strategy="prototype", options=rows[1].options)
    made = record.model_copy(update={"trials": tuple(rows), "chosen": chosen})
    shown = page(made)
    assert "metric = mahalanobis, sam = none" in shown.text
    assert [a.get("class") for tag, a in shown.elements if tag == "span"].count(
        "tag"
    ) == 2  # the other: the ranking's
    document = run_document(made)
    assert [row["options"] for row in document["trained"]] == [{}, {"metric": "mahalanobis", "sam": None}]
    assert document["chosen"]["options"] == rows[1].options


@pytest.mark.slow
def test_validation_in_the_trial_has_its_interval(make: Make) -> None:
    record = make(trials=(), adaptation=None)
    trial = record.halving
    assert trial is not None
    rung = trial.rungs[0].model_copy(update={"validation_ci": Interval(low=0.801, high=0.922)})
    text = page(
        record.model_copy(update={"halving": trial.model_copy(update={"rungs": (rung, *trial.rungs[1:])})})
    ).text
    assert "87.1 % 80.1 – 92.2 %" in text


@pytest.mark.slow
def test_how_a_network_was_validated_may_take_two_lines_beside_the_curves(make: Make) -> None:
    elements = page(make(adaptation=None)).elements
    assert [a for tag, a in elements if tag == "small" and a.get("class") == "how"]
    assert ("table", {"class": "trained"}) in elements

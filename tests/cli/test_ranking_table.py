"""What a person sees of a ranking: on the terminal, in words, in the artifact; and that --json holds it all."""

from __future__ import annotations

import io

import jsonschema
import numpy as np
import pytest
from rich.console import Console

from tlcore.report.document import RANKING_SCHEMA, ranking_document
from tlcore.report.places import grouped_notes, place, shortlist_sentence
from tlcore.selection.ranking import rank
from tlcore.values import Interval, Ranked, Ranking
from tlcore_flows.artifacts import ranking_rows, ranking_words
from tlcore_flows.cli_ranking import LEFT_OUT_SHOWN, print_ranked

SCORERS = ("logme", "hscore", "ridge-cv", "lda", "knn", "logistic-probe")
NAMES = (
    "resnet18.a1_in1k",
    "vit_tiny_patch16_224.augreg_in21k_ft_in1k",
    "efficientnet_b0.ra_in1k",
    "[bold]shapes",
)


def _ranking(gap: float = 0.02, *, limit: int = 3, prior: bool = True, left_out: int = 1) -> Ranking:
    draw = np.random.default_rng(0)
    entries = []
    for i, name in enumerate(NAMES):
        scores = dict.fromkeys(SCORERS, 1 - gap * i)
        draws = {s: tuple(float(v) for v in draw.normal(scores[s], 0.1, size=20)) for s in SCORERS}
        entries.append(
            Ranked(
                candidate=name, rank=None, scores=scores, draws=draws, params=5_000_000 * (i + 1),
                gmacs=1.82 / (i + 1), prior=69.5 + i if prior else None, images_per_second=1234.0, latency_ms=3.25,
                onnx_bytes=46_800_000, licence="apache-2.0", notes=("leep: it has no source head",) if i > 1 else (),
            )
        )  # fmt: skip
    for i in range(left_out):
        entries.append(Ranked(candidate=f"left-{i}", rank=None, skipped="98 M parameters, more than 20 M"))
    return rank(entries, scorers=SCORERS, images=300, shortlist=limit, prior_source="results.csv")


def _shown(ranking: Ranking, width: int) -> str:
    out = io.StringIO()
    print_ranked(Console(file=out, width=width, highlight=False), ranking)
    return out.getvalue()


@pytest.mark.parametrize("width", [60, 80, 100, 160, 240])
def test_no_column_and_no_number_is_lost_at_any_width(width: int) -> None:
    ranking = _ranking()
    text = _shown(ranking, width)
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    words = text.split()
    for entry in ranking.entries[: len(NAMES)]:
        assert place(entry) in text
        for value in (
            *(f"{v:.3f}" for v in entry.scores.values()),
            f"{entry.gmacs:.2f}",
            f"{entry.prior:.1f}",
        ):
            assert value in words
    for header in ("logme", "hscore", "lda", "knn", "probe", "top-1", "GMACs", "latency", "ONNX", "params"):
        assert header in words
    assert "…" not in text


def test_one_table_where_it_fits_and_two_on_eighty_columns() -> None:
    def tables(width: int) -> int:
        return sum(set(line.strip()) == {"─"} for line in _shown(_ranking(), width).splitlines())

    assert tables(160) == 1
    assert tables(80) == 2


def test_the_shortlist_the_prior_notes_and_who_was_left_out_are_said_below() -> None:
    text = " ".join(_shown(_ranking(), 240).split())
    assert (
        "Shortlist: " in text
        and "cannot be told from it" in text
        and "≈ cannot be told from the best" in text
    )
    assert "Prior: rank by ImageNet top-1 from results.csv, a baseline with no part in the rank." in text
    assert "efficientnet_b0.ra_in1k, [bold]shapes: leep: it has no source head" in text
    assert "1 left out: left-0: 98 M parameters, more than 20 M" in text


def test_of_very_many_that_were_left_out_the_rest_is_counted() -> None:
    text = _shown(_ranking(left_out=1000), 100)
    assert "1,000 left out:" in text and f"and {1000 - LEFT_OUT_SHOWN} more" in text
    assert len(text.splitlines()) < 100


def test_the_sentence_says_how_many_are_level_and_how_many_go_on() -> None:
    firm = _ranking(gap=5.0)
    assert (
        shortlist_sentence(firm)
        == f"Shortlist: {NAMES[0]}, which the images tell from every other candidate."
    )
    loose = _ranking(gap=0.0001)
    assert shortlist_sentence(loose).startswith(
        f"Shortlist: {NAMES[0]}; 3 candidates cannot be told from it, of which the first 2 go on: "
    )
    assert "cannot be told from it: " in shortlist_sentence(_ranking(gap=0.0001, limit=4))
    assert shortlist_sentence(_ranking(gap=0.0001, limit=1)).endswith("and only the first goes on.")
    still = Ranked(candidate="a", rank=None, scores={"logme": 1.0})
    other = Ranked(candidate="b", rank=None, scores={"logme": 0.0})
    assert "was not measured" in shortlist_sentence(rank([still, other], scorers=["logme"], images=9))
    assert shortlist_sentence(Ranking(entries=(), scorers=(), images=0)) == ""


def test_a_place_shows_its_interval() -> None:
    entry = Ranked(candidate="a", rank=2)
    assert place(entry) == "2" and place(entry.model_copy(update={"rank": None})) == "–"
    assert place(entry.model_copy(update={"rank_interval": Interval(low=1, high=4)})) == "2 (1–4)"
    assert place(entry.model_copy(update={"rank_interval": Interval(low=2, high=2)})) == "2 (2)"


def test_a_note_is_said_once_for_all_it_is_about() -> None:
    entries = [Ranked(candidate=c, rank=1, notes=notes) for c, notes in (("a", ("x", "y")), ("b", ("x",)))]
    assert grouped_notes(entries) == [("x", ["a", "b"]), ("y", ["a"])]


def test_the_artifact_has_the_rows_of_the_table_and_no_empty_column() -> None:
    rows = ranking_rows(_ranking(prior=False))
    assert [row["candidate"] for row in rows] == [*NAMES, "left-0"]
    assert "ImageNet top-1, %" not in rows[0] and rows[-1]["prior rank"] is None
    assert {"rank", "tied with best", *SCORERS, "prior rank", "parameters", "GMACs", "latency, ms"} <= set(
        rows[0]
    )
    assert rows[-1]["note"] == "98 M parameters, more than 20 M"
    words = ranking_words(_ranking(prior=False))
    assert "Shortlist: " in words and "Prior rank: by parameters" in words


def test_the_document_holds_everything_that_a_ranking_holds() -> None:
    ranking = _ranking()
    document = ranking_document(ranking)
    jsonschema.validate(document, RANKING_SCHEMA)
    assert set(Ranked.model_fields) <= set(document["ranking"][0])
    assert document["ranking"][0]["draws"]["logme"] == list(ranking.entries[0].draws["logme"])
    assert document["selection"]["shortlist"] == list(ranking.shortlist)
    assert document["selection"]["prior"] == "ImageNet top-1 from results.csv"

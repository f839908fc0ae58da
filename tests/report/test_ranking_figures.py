"""Figures of a ranking: what they show, and that no name covers another."""

from __future__ import annotations

import io
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from PIL import Image

from tlcore.report.drawing import ACCENT, SECOND, png, svg
from tlcore.report.ranking_figures import (
    achieved_figure,
    against_achieved,
    cost_front,
    cost_of,
    intervals,
    prediction,
    prediction_name,
    write_figures,
)
from tlcore.selection.halving import achieved_in_trial
from tlcore.values import Interval, Ranked, Ranking, RunRecord

LONG = "a_network_of_a_very_long_name_patch16_384.augreg_in21k_ft_in1k"


def ranking(
    n: int, *, seed: int = 0, gmacs: bool = True, ties: bool = False, long: bool = False, scorers: int = 3, shortlist: int = 3
) -> Ranking:  # fmt: skip
    rng = np.random.default_rng(seed)
    panel = np.sort(rng.uniform(0.05, 0.95, n))
    if ties:
        panel = np.round(panel * 3) / 3
    names = [f"{LONG if long else 'network'}_{i:02}" for i in range(n)]
    entries = tuple(
        Ranked(
            candidate=name, rank=int((panel < value).sum()) + 1, panel=float(value),
            scores={f"s{k}": float(1 - value) for k in range(scorers)},
            rank_interval=Interval(low=1, high=float(n)), params=int(rng.integers(1e6, 9e7)),
            gmacs=float(10 ** rng.uniform(-1, 1)) if gmacs else None, achieved=float(0.9 - 0.3 * value),
        )
        for name, value in zip(names, panel, strict=True)
    )  # fmt: skip
    left_out = Ranked(candidate="left out", rank=None, skipped="it does not fit", gmacs=1.0, params=1)
    return Ranking(
        entries=(*entries, left_out), scorers=tuple(f"s{k}" for k in range(scorers)), images=300,
        shortlist=tuple(names[:shortlist]), achieved_measure="test accuracy after lp-ft",
    )  # fmt: skip


def texts(figure: Figure) -> list[str]:
    return [note.get_text() for note in notes(figure)]


def notes(figure: Figure) -> list[Annotation]:
    return [t for t in figure.axes[0].texts if isinstance(t, Annotation) and t.get_text()]


@pytest.mark.slow
@pytest.mark.parametrize("n", [1, 3, 11, 40])
@pytest.mark.parametrize("case", [{}, {"ties": True}, {"long": True, "gmacs": False}])
def test_names_cover_no_other_name_no_dot_and_stay_inside(n: int, case: dict[str, bool]) -> None:
    for figure in (cost_front(ranking(n, **case)), against_achieved(ranking(n, **case), regret=0.0)):
        assert figure is not None
        canvas = FigureCanvasAgg(figure)
        canvas.draw()  # as it is saved
        axes, boxes = figure.axes[0], [note.get_window_extent() for note in notes(figure)]
        assert boxes
        for i, box in enumerate(boxes):
            assert not box.count_overlaps(boxes[:i] + boxes[i + 1 :])
            assert axes.bbox.padded(1).containsx(box.x0) and axes.bbox.padded(1).containsx(box.x1)
        dots = [
            axes.transData.transform(line.get_xydata())[0] for line in axes.lines if line.get_marker() == "o"
        ]
        assert len(dots) == n
        assert not any(box.contains(*dot) for box in boxes for dot in dots)


def test_the_shortlist_and_the_front_are_named_even_among_many() -> None:
    made = ranking(40, seed=2)
    figure = cost_front(made)
    assert figure is not None
    assert set(made.shortlist) <= set(texts(figure))
    assert 15 <= len(texts(figure)) <= 40


def test_the_stairs_of_the_front_are_the_best_quality_that_a_cost_buys() -> None:
    made = ranking(25, seed=4)
    figure = cost_front(made)
    assert figure is not None
    stairs = next(line for line in figure.axes[0].lines if line.get_marker() != "o").get_xydata()
    cost, quality = cost_of(made).values, prediction(made)
    for x in np.geomspace(min(cost.values()), max(cost.values()) * 1.01, 50):
        best = max(quality[name] for name in quality if cost[name] <= x)
        assert stairs[stairs[:, 0] <= x][-1, 1] == pytest.approx(best)


def test_parameters_stand_in_where_gmacs_are_not_known() -> None:
    assert cost_of(ranking(5)).name == "GMACs per image"
    assert cost_of(ranking(5, gmacs=False)).name == "parameters, millions"
    first, *rest = ranking(5).entries
    some = ranking(5).model_copy(update={"entries": (first.model_copy(update={"gmacs": None}), *rest)})
    assert cost_of(some).name == "parameters, millions"  # more candidates have them
    bare = tuple(e.model_copy(update={"gmacs": None, "params": None}) for e in ranking(3).entries)
    assert cost_front(ranking(3).model_copy(update={"entries": bare})) is None


def test_one_scorer_foretells_by_its_score_and_several_by_the_panel() -> None:
    one, many = ranking(4, scorers=1), ranking(4)
    assert prediction_name(one) == "s0" and prediction_name(many) == "panel"
    assert prediction(one)["network_00"] == one.entries[0].scores["s0"]
    assert prediction(many)["network_00"] == pytest.approx(1 - (many.entries[0].panel or 0))
    assert "left out" not in prediction(many)


def test_places_are_drawn_from_the_best_down_with_the_shortlist_marked() -> None:
    made = ranking(6, shortlist=2)
    figure = intervals(made, "network_01")
    assert figure is not None
    axes = figure.axes[0]
    labels = [(label.get_text(), label.get_color() == ACCENT) for label in axes.get_yticklabels()]
    assert labels == [(f"network_0{i}", i < 2) for i in range(6)]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first is at the top
    dots = [line for line in axes.lines if line.get_marker() == "o"]
    assert [float(dot.get_xdata()[0]) for dot in dots] == [e.rank for e in made.entries[:6]]  # type: ignore[index]
    assert [dot.get_markerfacecolor() == ACCENT for dot in dots] == [i == 1 for i in range(6)]
    without = tuple(e.model_copy(update={"rank_interval": None}) for e in made.entries)
    assert intervals(made.model_copy(update={"entries": without})) is None


def test_the_regret_is_drawn_as_a_bar_over_the_first() -> None:
    made = ranking(5)
    figure = against_achieved(made, regret=0.04)
    assert figure is not None
    axes, first = figure.axes[0], made.entries[0].achieved or 0.0
    assert axes.get_title(loc="right") == "regret 4.0 points"
    bars = [
        line.get_ydata() for line in axes.lines if line.get_color() == SECOND and line.get_linestyle() == "-"
    ]
    assert [list(bar) for bar in bars] == [pytest.approx([first, first + 0.04])]
    assert axes.get_ylabel() == "test accuracy after lp-ft, %"
    assert axes.get_ylim()[1] > first + 0.04
    none = tuple(e.model_copy(update={"achieved": None}) for e in made.entries)
    assert against_achieved(made.model_copy(update={"entries": none})) is None


def test_the_regret_of_a_run_is_over_all_verified_or_at_equal_epochs_in_the_trial(record: RunRecord) -> None:
    def title(run: RunRecord) -> str | None:
        figure = achieved_figure(run)
        return figure and figure.axes[0].get_title(loc="right")

    first, *rest = record.ranking.entries
    entries = (first.model_copy(update={"achieved": 0.80}), *rest)
    verified = record.model_copy(update={"ranking": record.ranking.model_copy(update={"entries": entries})})
    assert title(record) == "no regret" and title(verified) == "regret 12.6 points"
    tried = verified.model_copy(
        update={
            "ranking": verified.ranking.model_copy(update={"achieved_measure": achieved_in_trial("accuracy")})
        }
    )
    assert title(tried) == "no regret"
    alone = (first, *(e.model_copy(update={"achieved": None}) for e in rest))
    assert (
        title(record.model_copy(update={"ranking": record.ranking.model_copy(update={"entries": alone})}))
        is None
    )


@pytest.mark.slow
def test_figures_become_svg_that_parses_and_say_what_they_show() -> None:
    for figure in (cost_front(ranking(11)), intervals(ranking(11)), against_achieved(ranking(11))):
        assert figure is not None
        root = ET.fromstring(svg(figure, "said aloud"))
        assert root.get("aria-label") == "said aloud" and "network_00" in " ".join(root.itertext())
        assert Image.open(io.BytesIO(png(figure, dpi=50))).size[0] > 200


def test_figures_are_written_where_there_is_something_to_draw(tmp_path: Path) -> None:
    written = write_figures(ranking(4), tmp_path / "a" / "b")
    assert [path.name for path in written] == ["cost.png", "intervals.png", "achieved.png"]
    for path in written:
        with Image.open(path) as image:
            assert image.format == "PNG"
    bare = tuple(e.model_copy(update={"achieved": None, "rank_interval": None}) for e in ranking(4).entries)
    few = write_figures(ranking(4).model_copy(update={"entries": bare}), tmp_path / "c")
    assert [path.name for path in few] == ["cost.png"]

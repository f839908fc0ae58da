from __future__ import annotations

import base64
import io
import re
import xml.etree.ElementTree as ET

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from tlcore.report import figures
from tlcore.report.curves import curves, measure_name
from tlcore.report.drawing import ACCENT, PALETTE, data_uri, new_figure, plain, png, svg
from tlcore.values import Epoch, RunRecord


def all_figures(record: RunRecord) -> dict[str, Figure]:
    assert record.adaptation is not None
    histories = {f"{t.candidate} {t.strategy}": t.history for t in record.trials}
    return {
        "accuracies": figures.accuracies(record.metrics, record.baselines, {}, "result"),
        "scores": figures.scores(record.ranking, "logme", "fonts-resnet10t"),
        "curves": curves(histories, "fonts-resnet10t lp-ft"),
        "confusion": figures.confusion_matrix(record.data.classes, record.metrics.confusion),
        "adapters": figures.adapters(record.adaptation),
    }


def test_every_figure_becomes_svg_that_parses_and_png_that_decodes(record: RunRecord) -> None:
    for name, figure in all_figures(record).items():
        root = ET.fromstring(svg(figure, "a & b"))
        assert root.get("aria-label") == "a & b" and root.get("role") == "img", name
        with Image.open(io.BytesIO(png(figure, dpi=60))) as image:
            image.load()
            assert len(image.convert("L").getcolors() or []) > 5, name  # something is drawn on the paper


def test_text_in_svg_stays_text(record: RunRecord) -> None:
    text = " ".join(ET.fromstring(svg(all_figures(record)["scores"], "x")).itertext())
    assert "fonts-resnet10t" in text and "logme (higher is better)" in text


def test_drawing_leaves_the_global_settings_alone(record: RunRecord) -> None:
    before = dict(mpl.rcParams)
    all_figures(record)
    svg(figures.scores(record.ranking, "logme"), "x")
    assert dict(mpl.rcParams) == before


def test_colours_become_variables_in_svg_and_stay_in_png() -> None:
    def patch() -> Figure:
        figure = new_figure(60, 60)
        axes = figure.subplots()
        axes.set_axis_off()
        axes.fill_between([0, 1], 0, 1, color=ACCENT)
        axes.margins(0)
        return figure

    drawn = svg(patch(), "x")
    assert "fill: var(--accent)" in drawn and ACCENT not in drawn
    with Image.open(io.BytesIO(png(patch(), dpi=72))) as image:
        assert np.asarray(image.convert("RGB"))[30, 30].tobytes().hex() == ACCENT.removeprefix("#")


@pytest.mark.slow
def test_figures_on_one_page_share_no_id(record: RunRecord) -> None:
    page = "".join(svg(figure, "x") for figure in all_figures(record).values())
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:url\(#|href="#)([^)"]+)', page)) == set(ids)


def test_a_data_uri_holds_the_png(record: RunRecord) -> None:
    head, _, body = data_uri(all_figures(record)["adapters"], dpi=40).partition(",")
    assert head == "data:image/png;base64"
    assert base64.b64decode(body).startswith(b"\x89PNG")


def test_the_confusion_matrix_shows_each_count_once_and_no_zero(record: RunRecord) -> None:
    drawn = figures.confusion_matrix(["cat", "dog"], [[7, 0], [3, 19]])
    texts = [text.get_text() for text in drawn.axes[0].texts]
    assert texts == ["7", "3", "19"]


def test_shading_is_the_share_of_the_row() -> None:
    patches = figures.confusion_matrix(["a", "b"], [[5, 5], [0, 40]]).axes[0].patches
    assert [patch.get_alpha() for patch in patches] == [
        pytest.approx(0.59),
        pytest.approx(0.59),
        pytest.approx(1.0),
    ]


@pytest.mark.parametrize("k", [1, 2, 13, 30])
def test_matrices_of_every_size_are_drawn(k: int) -> None:
    svg(figures.confusion_matrix([f"class {i}" for i in range(k)], np.eye(k, dtype=int).tolist()), "x")


def test_a_baseline_bar_touches_the_results_line_just_when_it_is_not_beaten(record: RunRecord) -> None:
    from tlcore.evaluation.comparison import compare

    rng = np.random.default_rng(0)
    result = rng.random(200) < 0.8
    for accuracy in (0.5, 0.78, 0.8):
        entry = compare(result, rng.random(200) < accuracy, "b")
        metrics = record.metrics.model_copy(update={"accuracy": float(result.mean())})
        axes = figures.accuracies(metrics, [entry], {}, "r").axes[0]
        bar = next(line.get_xdata() for line in axes.lines if list(line.get_ydata()) == [1, 1])
        assert (max(bar) < metrics.accuracy) == entry.better  # type: ignore[type-var]


def test_curves_without_losses_show_the_measure_alone_and_empty_ones_nothing() -> None:
    one = (Epoch(phase="head", epoch=1, measures={"validation_accuracy": 0.5}),)
    assert len(curves({"a": one, "b": ()}, "a").axes) == 1
    svg(curves({}, "a"), "x")


def test_the_drawn_measure_is_accuracy_where_there_is_one() -> None:
    assert (
        measure_name({"a": (Epoch(phase="p", epoch=1, measures={"im": 1, "source_accuracy": 1}),)})
        == "source_accuracy"
    )
    assert measure_name({"a": (Epoch(phase="p", epoch=1, measures={"im": 1}),)}) == "im"
    assert measure_name({}) is None


def test_labels_of_strangers_are_one_plain_line() -> None:
    assert plain("a\nb\x00") == "a·b·"
    assert plain("$x$") == r"\$x\$"
    assert len(plain("x" * 100, 22)) == 22
    assert plain("mobilenetv3_large_100.ra_in1k", 20).startswith("mobilenetv3_") and "…" in plain(
        "m" * 40, 20
    )


def test_every_colour_of_the_palette_can_be_read_on_its_paper() -> None:
    def luminance(colour: str) -> float:
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for scheme in (0, 1):
        paper = luminance(PALETTE["paper"][scheme])
        for name in ("ink", "muted", "accent", "second", "third"):
            pair = sorted((luminance(PALETTE[name][scheme]), paper))
            assert (pair[1] + 0.05) / (pair[0] + 0.05) >= 4.5, (name, scheme)  # WCAG 2.2, AA for text

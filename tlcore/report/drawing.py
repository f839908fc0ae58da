"""From a matplotlib figure to a string or bytes, without global state and in the reader's colours.

A figure is drawn once, in the light palette. As PNG it stays so. As SVG its colours become CSS variables, its
text stays text in the page's font, and what could call home or clash with other figures is taken out.
"""

from __future__ import annotations

import base64
import io
import math
import re
import threading
from collections.abc import Sequence
from html import escape
from itertools import count

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D

__all__ = [
    "ACCENT", "FAINT", "HUES", "INK", "MUTED", "PALETTE", "PAPER", "SECOND", "SOFT", "THIRD",
    "axes_style", "data_uri", "legend", "mark", "new_figure", "plain", "png", "svg",
]  # fmt: skip

INK, MUTED, FAINT, PAPER = "#1b2530", "#5c6873", "#dde3e8", "#fdfdfc"
SOFT = "#8f9aa5"
# blue, orange, green of one lightness apart: told apart with the common colour-vision deficiencies
ACCENT, SECOND, THIRD = "#0b63a5", "#b5510a", "#0d7a5e"
PALETTE: dict[str, tuple[str, str]] = {
    "ink": (INK, "#e7ecf1"),
    "muted": (MUTED, "#9ca8b4"),
    "faint": (FAINT, "#2f3943"),
    "paper": (PAPER, "#12171d"),
    "soft": (SOFT, "#75818d"),
    "accent": (ACCENT, "#6fb6ec"),
    "second": (SECOND, "#f0a255"),
    "third": (THIRD, "#55c8a6"),
    "violet": ("#7a3fb0", "#c39bf2"),
    "ochre": ("#b08a00", "#e3cb4e"),
    "rose": ("#d6568f", "#ff9cc4"),
    "cyan": ("#1a9fbf", "#3fd3e6"),
    "brown": ("#6b4330", "#bb937a"),
    "lime": ("#6f9a1d", "#a9d450"),
    "crimson": ("#a3152f", "#ff7d82"),
}
"""CSS variable -> (light, dark)."""
HUES = (ACCENT, SECOND, *(light for light, _ in list(PALETTE.values())[7:]))
"""Ten colours for things of one kind, the first told apart best; what comes after them is grey (SOFT)."""

TEXT = 9.5
"""Font size in figure units (1/72 inch; about one CSS pixel on a phone, 1.3 on a desk)."""
GROWTH = 1.35
"""CSS pixels per unit up to which a page may enlarge a figure, so that the text of all has one size."""
_POINTS = 72
_VARIABLE = {light: f"var(--{name})" for name, (light, _) in PALETTE.items()}
_COLOUR = re.compile("|".join(_VARIABLE))
# matplotlib takes the kind of SVG text from its global settings alone: one at a time
_settings = threading.Lock()
_numbers = count(1)


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of `width` x `height` units (points), on no screen and in no registry."""
    engine = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02)
    return Figure(figsize=(width / _POINTS, height / _POINTS), layout=engine, facecolor="none")


def axes_style(axes: Axes, *, grid: str | None = None) -> None:
    """Quiet axes: no box, small muted ticks, and at most hair lines for one direction."""
    for name, spine in axes.spines.items():
        spine.set_visible(name in ("left", "bottom"))
        spine.set_color(FAINT)
        spine.set_linewidth(0.8)
    axes.tick_params(length=0, pad=5, labelsize=TEXT, labelcolor=MUTED, color=FAINT)
    axes.xaxis.label.set(color=MUTED, fontsize=TEXT)
    axes.yaxis.label.set(color=MUTED, fontsize=TEXT)
    axes.title.set(color=INK, fontsize=TEXT + 0.5)
    axes.set_facecolor("none")
    if grid is not None:
        (axes.xaxis if grid == "x" else axes.yaxis).grid(True, color=FAINT, linewidth=0.8)
        axes.set_axisbelow(True)


def plain(text: str, limit: int = 22) -> str:
    """Text of a stranger as a label: one line, no mathematics, no control characters, at most `limit` long."""
    clean = "".join(letter if letter.isprintable() else "·" for letter in text)
    if len(clean) > limit:
        head = (limit - 1) * 2 // 3
        clean = f"{clean[:head]}…{clean[-(limit - 1 - head) :]}"
    return clean.replace("$", r"\$")


def mark(shape: str, colour: str) -> Line2D:
    """A marker for a legend."""
    return Line2D([], [], linestyle="none", marker=shape, color=colour, markersize=6.5, markeredgewidth=0)


def legend(figure: Figure, entries: Sequence[tuple[str, Line2D]]) -> None:
    """Below the figure, which grows by it; in as many columns as its width has room for."""
    names = [plain(name) for name, _ in entries]
    width, height = (inches * _POINTS for inches in figure.get_size_inches())
    wide = [30 + 5.6 * len(name) for name in names]
    columns = len(names) if sum(wide) <= width else max(1, int(width // max(wide)))
    figure.set_figheight((height + 6 + 14 * math.ceil(len(names) / columns)) / _POINTS)
    figure.legend(
        [mark for _, mark in entries], names, loc="outside lower center", ncols=columns, frameon=False,
        fontsize=TEXT, labelcolor=MUTED, handlelength=1.3, columnspacing=1.2, handletextpad=0.5, borderaxespad=0.2,
    )  # fmt: skip


def svg(figure: Figure, label: str) -> str:
    """The figure as an inline <svg>; `label` is what a screen reader says. Its colours follow the page."""
    text = io.StringIO()
    with _settings:
        before = mpl.rcParams["svg.fonttype"]
        mpl.rcParams["svg.fonttype"] = "none"
        try:
            FigureCanvasSVG(figure)
            figure.savefig(text, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
        finally:
            mpl.rcParams["svg.fonttype"] = before
    return _tidy(text.getvalue(), label)


def png(figure: Figure, *, dpi: int = 160) -> bytes:
    """The figure as PNG on the light paper."""
    data = io.BytesIO()
    with _settings:
        FigureCanvasAgg(figure)
        figure.savefig(data, format="png", dpi=dpi, facecolor=PAPER)
    return data.getvalue()


def data_uri(figure: Figure, *, dpi: int = 160) -> str:
    """The figure as PNG in a data URI: what an image artifact takes."""
    return "data:image/png;base64," + base64.b64encode(png(figure, dpi=dpi)).decode("ascii")


def _tidy(text: str, label: str) -> str:
    """The bare <svg> for use inside a page."""
    text = text[text.index("<svg") :]
    box = re.search(r'viewBox="([^"]+)"', text)
    body = text[text.index(">") + 1 :]
    body = re.sub(r"<style[^>]*>.*?</style>", "", body, flags=re.S)  # a rule for all elements of the page
    body = re.sub(r"font-family: [^;\"]*(; )?", "", body)
    body = _COLOUR.sub(lambda found: _VARIABLE[found.group()], body)
    # ids that something refers to get a number of their own: many figures share one page
    used = set(re.findall(r"(?:url\(#|href=\"#)([^)\"]+)", body))
    new = {name: f"f{next(_numbers)}" for name in sorted(used)}
    body = re.sub(r' id="([^"]*)"', lambda m: f' id="{new[m.group(1)]}"' if m.group(1) in new else "", body)
    body = re.sub(r"(url\(#|href=\"#)([^)\"]+)", lambda m: m.group(1) + new[m.group(2)], body)
    body = body.replace("xlink:href", "href")
    body = re.sub(r"\n\s*", "\n", body).strip()
    view = box.group(1) if box else "0 0 400 300"
    widest = float(view.split()[2]) * GROWTH
    return (
        f'<svg class="figure" role="img" aria-label="{escape(label)}" viewBox="{view}"'
        f' style="max-width: {widest:.0f}px">\n{body}'
    )

"""Names beside the points of a figure, placed so that none covers another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

from tlcore.report.drawing import MUTED, SOFT, TEXT, plain

__all__ = ["Label", "place_labels"]

_NEAR = 7.0
"""Points between a dot's centre and its label."""
_FAR = (16.0, 28.0, 42.0, 58.0, 76.0)
_GAP = 3.0
"""Pixels that are kept free before and after a label."""
_MARKER = 5.0
"""Half the side of the square that a dot keeps free, in points."""
_SIDES = (
    (1.0, 0.0, "left", "center"), (0.0, 1.0, "center", "bottom"), (-1.0, 0.0, "right", "center"),
    (0.0, -1.0, "center", "top"), (0.8, 0.8, "left", "bottom"), (-0.8, 0.8, "right", "bottom"),
    (0.8, -0.8, "left", "top"), (-0.8, -0.8, "right", "top"),
)  # fmt: skip


@dataclass(frozen=True)
class Label:
    """The text of a point at (x, y) in data coordinates; `before` stands before it, as it is."""

    x: float
    y: float
    text: str
    before: str = ""
    colour: str = MUTED
    must: bool = False
    """Placed before the others, and led to its point by a line where there is no room beside it."""


def place_labels(axes: Axes, labels: Sequence[Label], *, lines: Sequence[Bbox] = ()) -> list[str]:
    """Write the labels, those that must be there first; the texts that found no room.

    The limits and the scales of the axes must be final, all points must be drawn. Labels cover no dot and no other
    label, and cross one of the `lines` (thin boxes in data coordinates) only where nothing else is free.
    """
    figure = axes.figure
    canvas = FigureCanvasAgg(figure)  # type: ignore[arg-type]
    figure.draw_without_rendering()  # type: ignore[union-attr]  # the layout is settled
    renderer = canvas.get_renderer()  # type: ignore[no-untyped-call]
    unit = canvas.figure.dpi / 72
    dots = [_around(axes, label, _MARKER * unit) for label in labels]
    thin = [box.transformed(axes.transData) for box in lines]
    page = Bbox.from_bounds(*axes.bbox.bounds)
    taken: list[Bbox] = []
    left_out = []
    for label in sorted(labels, key=lambda one: (not one.must, one.colour == MUTED)):
        note = axes.annotate(
            label.before + plain(label.text, 30), (label.x, label.y), xytext=(0, 0), textcoords="offset points",
            color=label.colour, fontsize=TEXT, annotation_clip=False,
        )  # fmt: skip
        note.set_in_layout(False)
        own = _around(axes, label, _MARKER * unit)
        others = [dot for dot in dots if dot.bounds != own.bounds]
        place = _free_place(note, renderer, page, own, [*taken, *others], thin, label.must)
        if place is None:
            note.remove()
            left_out.append(label.text)
            continue
        box, far = place
        taken.append(box)
        if far:
            _lead(axes, label, note)
    return left_out


def _around(axes: Axes, label: Label, half: float) -> Bbox:
    x, y = axes.transData.transform((label.x, label.y))
    return Bbox.from_extents(x - half, y - half, x + half, y + half)


def _free_place(
    note: Annotation,
    renderer: object,
    page: Bbox,
    own: Bbox,
    taken: Sequence[Bbox],
    thin: Sequence[Bbox],
    must: bool,
) -> tuple[Bbox, bool] | None:
    """Move the note to the first free place; its box, and whether that is far from the dot."""
    for distance, avoided in _tries(thin, must):
        for x, y, across, along in _SIDES:
            note.set(position=(x * distance, y * distance), ha=across, va=along)
            # At another resolution, and in the fonts of a browser, the same text is a little wider.
            box = note.get_window_extent(renderer).expanded(1.05, 1.0)  # type: ignore[arg-type]
            box = box.padded(_GAP, 0)
            inside = page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1
            if not inside or box.count_overlaps([*taken, *avoided]):
                continue
            far = distance > _NEAR
            if not far or not _crosses(own, box, taken):
                return box, far
    return None


def _crosses(own: Bbox, box: Bbox, taken: Sequence[Bbox]) -> bool:
    """Whether the line from the dot to the nearest place of its label would go through another dot or label."""
    x, y = (own.x0 + own.x1) / 2, (own.y0 + own.y1) / 2
    end_x, end_y = min(max(x, box.x0), box.x1), min(max(y, box.y0), box.y1)
    steps = [step / 16 for step in range(1, 16)]
    return any(
        other.contains(x + (end_x - x) * step, y + (end_y - y) * step) for step in steps for other in taken
    )


def _tries(thin: Sequence[Bbox], must: bool) -> Iterator[tuple[float, Sequence[Bbox]]]:
    yield _NEAR, thin
    yield _NEAR, ()
    if must:
        for distance in _FAR:
            yield distance, ()


def _lead(axes: Axes, label: Label, note: Annotation) -> None:
    line = axes.annotate(
        "", (label.x, label.y), xytext=note.get_position(), textcoords="offset points", annotation_clip=False,
        arrowprops={"arrowstyle": "-", "color": SOFT, "linewidth": 0.7, "shrinkA": 0, "shrinkB": 4},
    )  # fmt: skip
    line.set_in_layout(False)

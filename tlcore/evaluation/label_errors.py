"""Labels that are probably wrong, by confident learning on predictions of networks that did not see the image.

Northcutt, Jiang & Chuang 2021, "Confident Learning: Estimating Uncertainty in Dataset Labels", section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tlcore.errors import UserError
from tlcore.values import Interval, LabelErrors, Suspect

__all__ = ["SHOWN", "ConfidentJoint", "confident_joint", "label_errors", "self_confidence_thresholds"]

SHOWN = 24
"""How many suspects are kept."""

DRAWS = 200
"""Bootstrap draws of the images."""
_WHERE = "label errors"


class ConfidentJoint(NamedTuple):
    """counts: int [K, K], given label by likely class. joint: float [K, K], the calibrated estimate, sums to 1.

    likely: int [n], each image's likely class; -1 where no class is likely.
    """

    counts: NDArray[np.int64]
    joint: NDArray[np.float64]
    likely: NDArray[np.int64]


def self_confidence_thresholds(
    probabilities: NDArray[np.float64], labels: NDArray[np.int64]
) -> NDArray[np.float64]:
    """t_j = mean of p_j over the images labelled j, [K] (eq. 2).

    A class of fewer than two labelled images has none (infinity): the network that judges its only image has never
    seen the class.
    """
    k = probabilities.shape[1]
    images = np.bincount(labels, minlength=k)
    own = np.bincount(labels, weights=probabilities[np.arange(len(labels)), labels], minlength=k)
    return np.where(images >= 2, own / np.maximum(images, 1), np.inf)


def confident_joint(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> ConfidentJoint:
    """Who is confidently of which class (eq. 1), and the joint distribution of given and true labels (eq. 3).

    probabilities: float [n, K], out-of-fold; labels: int [n]. The likely class of an image is the most probable among
    the classes whose threshold it reaches. C[i, j] counts images labelled i that are likely j. The joint gives each
    row the share of its label, C[i, j] / sum_j C[i, j] * n_i / n; a row without any count goes to the diagonal.
    """
    n, k = probabilities.shape
    reaches = probabilities >= self_confidence_thresholds(probabilities, labels) - 1e-12
    likely = np.where(reaches, probabilities, -1.0).argmax(axis=1)
    likely = np.where(reaches.any(axis=1), likely, -1).astype(np.int64)
    images = np.bincount(labels, minlength=k)
    counted = (likely >= 0) & (images[labels] >= 2)
    counts = np.bincount(labels[counted] * k + likely[counted], minlength=k * k).reshape(k, k)
    rows = counts.sum(axis=1, keepdims=True)
    shares = np.where(rows > 0, counts / np.maximum(rows, 1), np.eye(k))
    joint = shares * (images / max(n, 1))[:, None]
    return ConfidentJoint(counts.astype(np.int64), joint, np.where(counted, likely, -1))


def label_errors(
    probabilities: NDArray[np.floating],
    labels: NDArray[np.int64],
    classes: Sequence[str],
    *,
    sample_ids: Sequence[str],
    uris: Sequence[str],
    found_by: str = "",
    limit: int = SHOWN,
    seed: int = 0,
) -> LabelErrors:
    """The estimated share of wrong labels, and the images whose labels are most likely wrong.

    probabilities: [n, K] of networks that did not train on the image; labels: int [n].

    Suspects are the images off the diagonal of the confident joint whose likely class is more probable than their
    label, ranked by the normalised margin p[label] - max_{j != label} p[j], lowest first (section 3.2). The share is
    1 - trace of the calibrated joint: where the network confuses classes, it is too high. Its interval (95 %) is that of
    200 bootstrap draws of the images within their classes, and reaches to the share where they all miss it.

    Raises:
        UserError: no image, shapes that do not fit, labels outside 0 … K-1, probabilities that are none.
    """
    p, y = _checked(probabilities, labels, classes, sample_ids, uris)
    counts, joint, likely = confident_joint(p, y)
    here = np.arange(len(y))
    own, other = p[here, y], p.copy()
    other[here, y] = -1.0
    margin = own - other.max(axis=1) if p.shape[1] > 1 else own
    best = p[here, np.maximum(likely, 0)]
    suspect = np.flatnonzero((likely >= 0) & (likely != y) & (best > own))
    ranked = suspect[np.argsort(margin[suspect], kind="stable")]
    return LabelErrors(
        images=len(y), found_by=found_by, agreement=float((p.argmax(axis=1) == y).mean()),
        error_share=_off_diagonal(joint),
        error_share_ci=_interval(p, y, _off_diagonal(joint), seed), counts=tuple(map(tuple, counts.tolist())),
        found=len(suspect),
        suspects=tuple(
            Suspect(
                sample_id=sample_ids[i], uri=uris[i], label=classes[y[i]], suggested=classes[likely[i]],
                self_confidence=float(own[i]), suggested_probability=float(best[i]),
            )
            for i in ranked[:limit]
        ),
        notes=_notes(y, classes),
    )  # fmt: skip


def _off_diagonal(joint: NDArray[np.float64]) -> float:
    return float(min(1.0, max(0.0, 1 - np.trace(joint))))


def _interval(
    probabilities: NDArray[np.float64], labels: NDArray[np.int64], share: float, seed: int
) -> Interval | None:
    """Percentiles over draws of the images within their classes, so that no class is lost; it holds the share itself.
    None of a single image."""
    if len(labels) < 2:
        return None
    rng, order = np.random.default_rng(seed), np.argsort(labels, kind="stable")
    sizes = np.bincount(labels)
    starts, widths = np.repeat(np.cumsum(sizes) - sizes, sizes), np.repeat(sizes, sizes)
    found = []
    for _ in range(DRAWS):
        rows = order[starts + (rng.random(len(labels)) * widths).astype(np.int64)]
        found.append(_off_diagonal(confident_joint(probabilities[rows], labels[rows]).joint))
    low, high = np.quantile([*found, share], [0.025, 0.975])
    return Interval(low=min(float(low), share), high=max(float(high), share))


def _notes(labels: NDArray[np.int64], classes: Sequence[str]) -> tuple[str, ...]:
    lonely = [classes[int(c)] for c in np.flatnonzero(np.bincount(labels, minlength=len(classes)) == 1)]
    if not lonely:
        return ()
    shown = ", ".join(lonely[:5]) + (", …" if len(lonely) > 5 else "")
    return (f"{len(lonely)} classes of a single image cannot be judged ({shown})",)


def _checked(
    probabilities: NDArray[np.floating],
    labels: NDArray[np.int64],
    classes: Sequence[str],
    sample_ids: Sequence[str],
    uris: Sequence[str],
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    p, y = np.asarray(probabilities, dtype=np.float64), np.asarray(labels, dtype=np.int64)
    if p.ndim != 2 or not p.size or p.shape[1] != len(classes):
        raise UserError(
            f"probabilities are {list(p.shape)}, not [images, {len(classes)} classes]", where=_WHERE
        )
    if not len(p) == len(y) == len(sample_ids) == len(uris):
        raise UserError(
            f"{len(p)} rows of probabilities, {len(y)} labels, {len(sample_ids)} sample ids, {len(uris)} uris",
            where=_WHERE,
        )
    if y.min() < 0 or y.max() >= p.shape[1]:
        raise UserError(f"labels are outside 0 … {p.shape[1] - 1}", where=_WHERE)
    if not np.isfinite(p).all() or p.min() < -1e-6 or np.abs(p.sum(axis=1) - 1).max() > 1e-3:
        raise UserError("out-of-fold predictions are no probabilities", where=_WHERE)
    return p, y

"""A result broken down: by class, and by domain."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tlcore.evaluation.intervals import wilson
from tlcore.values import ClassRow, DomainRow

__all__ = ["per_class", "per_domain"]


def per_class(
    labels: NDArray[np.int64], predicted: NDArray[np.int64], classes: Sequence[str]
) -> tuple[ClassRow, ...]:
    """Recall, precision, F1 and support of every class that has an image, in encoded order.

    labels, predicted: int [n] in 0 … K-1. Recall and precision are shares of images, with Wilson's intervals; a class
    that is never predicted has no precision. F1 = 2 hits / (images + predicted).
    """
    k = len(classes)
    support, guessed = np.bincount(labels, minlength=k), np.bincount(predicted, minlength=k)
    hits = np.bincount(labels[labels == predicted], minlength=k)
    rows = []
    for c in np.flatnonzero(support):
        images, answers, right = int(support[c]), int(guessed[c]), int(hits[c])
        rows.append(
            ClassRow(
                name=classes[int(c)], images=images, predicted=answers, recall=right / images,
                recall_ci=wilson(right / images, images), precision=right / answers if answers else None,
                precision_ci=wilson(right / answers, answers) if answers else None, f1=2 * right / (images + answers),
            )
        )  # fmt: skip
    return tuple(rows)


def per_domain(correct: NDArray[np.bool_], domains: Sequence[str]) -> tuple[DomainRow, ...]:
    """Accuracy of each domain's images with Wilson's interval, in the order in which the domains first occur.

    correct: bool [n]; domains: the name of each image's domain [n].
    """
    names = np.asarray(domains, dtype=object)
    rows = []
    for name in dict.fromkeys(domains):
        hit = correct[names == name]
        share = float(hit.mean())
        rows.append(
            DomainRow(domain=name, images=len(hit), accuracy=share, accuracy_ci=wilson(share, len(hit)))
        )
    return tuple(rows)

"""The parity gate where a file answers numbers or tags: two rules instead of the three for classes.

Numbers: no answer differs by more than the tolerance times the deviation of the model's answers. Tags: no probability
differs by more than the tolerance, and both say the same tags at 0.5, probabilities within the tolerance of 0.5 left
out. An answer that is not finite never agrees.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tlcore.errors import GateError, UserError
from tlcore.export.gate import TOLERANCE
from tlcore.values import Parity, Task

__all__ = ["check_answers", "enforce_answers", "unit_of"]

_WORST = 5
_DIGITS = 1e-3
"""Share of the largest answer that the unit is at least: times a tolerance of 1e-3 that is ten times float32's
rounding."""
_NEXT = (
    "nothing was promoted and the trained weights are kept; run the same command again with another opset "
    "or exporter (known ones: tlcore plugins)"
)

Float = NDArray[np.float64]


def unit_of(numbers: NDArray[np.floating]) -> float:
    """What differences between numbers are counted in: their deviation, where rounding leaves that a meaning."""
    finite = np.asarray(numbers, np.float64)[np.isfinite(numbers)]
    if not finite.size:
        return 1.0
    return max(float(finite.std()), _DIGITS * float(np.abs(finite).max())) or 1.0


def check_answers(
    model: NDArray[np.floating],
    file: NDArray[np.floating],
    sample_ids: Sequence[str],
    task: Task,
    *,
    tolerance: float = TOLERANCE,
) -> Parity:
    """Compare the answers [n, K] of model and file to the same images.

    Returns:
        `Parity.max_probability_difference` is in deviations of the model's answers where they are numbers;
        `top1_agreement` is the share of pairs of image and tag on the same side of 0.5, and `ties` counts those left
        out. There are no accuracies.

    Raises:
        GateError: no images, or shapes that do not fit each other.
        UserError: a tolerance outside (0, 0.5).
    """
    if not 0 < tolerance < 0.5:
        raise UserError(
            f"the parity tolerance must lie between 0 and 0.5, got {tolerance}", hint="the default is 1e-3"
        )
    ours, theirs = _matrices(model, file, len(sample_ids))
    finite = np.isfinite(ours) & np.isfinite(theirs)
    difference = _difference(ours, theirs, task)
    agreement, ties = 1.0, 0
    if task == "multi-label":
        near = np.abs(ours - 0.5) < tolerance
        same = ((ours >= 0.5) == (theirs >= 0.5)) & finite
        agreement, ties = float(same[~near].mean()) if (~near).any() else 1.0, int(near.sum())
    largest = float(difference.max())
    return Parity(
        images=len(ours),
        max_probability_difference=largest,
        top1_agreement=agreement,
        ties=ties,
        accuracy_model=None,
        accuracy_file=None,
        tolerance=tolerance,
        passed=bool(finite.all() and largest <= tolerance and agreement == 1.0),
        worst=tuple(sample_ids[index] for index in _worst(difference)),
        task=task,
    )


def enforce_answers(
    parity: Parity,
    model: NDArray[np.floating],
    file: NDArray[np.floating],
    sample_ids: Sequence[str],
    *,
    where: str,
) -> None:
    """Do nothing when `parity` passed; otherwise say which images differ, by how much, and stop.

    Raises:
        GateError: the measures, the worst images with both answers, and what to do next.
    """
    if parity.passed:
        return
    ours, theirs = _matrices(model, file, len(sample_ids))
    difference = _difference(ours, theirs, parity.task)
    over = int((difference > parity.tolerance).sum())
    numbers = parity.task == "regression"
    allowed = f"{parity.tolerance:g} deviations" if numbers else f"{parity.tolerance:g}"
    parts = [
        f"the file does not answer as the model does: {over} of {parity.images} images differ by more than {allowed} "
        f"(largest {parity.max_probability_difference:.3g})"
    ]
    if not numbers:
        parts.append(f"the same tags at 0.5 in {parity.top1_agreement:.2%} of the pairs of image and tag")
    for whose, values in (("the file", theirs), ("the model itself", ours)):
        broken = int((~np.isfinite(values).all(axis=1)).sum())
        if broken:
            parts.append(f"{whose} gives no finite answer on {broken} images")
    lines = [
        f"{sample_ids[i]}: model {_row(ours[i])}, file {_row(theirs[i])}, difference {difference[i]:.3g}"
        for i in _worst(difference)
    ]
    raise GateError("; ".join(parts) + "".join(f"\n    {line}" for line in lines), where=where, hint=_NEXT)


def _matrices(model: NDArray[np.floating], file: NDArray[np.floating], names: int) -> tuple[Float, Float]:
    if model.ndim != 2 or model.shape != file.shape or len(model) != names:
        raise GateError(
            f"the model answers {list(model.shape)} and the file {list(file.shape)} for {names} images",
            hint=_NEXT,
        )
    if model.size == 0:
        raise GateError(
            "no images to compare, so nothing is proven", hint="give the run at least one validation image"
        )
    return model.astype(np.float64), file.astype(np.float64)


def _difference(ours: Float, theirs: Float, task: Task) -> Float:
    """Largest difference per image, [n], of numbers in `unit_of`; 1 where one of them is not finite."""
    unit = unit_of(ours) if task == "regression" else 1.0
    finite = (np.isfinite(ours) & np.isfinite(theirs)).all(axis=1, keepdims=True)
    gap = np.abs(np.where(finite, ours, unit) - np.where(finite, theirs, 0.0)) / unit
    return np.asarray(gap.max(axis=1))


def _worst(difference: Float) -> list[int]:
    order = np.argsort(-difference, kind="stable")[:_WORST]
    return [int(index) for index in order if difference[index] > 0]


def _row(answers: Float) -> str:
    shown = ", ".join(f"{value:.6g}" for value in answers[:_WORST])
    return shown + (", …" if len(answers) > _WORST else "")

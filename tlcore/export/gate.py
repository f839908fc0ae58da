"""The parity gate: an exported file is promoted only when it answers as the trained model does.

Three rules, all on the same real images: no class probability differs by more than the tolerance, both
give the same first class, and the accuracies are equal. The last two leave ties out: an image whose two
best model probabilities are nearer than twice the tolerance may change its first class by rounding alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from tlcore.errors import GateError, UserError
from tlcore.export.metadata import FileMetadata
from tlcore.values import UNLABELLED, Parity, Preprocess, Task

__all__ = ["MINIMUM_IMAGES", "TOLERANCE", "check_metadata", "check_parity", "enforce", "select_images"]

TOLERANCE = 1e-3
MINIMUM_IMAGES = 256
_WORST = 5

_Image = TypeVar("_Image")
_NEXT = (
    "nothing was promoted and the trained weights are kept; run the same command again with another opset "
    "or exporter (known ones: tlcore plugins)"
)


def select_images(
    validation: Sequence[_Image], others: Sequence[_Image] = (), *, minimum: int = MINIMUM_IMAGES
) -> list[_Image]:
    """All validation images; where they are fewer than `minimum`, the first of `others` on top of them.

    Probability parity needs no labels, so `others` may be any images of the run.
    """
    return [*validation, *others[: max(0, minimum - len(validation))]]


def check_metadata(
    found: FileMetadata,
    preprocess: Preprocess,
    classes: Sequence[str],
    temperature: float = 1.0,
    task: Task = "classification",
    *,
    where: str,
) -> None:
    """The file must name the classes in the model's order, prepare images by the model's rule, and be calibrated alike.

    Raises:
        GateError: naming each field that differs and both values.
    """
    differences = (
        [f"labels are {task} in the model and {found.task} in the file"] if found.task != task else []
    )
    differences += [
        f"class {index} is {ours!r} in the model and {theirs!r} in the file"
        for index, (ours, theirs) in enumerate(zip(classes, found.classes, strict=False))
        if ours != theirs
    ]
    if len(classes) != len(found.classes):
        differences.insert(0, f"{len(classes)} classes in the model, {len(found.classes)} in the file")
    ours, theirs = preprocess.model_dump(), found.preprocess.model_dump()
    differences += [
        f"preprocess.{key} is {ours[key]!r} in the model and {theirs[key]!r} in the file"
        for key in ours
        if ours[key] != theirs[key]
    ]
    if found.temperature != temperature:
        differences.append(
            f"temperature is {temperature:g} in the model and {found.temperature:g} in the file"
        )
    if differences:
        shown = "; ".join(differences[:_WORST])
        more = f"; and {len(differences) - _WORST} more" if len(differences) > _WORST else ""
        raise GateError(f"the file's metadata differs from the model: {shown}{more}", where=where, hint=_NEXT)


def check_parity(
    model_probabilities: NDArray[np.floating],
    file_probabilities: NDArray[np.floating],
    labels: Sequence[int],
    sample_ids: Sequence[str],
    *,
    tolerance: float = TOLERANCE,
) -> Parity:
    """Compare the answers of model and file on the same images.

    Args:
        model_probabilities: [n, K], from the trained network.
        file_probabilities: [n, K], from the exported file.
        labels: n encoded labels, `UNLABELLED` where there is none (those take no part in accuracy).
        sample_ids: n names, in the same order.
        tolerance: largest |p_model - p_file| that passes, in (0, 0.5).

    Returns:
        The measures and the verdict. An answer that is not finite counts as a difference of 1, never as an
        agreement, and fails. Agreement and accuracies are over images that are not ties; where all
        are ties, agreement is 1 and the probability rule decides alone.

    Raises:
        GateError: no images, or shapes that do not fit each other.
        UserError: a tolerance outside its bounds.
    """
    if not 0 < tolerance < 0.5:
        raise UserError(
            f"the parity tolerance must lie between 0 and 0.5, got {tolerance}", hint="the default is 1e-3"
        )
    model, file = _as_matrices(model_probabilities, file_probabilities, len(sample_ids), len(labels))
    difference = _difference(model, file)
    finite = np.isfinite(model).all(axis=1) & np.isfinite(file).all(axis=1)
    tie = _ties(model, tolerance)
    same = (model.argmax(axis=1) == file.argmax(axis=1)) & finite
    truth = np.asarray(labels, dtype=np.int64)
    counted = (truth != UNLABELLED) & ~tie
    right_model = (model.argmax(axis=1) == truth) & np.isfinite(model).all(axis=1)
    right_file = (file.argmax(axis=1) == truth) & np.isfinite(file).all(axis=1)
    accuracy_model = float(right_model[counted].mean()) if counted.any() else None
    accuracy_file = float(right_file[counted].mean()) if counted.any() else None
    agreement = float(same[~tie].mean()) if (~tie).any() else 1.0
    largest = float(difference.max())
    return Parity(
        images=len(model),
        max_probability_difference=largest,
        top1_agreement=agreement,
        ties=int(tie.sum()),
        accuracy_model=accuracy_model,
        accuracy_file=accuracy_file,
        tolerance=tolerance,
        passed=bool(
            finite.all() and largest <= tolerance and agreement == 1.0 and accuracy_model == accuracy_file
        ),
        worst=tuple(sample_ids[index] for index in _worst(difference)),
    )


def enforce(
    parity: Parity,
    model_probabilities: NDArray[np.floating],
    file_probabilities: NDArray[np.floating],
    sample_ids: Sequence[str],
    classes: Sequence[str],
    *,
    where: str,
) -> None:
    """Do nothing when `parity` passed; otherwise say which images differ, by how much, and stop.

    Args:
        where: the exported file, as the error names it.

    Raises:
        GateError: the measures, the worst images with both predicted classes, and what to do next.
    """
    if parity.passed:
        return
    model, file = _as_matrices(model_probabilities, file_probabilities, len(sample_ids), len(sample_ids))
    difference = _difference(model, file)
    over = int((difference > parity.tolerance).sum())
    parts = [
        f"the file does not answer as the model does: {over} of {parity.images} images differ by more than "
        f"{parity.tolerance:g} (largest {parity.max_probability_difference:.3g}), same first class on "
        f"{parity.top1_agreement:.2%} of the {parity.images - parity.ties} images that are not ties"
    ]
    if parity.accuracy_model is not None and parity.accuracy_file is not None:
        parts.append(
            f"accuracy {parity.accuracy_model:.4f} with the model, {parity.accuracy_file:.4f} with the file"
        )
    broken = int((~np.isfinite(file).all(axis=1)).sum())
    if broken:
        parts.append(f"the file gives no finite answer on {broken} images")
    unsound = int((~np.isfinite(model).all(axis=1)).sum())
    if unsound:
        parts.append(f"the model itself gives no finite answer on {unsound} images: its training diverged")
    lines = [
        f"{sample_ids[index]}: model {_first(model[index], classes)}, file {_first(file[index], classes)}, "
        f"difference {difference[index]:.3g}"
        for index in _worst(difference)
    ]
    raise GateError("; ".join(parts) + "".join(f"\n    {line}" for line in lines), where=where, hint=_NEXT)


def _as_matrices(
    model: NDArray[np.floating], file: NDArray[np.floating], names: int, labels: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if model.ndim != 2 or model.shape != file.shape:
        raise GateError(
            f"the model answers {list(model.shape)} and the file {list(file.shape)}; both must be [images, classes]",
            hint=_NEXT,
        )
    if not (len(model) == names == labels):
        raise GateError(f"{len(model)} answers for {names} images and {labels} labels", hint=_NEXT)
    if model.size == 0:
        raise GateError(
            "no images to compare, so nothing is proven", hint="give the run at least one validation image"
        )
    return model.astype(np.float64), file.astype(np.float64)


def _difference(model: NDArray[np.float64], file: NDArray[np.float64]) -> NDArray[np.float64]:
    """Largest |p_model - p_file| per image [n]; 1 where one of them is not finite."""
    finite = (np.isfinite(model) & np.isfinite(file)).all(axis=1, keepdims=True)
    gap = np.abs(np.where(finite, model, 1.0) - np.where(finite, file, 0.0))
    return np.asarray(gap.max(axis=1))


def _ties(model: NDArray[np.float64], tolerance: float) -> NDArray[np.bool_]:
    """Images [n] whose two best model probabilities are nearer than twice the tolerance."""
    if model.shape[1] < 2:
        return np.zeros(len(model), dtype=bool)
    best = np.sort(model, axis=1)[:, -2:]
    near: NDArray[np.bool_] = np.less(best[:, 1] - best[:, 0], 2 * tolerance)
    return near  # not finite: never a tie


def _worst(difference: NDArray[np.float64]) -> list[int]:
    order = np.argsort(-difference, kind="stable")[:_WORST]
    return [int(index) for index in order if difference[index] > 0]


def _first(probabilities: NDArray[np.float64], classes: Sequence[str]) -> str:
    if not np.isfinite(probabilities).all():
        return "not finite"
    best = int(probabilities.argmax())
    name = classes[best] if best < len(classes) else f"column {best}"
    return f"{name} {probabilities[best]:.4f}"

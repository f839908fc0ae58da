from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from pydantic import ValidationError

from tlcore.hookspecs import HOOK_API
from tlcore.protocols import ValidatorOutputs
from tlcore_validators.im import InformationMaximisation, tlcore_validators


def outputs(p: np.ndarray) -> ValidatorOutputs:
    empty = np.zeros((0, 3), dtype=np.float32)
    return ValidatorOutputs(
        target_probabilities=p,
        source_probabilities=np.zeros((0, p.shape[1])),
        source_labels=np.zeros(0, dtype=np.int64),
        target_features=empty,
        source_features=empty,
    )


def test_im_is_the_entropy_of_the_mean_minus_the_mean_entropy() -> None:
    p = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.2, 0.3, 0.5]])
    mean = p.mean(axis=0)
    expected = -(mean * np.log(mean)).sum() + (p * np.log(p)).sum(axis=1).mean()
    assert InformationMaximisation().score(outputs(p)) == pytest.approx(expected, abs=1e-12)


def test_im_prefers_separated_target_predictions_to_vague_and_to_collapsed_ones() -> None:
    score = InformationMaximisation().score
    separated = np.eye(3)[[0, 1, 2, 0, 1, 2]] * 0.9 + 0.1 / 3
    vague = np.full((6, 3), 1 / 3)
    collapsed = np.tile([0.98, 0.01, 0.01], (6, 1))
    assert score(outputs(separated)) > max(score(outputs(vague)), score(outputs(collapsed))) + 0.5


def test_im_is_registered_under_its_name_for_this_hook_api() -> None:
    (validator,) = tlcore_validators()
    assert (validator.card.name, validator.card.api) == ("im", HOOK_API)


def test_im_refuses_options_it_does_not_have() -> None:
    with pytest.raises(ValidationError):
        InformationMaximisation(temperature=2)  # type: ignore[call-arg]


def test_importing_the_module_brings_in_no_heavy_package() -> None:
    heavy = [
        "torch",
        "timm",
        "torchvision",
        "polars",
        "pandera",
        "scipy",
        "sklearn",
        "matplotlib",
        "onnx",
        "onnxruntime",
    ]
    code = f"import sys, tlcore_validators.im; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("k", [2, 5])
def test_both_bounds_of_im_are_reached(k: int) -> None:
    im = InformationMaximisation()
    lowest, highest = im.bounds(outputs(np.eye(k)))
    assert im.score(outputs(np.eye(k))) == pytest.approx(highest)
    assert im.score(outputs(np.full((4, k), 1 / k))) == pytest.approx(lowest)

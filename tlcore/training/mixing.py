"""Mixup, CutMix and RandAugment by timm, on batches, drawn from a seed.

timm draws from Python's and NumPy's global generators; here they are seeded for a moment and put back.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from threading import Lock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tlcore.errors import UserError

__all__ = ["mixed", "randomly_augmented", "seeded"]

_GLOBALS = Lock()
_TRANSFORM_SETS = ("weights", "3a", "3aw")
"""Names that RandAugment's section "t" may give; timm takes any other for its default."""


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Python's and NumPy's global generators in this seed; afterwards as they were."""
    with _GLOBALS:
        before, numbers = random.getstate(), np.random.get_state()
        try:
            random.seed(seed)
            np.random.seed(seed % 2**32)
            yield
        finally:
            random.setstate(before)
            np.random.set_state(numbers)


def mixed(inputs: Tensor, mixup: float, cutmix: float, seed: int) -> tuple[Tensor, float]:
    """The batch mixed with itself in reverse order, and each image's share in its own place.

    s x + (1 - s) reversed x (mixup), or a box of share 1 - s pasted from the reversed batch (CutMix); with both alphas
    above 0 each is as likely. s is drawn from Beta(alpha, alpha).

    Args:
        inputs: float [n, 3, H, W]; it may be changed in place.
    """
    from timm.data.mixup import Mixup

    count = len(inputs)
    if count < 2:
        return inputs, 1.0
    mix = Mixup(mixup_alpha=mixup, cutmix_alpha=cutmix, label_smoothing=0.0, num_classes=2)
    middle = count // 2
    if count % 2:  # timm takes even batches: the middle one, which is mixed with itself, stands in twice
        inputs = torch.cat([inputs[: middle + 1], inputs[middle:]])
    marks = torch.zeros(len(inputs), dtype=torch.int64, device=inputs.device)
    marks[-1] = 1  # so that the first one's soft label tells the share
    with seeded(seed):
        blended, soft = mix(inputs, marks)
    if count % 2:
        blended = torch.cat([blended[: middle + 1], blended[middle + 2 :]])
    return blended, float(soft[0, 0])


def randomly_augmented(pixels: NDArray[np.uint8], policy: str, seed: int) -> NDArray[np.uint8]:
    """timm's RandAugment (Cubuk et al. 2020) or another of its policies on uint8 [n, H, W, 3].

    Raises:
        UserError: timm does not know the policy.
    """
    from PIL import Image

    transform = _policy(policy, *pixels.shape[1:3])
    with seeded(seed):
        made = [np.asarray(transform(Image.fromarray(image))) for image in pixels]
    return np.stack(made)


def _refuse_ignored(policy: str) -> None:
    """timm leaves out, without a word, sections that hold no number and sets of transforms that it does not know.

    Raises:
        ValueError: such a section.
    """
    for section in policy.split("-")[1:]:
        if policy.startswith("rand") and section.startswith("t"):
            known = section[1:] in _TRANSFORM_SETS
        else:
            known = re.search(r"\d", section) is not None  # whether its key is known timm asks itself
        if not known:
            raise ValueError(f'the part "{section}" means nothing to it')


@lru_cache(maxsize=8)
def _policy(policy: str, height: int, width: int) -> Any:
    from timm.data.auto_augment import (
        augment_and_mix_transform,
        auto_augment_transform,
        rand_augment_transform,
    )

    make = (
        rand_augment_transform
        if policy.startswith("rand")
        else augment_and_mix_transform
        if policy.startswith("augmix")
        else auto_augment_transform
    )
    try:
        _refuse_ignored(policy)
        return make(policy, {"translate_const": int(0.45 * min(height, width)), "img_mean": (124, 116, 104)})
    except (AssertionError, ValueError, KeyError) as error:
        raise UserError(
            f'timm knows no augmentation policy "{policy}": {str(error) or "it cannot be read"}',
            hint='write one like "rand-m9-mstd0.5", "augmix-m3-w3" or "original"',
        ) from None

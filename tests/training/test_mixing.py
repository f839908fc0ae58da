"""Policies of augmentation in timm's notation."""

from __future__ import annotations

import numpy as np
import pytest

from tlcore.errors import UserError
from tlcore.training.mixing import randomly_augmented

BLANK = np.zeros((1, 16, 16, 3), np.uint8)


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ("rand-xx", '"xx"'),
        ("rand-m9-mstd", '"mstd"'),
        ("rand-m9--n3", '""'),
        ("rand-tweight", '"tweight"'),
        ("rand-m9-t", '"t"'),
        ("augmix-m3-wide", '"wide"'),
        ("augmix-d-1", '"d"'),
        ("original-mstd", '"mstd"'),
        ("rand-q9", "section"),
        ("rand-m9.5", "invalid literal"),
        ("v0-n2", "section"),
        ("random-m9", "cannot be read"),
    ],
)
def test_a_policy_of_which_timm_would_leave_a_part_out_is_refused(policy: str, said: str) -> None:
    with pytest.raises(UserError, match="knows no augmentation policy") as caught:
        randomly_augmented(BLANK, policy, 0)
    assert said in caught.value.what and "rand-m9-mstd0.5" in (caught.value.hint or "")


@pytest.mark.parametrize(
    "policy",
    [
        "rand", "rand-m9-n3-p0.4-mstd0.5-mmax12-inc1", "rand-mstd1-tweights", "rand-m5-t3a", "rand-t3aw",
        "augmix-m5-w4-d2-a0.5-b1-mstd1", "original-mstd0.5", "originalr", "v0", "v0r", "3a",
    ],
)  # fmt: skip
def test_every_policy_of_timms_notation_is_read(policy: str) -> None:
    assert randomly_augmented(BLANK, policy, 0).shape == BLANK.shape

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tlcore.errors import UserError
from tlcore.training.folds import FoldRun, can_part, fold_numbers, pool
from tlcore.training.job import Picked
from tlcore.training.objectives import Supervised
from tlcore.training.plan import Group, HeadFit, Move, Phase, TrainPlan

LABELS = np.array([0, 1, 0, 1, 0, 1])
PARTS = np.array([0, 0, 1, 1, 2, 2])


@settings(max_examples=60, deadline=None)
@given(
    labels=st.lists(st.integers(0, 3), min_size=4, max_size=60),
    folds=st.integers(2, 8),
    seed=st.integers(0, 5),
    copies=st.lists(st.integers(0, 30), min_size=60, max_size=60),
)
def test_copies_stay_together_and_every_part_has_images(
    labels: list[int], folds: int, seed: int, copies: list[int]
) -> None:
    strata = np.array(labels)
    groups = [f"{copy}" for copy in copies[: len(labels)]]
    if not can_part(strata, groups):
        with pytest.raises(UserError, match="cannot be parted"):
            fold_numbers(strata, groups, folds, seed)
        return
    parts = fold_numbers(strata, groups, folds, seed)
    assert parts.shape == strata.shape and 2 <= parts.max() + 1 <= folds
    assert set(parts) == set(range(parts.max() + 1))
    assert all(
        len({part for part, group in zip(parts, groups, strict=True) if group == one}) == 1
        for one in set(groups)
    )
    assert np.array_equal(parts, fold_numbers(strata, groups, folds, seed))


def test_classes_are_spread_evenly() -> None:
    strata = np.repeat(np.arange(4), 10)
    parts = fold_numbers(strata, [str(i) for i in range(40)], 5, 0)
    assert all((np.bincount(parts[strata == k], minlength=5) == 2).all() for k in range(4))


def _answers(*right: bool) -> np.ndarray:
    """For two images of classes 0 and 1: whether each is right."""
    first, second = right
    return np.array([[0.9, 0.1] if first else [0.1, 0.9], [0.1, 0.9] if second else [0.9, 0.1]], np.float32)


def _run(looks: dict[tuple[str, int], np.ndarray], picked: dict[int, Picked]) -> FoldRun:
    return FoldRun(looks, picked, _answers(False, False))


def _phase(**parts: object) -> Phase:
    return Phase("tune", Supervised(), (Move((Group("all", 1e-3),)),), 3, **parts)  # type: ignore[arg-type]


PROBE = HeadFit("probe", lambda problem: (np.zeros((2, 2)), np.zeros(2), {}))


def test_one_epoch_is_chosen_by_all_parts_together_not_by_each() -> None:
    """Each part has an epoch of its own where it is perfect; together the second is best."""
    right = [  # of each part, by epoch
        ((True, True), (True, False), (False, False)),
        ((False, False), (True, True), (False, False)),
        ((False, False), (True, False), (True, True)),
    ]
    runs = [
        _run({("tune", e + 1): _answers(*one) for e, one in enumerate(part)}, {0: Picked(number + 1)})
        for number, part in enumerate(right)
    ]
    found = pool(TrainPlan((_phase(),)), runs, PARTS, LABELS, "classification")
    assert found.picked == {0: Picked(2)}
    assert found.measured.shown["validation_accuracy"] == pytest.approx(4 / 6)
    assert found.outputs.shape == (6, 2) and np.array_equal(found.outputs[2:4], _answers(True, True))


def test_the_probe_stays_where_no_epoch_is_better_than_it() -> None:
    worse = {("tune", epoch): _answers(True, False) for epoch in (1, 2, 3)}
    runs = [_run({("probe", 1): _answers(True, True), **worse}, {0: Picked(1), 1: Picked(0)})] * 3
    found = pool(TrainPlan((PROBE, _phase())), runs, PARTS, LABELS, "classification")
    assert found.picked == {0: Picked(1), 1: Picked(0)} and found.measured.choice[0] == 1.0


def test_blends_compete_with_epochs_whatever_epoch_each_part_ended_with() -> None:
    runs = [
        _run(
            {("tune", e): _answers(True, False), ("tune at 0.4", e): _answers(True, True)},
            {0: Picked(e, 0.4)},
        )
        for e in (1, 2, 3)
    ]
    found = pool(TrainPlan((_phase(interpolate=(0.4,)),)), runs, PARTS, LABELS, "classification")
    assert found.picked == {0: Picked(2, 0.4)} and found.measured.choice[0] == 1.0


def test_a_part_that_ended_early_stays_at_what_it_kept() -> None:
    early = _run({("tune", 1): _answers(True, True), ("tune", 2): _answers(True, False)}, {0: Picked(1)})
    late = {("tune", e): _answers(e == 9, e == 9) for e in range(1, 10)}
    runs = [early, _run(late, {0: Picked(9)}), _run(late, {0: Picked(9)})]
    found = pool(TrainPlan((_phase(),)), runs, PARTS, LABELS, "classification")
    assert found.picked == {0: Picked(9)} and found.measured.choice[0] == 1.0


def test_without_a_look_each_part_answers_as_it_ended() -> None:
    runs = [FoldRun({}, {0: Picked(0)}, _answers(True, False))] * 3
    found = pool(TrainPlan((_phase(),)), runs, PARTS, LABELS, "classification")
    assert found.picked == {0: Picked(0)} and found.measured.choice[0] == 0.5


def test_the_start_is_what_the_last_phase_that_moved_left() -> None:
    plan = TrainPlan((PROBE, replace(_phase(), name="first"), _phase()))
    runs = [_run({("probe", 1): _answers(True, True)}, {0: Picked(1), 1: Picked(0), 2: Picked(0)})] * 3
    found = pool(plan, runs, PARTS, LABELS, "classification")
    assert found.picked[2] == Picked(0) and found.measured.choice[0] == 1.0


def test_earlier_phases_end_where_the_middle_one_of_the_parts_did() -> None:
    plan = TrainPlan((_phase(), HeadFit("probe", PROBE.fit)))
    runs = [
        _run({("probe", 1): _answers(True, True)}, {0: Picked(epoch), 1: Picked(1)}) for epoch in (1, 3, 3)
    ]
    assert pool(plan, runs, PARTS, LABELS, "classification").picked == {0: Picked(3), 1: Picked(1)}


def test_a_phase_that_keeps_its_end_is_not_chosen_from() -> None:
    runs = [_run({("tune", e): _answers(e < 3, e < 3) for e in (1, 2, 3)}, {0: Picked(3)})] * 3
    found = pool(TrainPlan((_phase(choose="last"),)), runs, PARTS, LABELS, "classification")
    assert found.picked == {0: Picked(3)} and found.measured.choice[0] == 0.0

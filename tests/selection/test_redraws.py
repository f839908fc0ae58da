"""What scorers get to see on all images and on subsets: right for each, and made once for all."""

from __future__ import annotations

import threading
from typing import ClassVar

import numpy as np
import pytest
from pydantic import PrivateAttr
from threadpoolctl import threadpool_info

from tlcore.errors import UserError
from tlcore.features.moments import Moments
from tlcore.protocols import Card, Evidence, Scorer
from tlcore.selection.blas import SMALL, calm_blas
from tlcore.selection.ranking import COSTLY_ROWS, MINIMUM_REPLICATES, score_candidate
from tlcore.selection.subsets import draw_scale, half_samples
from tlcore.values import Candidate

CANDIDATE = Candidate(name="net", source={}, architecture="resnet18", params=11, gmacs=1.8, licence="MIT")


class Witness(Scorer):
    """Keeps every evidence that it is shown."""

    card: ClassVar[Card] = Card("witness", "s", "none", traits=frozenset({"features"}))
    _seen: list[Evidence] = PrivateAttr(default_factory=list)

    def score(self, evidence: Evidence) -> float:
        self._seen.append(evidence)
        return float(evidence.moments.n)


class Second(Witness):
    card: ClassVar[Card] = Card("second", "s", "none")


class Turned(Witness):
    card: ClassVar[Card] = Card("turned", "s", "none", traits=frozenset({"rotation-invariant"}))


class TurnedReader(Witness):
    card: ClassVar[Card] = Card("reader", "s", "none", traits=frozenset({"rotation-invariant", "features"}))


class Folded(Witness):
    card: ClassVar[Card] = Card("folded", "s", "none", traits=frozenset({"folds"}))


class FoldedTurned(Witness):
    card: ClassVar[Card] = Card(
        "folded-turned", "s", "none", traits=frozenset({"folds", "rotation-invariant"})
    )


class Sampling(Scorer):
    card: ClassVar[Card] = Card("sampling", "s", "none", traits=frozenset({"features"}))

    def score(self, evidence: Evidence) -> float:
        return float(evidence.features()[evidence.sample(100)].mean())


class Costly(Witness):
    card: ClassVar[Card] = Card("costly", "s", "none", traits=frozenset({"costly"}))


class Picky(Witness):
    """Defined only where the first image of the subset has an even number."""

    card: ClassVar[Card] = Card("picky", "s", "none")

    def score(self, evidence: Evidence) -> float:
        if evidence.moments.n < 60 and int(evidence.features()[0, 0]) % 2:
            raise UserError("odd")
        return float(evidence.features()[0, 0])


def _evidence(n: int = 60, d: int = 90, classes: int = 3) -> Evidence:
    features = np.random.default_rng(0).normal(size=(n, d)).astype(np.float32)
    features[:, 0] = np.arange(n)
    labels = np.arange(n, dtype=np.int64) % classes
    mass = np.random.default_rng(1).dirichlet(np.ones(4), size=n).astype(np.float32)
    return Evidence(
        Moments.of(features, labels, classes, mass), labels, lambda: features, lambda: mass, seed=3
    )


def test_draws_are_the_scores_on_the_half_samples_in_their_order() -> None:
    evidence = _evidence()
    witness = Witness()
    entry = score_candidate([witness, Picky()], evidence, CANDIDATE, replicates=12)
    subsets = half_samples(evidence.labels, 12, seed=3)
    assert [e.features()[:, 0].astype(int).tolist() for e in witness._seen[1:]] == [
        s.tolist() for s in subsets
    ]
    for rows, seen in zip(subsets, witness._seen[1:], strict=True):
        np.testing.assert_array_equal(seen.labels, evidence.labels[rows])
        wanted = Moments.of(evidence.features()[rows], seen.labels, 3, evidence.source_probabilities()[rows])
        np.testing.assert_allclose(seen.moments.centred_gram, wanted.centred_gram, rtol=1e-12)
        np.testing.assert_allclose(seen.moments.source_mass, wanted.source_mass, rtol=1e-12)
    assert entry.draws["witness"] == (30.0,) * 12
    assert set(entry.draw_scale.values()) == {draw_scale(60, 30)} == {1.0}
    firsts = [int(rows[0]) for rows in subsets]
    defined = [value for value in firsts if value % 2 == 0]
    if len(defined) >= 8:
        assert entry.draws["picky"] == tuple(float(v) if v % 2 == 0 else None for v in firsts)
    else:
        assert "picky" not in entry.draws and any("not defined on subsets" in note for note in entry.notes)
    assert (entry.gmacs, entry.licence, entry.params) == (1.8, "MIT", 11)


def test_every_candidate_is_redrawn_on_the_same_images() -> None:
    one, other = Witness(), Witness()
    score_candidate([one], _evidence(d=5), CANDIDATE)
    score_candidate([other], _evidence(d=200), CANDIDATE)
    for a, b in zip(one._seen, other._seen, strict=True):
        np.testing.assert_array_equal(a.features()[:, 0], b.features()[:, 0])


def test_scorers_that_want_the_same_share_one_evidence() -> None:
    witness, second, turned, reader = Witness(), Second(), Turned(), TurnedReader()
    score_candidate([witness, second, turned, reader], _evidence(), CANDIDATE, replicates=8)
    assert len(witness._seen) == len(turned._seen) == 9
    assert all(a.moments is b.moments for a, b in zip(witness._seen, second._seen, strict=True))
    assert all(a.moments is b.moments for a, b in zip(turned._seen[1:], reader._seen[1:], strict=True))
    assert [e.moments.dim for e in witness._seen] == [90] * 9
    assert [e.moments.dim for e in turned._seen] == [60, *[30] * 8]
    assert (
        reader._seen[0].moments is witness._seen[0].moments
    )  # on all images, who reads features sees them as they are


def test_turned_images_keep_all_inner_products() -> None:
    turned = Turned()
    evidence = _evidence()
    score_candidate([turned], evidence, CANDIDATE, replicates=8)
    subsets = [np.arange(60), *half_samples(evidence.labels, 8, seed=3)]
    for rows, seen in zip(subsets, turned._seen, strict=True):
        plain = evidence.features()[rows].astype(np.float64)
        np.testing.assert_allclose(seen.features() @ seen.features().T, plain @ plain.T, rtol=2e-4, atol=2e-2)
        spectrum = np.linalg.eigvalsh(seen.moments.centred_gram)[::-1][:20]
        wanted = np.linalg.eigvalsh((plain - plain.mean(0)) @ (plain - plain.mean(0)).T)[::-1][:20]
        np.testing.assert_allclose(spectrum, wanted, rtol=1e-9)


def test_folds_are_made_for_who_wants_them_and_sum_to_the_moments() -> None:
    plain, turned, without = Folded(), FoldedTurned(), Witness()
    score_candidate([plain, turned, without], _evidence(), CANDIDATE, replicates=8)
    for witness in (plain, turned):
        assert len(witness._seen) == 9
        for seen in witness._seen:
            total = Moments.merge(seen.folds)
            assert total.n == seen.moments.n and len(seen.folds) > 1
            np.testing.assert_allclose(total.centred_gram, seen.moments.centred_gram, atol=1e-7)
    assert all(seen.folds == () for seen in without._seen)


def test_a_costly_scorer_is_asked_again_on_part_of_each_large_subset() -> None:
    costly, second = Costly(), Second()
    entry = score_candidate([costly, second], _evidence(600, 4, 2), CANDIDATE, replicates=8)
    assert [seen.labels.size for seen in costly._seen] == [600, *[COSTLY_ROWS] * 8]
    assert [seen.labels.size for seen in second._seen] == [600, *[300] * 8]
    for part, whole in zip(costly._seen[1:], second._seen[1:], strict=True):
        assert {tuple(row) for row in part.features()} <= {tuple(row) for row in whole.features()}
        assert np.ptp(np.bincount(part.labels)) == 0
    assert entry.draw_scale == {"second": 1.0, "costly": draw_scale(600, 300, 600, COSTLY_ROWS)}
    assert entry.draw_scale["costly"] == pytest.approx(np.sqrt(160 / 440))


def test_a_costly_scorer_is_not_asked_again_where_two_images_of_each_class_are_too_many() -> None:
    classes = COSTLY_ROWS // 2 + 1
    costly = Costly()
    entry = score_candidate([costly, Second()], _evidence(6 * classes, 4, classes), CANDIDATE, replicates=8)
    assert len(costly._seen) == 1 and list(entry.draws) == ["second"]
    assert entry.notes == (
        f"costly: no spread, its cost on subsets of more than {COSTLY_ROWS} images is too high",
    )


def test_a_long_tail_of_classes_does_not_keep_a_costly_scorer_from_being_redrawn() -> None:
    labels = np.repeat(np.arange(31), [600, *[6] * 30])
    features = np.random.default_rng(0).normal(size=(labels.size, 4)).astype(np.float32)
    evidence = Evidence(Moments.of(features, labels, 31), labels, lambda: features, lambda: None)
    costly = Costly()
    entry = score_candidate([costly], evidence, CANDIDATE, replicates=8)
    assert [seen.labels.size for seen in costly._seen] == [labels.size, *[COSTLY_ROWS] * 8]
    assert len(entry.draws["costly"]) == 8 and not entry.notes


def test_a_scorer_that_reads_a_sample_has_the_scale_of_the_sample() -> None:
    entry = score_candidate([Sampling()], _evidence(600, 4, 2), CANDIDATE, replicates=8)
    assert entry.draw_scale["sampling"] == pytest.approx(np.sqrt((1 / 100) / (1 / 100 - 1 / 600)))


def test_classes_of_one_image_count_for_nothing_in_the_scale() -> None:
    """They are in every subset: the class of ten alone varies, by halves."""
    labels = np.array([0] * 10 + list(range(1, 11)))
    features = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    evidence = Evidence(Moments.of(features, labels, 11), labels, lambda: features, lambda: None)
    assert score_candidate([Second()], evidence, CANDIDATE, replicates=8).draw_scale == {"second": 1.0}


def test_too_few_replicates_for_an_interval_give_none_and_say_so() -> None:
    entry = score_candidate([Second()], _evidence(), CANDIDATE, replicates=MINIMUM_REPLICATES - 1)
    assert entry.draws == {} and entry.spread == {}
    assert entry.notes == ("second: no spread, fewer than 8 replicates",)


def test_no_replicates_and_no_labels_to_halve_give_scores_without_draws() -> None:
    entry = score_candidate([Second()], _evidence(), CANDIDATE, replicates=0)
    assert entry.draws == {} and entry.scores and entry.notes == ()
    few = score_candidate([Second()], _evidence(3), CANDIDATE)
    assert few.draws == {} and few.scores and "no spread" in few.notes[0]


def test_small_matrices_run_on_one_thread_and_the_number_comes_back() -> None:
    def threads() -> list[int]:
        return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]

    before = threads()
    seen: list[set[int]] = []

    def work() -> None:
        with calm_blas(SMALL), calm_blas(0):  # nests
            seen.append(set(threads()))

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    work()
    for worker in workers:
        worker.join(30)
    assert seen == [{1}] * 5
    assert threads() == before
    with calm_blas(SMALL + 1):
        assert threads() == before

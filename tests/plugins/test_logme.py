"""LogME against brute force, and every hazard that the public implementations are known for."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize, minimize_scalar
from scipy.stats import multivariate_normal

from tlcore.errors import UserError
from tlcore.features.moments import Moments
from tlcore.features.regression import RegressionMoments
from tlcore.protocols import Evidence
from tlcore_scorers.logme import LogME, class_evidence, target_evidence


def _score(features: NDArray, labels: NDArray, classes: int | None = None, *, centred: bool = True) -> float:
    labels = np.asarray(labels)
    moments = Moments.of(features, labels, classes or int(labels.max()) + 1)
    return LogME(centred=centred).score(
        Evidence(moments=moments, labels=labels, features=lambda: features, source_probabilities=lambda: None)
    )


def _problem(n: int, d: int, classes: int = 3, signal: float = 1.0, seed: int = 0) -> tuple[NDArray, NDArray]:
    draw = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    centres = draw.normal(size=(classes, d)) * signal
    return centres[labels] + draw.normal(size=(n, d)) * np.geomspace(2, 0.2, d), labels


def _contrasts(n: int) -> NDArray:
    """[n, n-1] orthonormal columns that sum to zero (Helmert)."""
    basis = np.zeros((n, n - 1))
    for j in range(1, n):
        basis[:j, j - 1], basis[j, j - 1] = 1.0, -float(j)
    return basis / np.linalg.norm(basis, axis=0)


def _brute_force(features: NDArray, labels: NDArray, *, centred: bool) -> float:
    """Mean over classes of max over (alpha, beta) of log N(y; 0, I/beta + F F^T/alpha) / rows.

    Builds the n x n covariance and searches both precisions from several starts; shares nothing with the
    product but the model.
    """
    features = features.astype(np.float64)
    rotate = _contrasts(len(labels)).T if centred else np.eye(len(labels))
    kernel = rotate @ features @ features.T @ rotate.T
    kernel_scale = np.trace(kernel) / len(kernel)
    best_of_classes = []
    for label in np.unique(labels):
        target = rotate @ (labels == label).astype(np.float64)
        spread = target @ target / len(target)

        def negative(logs: NDArray, target: NDArray = target, spread: float = spread) -> float:
            noise, weight = np.exp(np.clip(logs, -40, 20))
            covariance = spread * (noise * np.eye(len(target)) + weight / kernel_scale * kernel)
            sign, logdet = np.linalg.slogdet(covariance)
            if sign <= 0:
                return np.inf
            return 0.5 * (
                len(target) * np.log(2 * np.pi) + logdet + target @ np.linalg.solve(covariance, target)
            )

        starts = [(0.0, -30.0), (-0.5, -0.5), (-3.0, 0.0), (-6.0, -2.0), (-1.0, 3.0)]
        runs = [
            minimize(
                negative, s, method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-10, "maxiter": 4000}
            )
            for s in starts
        ]
        best = min(runs, key=lambda run: run.fun)
        noise, weight = np.exp(np.clip(best.x, -40, 20))
        covariance = spread * (noise * np.eye(len(target)) + weight / kernel_scale * kernel)
        density = multivariate_normal(cov=covariance, allow_singular=False).logpdf(target)
        assert density == pytest.approx(-best.fun, rel=1e-7)
        best_of_classes.append(density / len(target))
    return float(np.mean(best_of_classes))


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize(
    ("n", "d", "signal"),
    [(40, 6, 1.0), (40, 6, 0.0), (24, 60, 1.0), (24, 60, 0.3), (24, 60, 0.0), (30, 30, 0.5), (30, 29, 0.5)],
)
def test_brute_force_maximisation_agrees(n: int, d: int, signal: float, centred: bool) -> None:
    features, labels = _problem(n, d, signal=signal)
    assert _score(features, labels, centred=centred) == pytest.approx(
        _brute_force(features, labels, centred=centred), abs=1e-5
    )


@pytest.mark.parametrize(("n", "d"), [(40, 6), (24, 60)])
def test_brute_force_agrees_with_constant_features_too(n: int, d: int) -> None:
    features, labels = _problem(n, d)
    for constant in (1.0, 50.0):
        wider = np.column_stack([features, np.full((n, 2), constant)])
        assert _score(wider, labels) == pytest.approx(_brute_force(wider, labels, centred=True), abs=1e-5)
        assert _score(wider, labels) == pytest.approx(_score(features, labels), abs=1e-9)
        assert _score(wider, labels, centred=False) == pytest.approx(
            _brute_force(wider, labels, centred=False), abs=1e-5
        )


def test_merged_shards_score_as_one_pass() -> None:
    for d in (16, 150):
        features, labels = _problem(90, d)
        parts = np.array_split(np.random.default_rng(1).permutation(90), 4)
        merged = Moments.merge(Moments.of(features[p], labels[p], 3) for p in parts)
        one = class_evidence(Moments.of(features, labels, 3)).per_row
        np.testing.assert_allclose(class_evidence(merged).per_row, one, rtol=1e-10)


def test_wide_noise_scores_below_an_informative_network() -> None:
    """The public code gives the noise 41.6 and the informative model 0.855."""
    draw = np.random.default_rng(0)
    labels = np.arange(200) % 5
    informative = np.eye(5)[labels] @ draw.normal(size=(5, 128)) + draw.normal(size=(200, 128)) * 0.5
    noise = draw.normal(size=(200, 2048))
    assert _score(noise, labels) < 0 < _score(informative, labels)
    null = -0.5 * np.log(2 * np.pi * np.e * 200 * 0.2 * 0.8 / 199)
    assert _score(noise, labels) == pytest.approx(null, abs=0.02)


def test_duplicated_features_change_nothing() -> None:
    """The public code gives 0.855, 1.68, 5.43 and 12.93 for the same features 1, 2, 4 and 8 times."""
    features, labels = _problem(200, 128, classes=5)
    once = _score(features, labels)
    for copies in (2, 4, 8):
        assert _score(np.tile(features, copies), labels) == pytest.approx(once, abs=1e-9)


@pytest.mark.parametrize("factor", [1e3, 1e4, 1e-6])
@pytest.mark.parametrize("d", [8, 90])
def test_the_scale_of_features_changes_nothing(factor: float, d: int) -> None:
    features, labels = _problem(60, d)
    for centred in (True, False):
        assert _score(features * factor, labels, centred=centred) == pytest.approx(
            _score(features, labels, centred=centred), abs=1e-10
        )


def test_rotation_and_offset_change_nothing() -> None:
    features, labels = _problem(60, 20)
    rotation = np.linalg.qr(np.random.default_rng(3).normal(size=(20, 20)))[0]
    assert _score(features @ rotation, labels) == pytest.approx(_score(features, labels), abs=1e-11)
    assert _score(features + 1e4, labels) == pytest.approx(_score(features, labels), abs=1e-8)


def test_gaps_in_the_labels_change_nothing() -> None:
    features, labels = _problem(60, 8, classes=5)
    gaps = np.array([0, 1, 2, 3, 9])[labels]
    assert _score(features, gaps, classes=12) == _score(features, labels, classes=5)


def test_float32_features_with_an_offset_of_50_keep_their_score() -> None:
    features, labels = _problem(400, 32)
    shifted = (features + 50).astype(np.float32)
    exact = shifted.astype(np.float64) - 50
    assert _score(shifted, labels) == pytest.approx(_score(exact, labels), abs=1e-9)


def test_labels_in_the_column_space_score_finitely_and_are_flagged() -> None:
    """Far fewer features than images explain the labels wholly: the evidence has no upper bound."""
    features, labels = _problem(80, 10)
    features = np.column_stack([features, np.eye(3)[labels]])
    found = class_evidence(Moments.of(features, labels, 3))
    assert np.isfinite(found.per_row).all() and found.interpolates.all()
    assert 5 < _score(features, labels) < 15
    assert not class_evidence(Moments.of(*_problem(80, 10), 3)).interpolates.any()


def test_features_that_say_nothing_are_flagged_and_score_the_null_evidence() -> None:
    labels = np.repeat([0, 1], 20)
    features = np.tile(np.random.default_rng(0).normal(size=(10, 3)), (4, 1))  # the same in both classes
    found = class_evidence(Moments.of(features, labels, 2))
    assert found.no_signal.all() and np.isinf(found.ratio).all()
    np.testing.assert_allclose(found.per_row, -0.5 * np.log(2 * np.pi * np.e * 10 / 39), rtol=1e-12)


def test_two_separate_maxima_do_not_hide_the_higher_one() -> None:
    """Strong directions of no use and weak ones that explain: compare with a dense scan of log t."""
    draw = np.random.default_rng(5)
    labels = np.arange(120) % 2
    sign = 2.0 * labels - 1
    for strength in (3e-5, 1e-4, 1e-3, 1e-2):
        strong = draw.normal(size=(120, 30)) * 100 + sign[:, None] * 6
        weak = (sign[:, None] + draw.normal(size=(120, 10)) * 0.3) * strength
        features = np.column_stack([strong, weak])
        centred = features - features.mean(0)
        left, singular, _ = np.linalg.svd(centred, full_matrices=False)
        target = (labels - 0.5) / np.linalg.norm(labels - 0.5)
        energy, sigma = (left.T @ target) ** 2, singular**2

        def evidence(u: float, energy: NDArray = energy, sigma: NDArray = sigma) -> float:
            t = np.exp(u)
            rest = max(1 - energy.sum(), 0) + (energy * t / (sigma + t)).sum()
            return -0.5 * np.log(rest) - np.log1p(sigma / t).sum() / (2 * 119)

        scan = np.linspace(np.log(sigma[-1]) - 25, np.log(sigma[0]) + 25, 4001)
        top = scan[np.argmax([evidence(u) for u in scan])]
        refined = minimize_scalar(lambda u: -evidence(u), bounds=(top - 0.05, top + 0.05), method="bounded")
        null = -0.5 * np.log(2 * np.pi * np.e * 30 / 119)
        assert _score(features, labels) == pytest.approx(null + max(-refined.fun, 0.0), abs=1e-7)


def test_where_the_evidence_rises_towards_no_noise_at_all_the_limit_is_reached_to_all_digits() -> None:
    """n < D, separable: the supremum is at t -> 0, where S and the determinant both run off and cancel."""
    interpolating = 0
    for seed in range(6):
        features, labels = _problem(50, 200, signal=1.5, seed=seed)
        found = class_evidence(Moments.of(features, labels, 3))
        left, singular, _ = np.linalg.svd(features - features.mean(0), full_matrices=False)
        left, sigma = left[:, :49], singular[:49] ** 2
        for label in np.flatnonzero(found.interpolates):
            target = (labels == label) - np.mean(labels == label)
            tension = ((left.T @ target) ** 2 / sigma).sum()
            limit = -0.5 * np.log(2 * np.pi * np.e * tension / 49) - 0.5 * np.log(sigma).mean()
            assert found.per_row[label] == pytest.approx(limit, abs=1e-9)
            interpolating += 1
    assert interpolating > 3


def _from_singular_values(features: NDArray, labels: NDArray) -> NDArray:
    """The centred evidence per class by an SVD of the features, which squares no condition number, and a scan of t."""
    rows = len(features) - 1
    left, singular, _ = np.linalg.svd(features - features.mean(0), full_matrices=False)
    left, sigma = left[:, :rows], singular[:rows] ** 2
    found = []
    for label in np.unique(labels):
        target = (labels == label) - np.mean(labels == label)
        energy = (left.T @ target) ** 2
        rest = max(target @ target - energy.sum(), 0.0) if sigma.size < rows else 0.0

        def negative(u: float, energy: NDArray = energy, rest: float = rest) -> float:
            t = np.exp(u)
            left_over = rest + (energy * t / (sigma + t)).sum()
            return 0.5 * (np.log(2 * np.pi * np.e * left_over / rows) + np.log1p(sigma / t).sum() / rows)

        scan = np.linspace(np.log(sigma[-1]) - 5, np.log(sigma[0]) + 25, 2000)
        top = scan[np.argmin([negative(u) for u in scan])]
        found.append(-minimize_scalar(negative, bounds=(top - 0.05, top + 0.05), method="bounded").fun)
    return np.array(found)


@pytest.mark.parametrize("condition", [1e8, 1e10])
@pytest.mark.parametrize(
    ("n", "d", "signal", "tolerance"),
    [
        (200, 30, 0.3, 1e-7),
        (400, 300, 0.3, 1e-7),
        (400, 300, 1.5, 1e-7),
        (60, 120, 0.3, 1e-7),
        (60, 120, 1.5, 1e-7),
        # Few strong features: those below 1e-6 of the largest, which the Gram matrix cannot hold, count a little.
        (200, 30, 1.5, 1e-4),
    ],
)
def test_badly_conditioned_features_score_as_their_singular_values_say(
    n: int, d: int, signal: float, tolerance: float, condition: float
) -> None:
    draw = np.random.default_rng(0)
    labels = np.arange(n) % 3
    features = (signal * draw.normal(size=(3, d)))[labels] + draw.normal(size=(n, d))
    features *= np.geomspace(1, 1 / condition, d)
    found = class_evidence(Moments.of(features, labels, 3)).per_row
    np.testing.assert_allclose(found, _from_singular_values(features, labels), atol=tolerance, rtol=0)


def _remarks(features: NDArray, labels: NDArray) -> tuple[str, ...]:
    moments = Moments.of(features, labels, int(labels.max()) + 1)
    return LogME().remarks(Evidence(moments, labels, lambda: features, lambda: None))


def test_remarks_say_where_there_is_no_signal_and_where_no_error() -> None:
    labels = np.arange(40) % 4
    draw = np.random.default_rng(0)
    assert _remarks(*_problem(80, 10)) == ()
    nothing = _remarks(np.repeat(draw.normal(size=(10, 3)), 4, axis=0), labels)
    assert len(nothing) == 1 and nothing[0].startswith("no linear signal for 4 of 4 classes")
    held = np.column_stack([draw.normal(size=(40, 3)), labels == 2])
    floor = _remarks(held, labels)[-1]
    assert floor.startswith("the features fit 1 of 4 classes without error") and "numerical bound" in floor
    wide = _remarks(2.0 * draw.normal(size=(4, 300))[labels] + draw.normal(size=(40, 300)), labels)
    assert len(wide) == 1 and "as many as the images may" in wide[0]


def test_remarks_on_real_targets_speak_of_targets() -> None:
    features, targets = _regression(40, 5)
    exact = np.column_stack([targets[:, 0], features @ np.arange(5)])
    evidence = _regression_evidence(features, exact)
    assert LogME().remarks(evidence)[-1].startswith("the features fit 1 of 2 targets without error")


def test_remarks_work_out_nothing_a_second_time_and_keep_no_statistics(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import gc
    import weakref

    from tlcore_scorers import logme

    calls = []
    real = logme.class_evidence
    monkeypatch.setattr(logme, "class_evidence", lambda *a, **k: calls.append(k) or real(*a, **k))
    features, labels = _problem(40, 6)
    evidence = Evidence(Moments.of(features, labels, 3), labels, lambda: features, lambda: None)
    for centred in (True, False, True):
        scorer = LogME(centred=centred)
        scorer.score(evidence)
        scorer.remarks(evidence)
    assert calls == [{"centred": True}, {"centred": False}]
    watched = weakref.ref(evidence.moments)
    del evidence
    gc.collect()
    assert watched() is None


@pytest.mark.parametrize("value", [0.0, 1e4, 0.3])
def test_features_without_variance_are_a_clear_error(value: float) -> None:
    with pytest.raises(UserError, match="features carry no variance"):
        _score(np.full((12, 5), value, dtype=np.float32), np.arange(12) % 3)


def test_a_single_class_is_a_clear_error() -> None:
    with pytest.raises(UserError, match="at least 2 classes"):
        _score(np.random.default_rng(0).normal(size=(12, 5)), np.full(12, 1), classes=3)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_too_few_images_are_a_clear_error_with_the_minimum(n: int) -> None:
    with pytest.raises(UserError, match="at least 4 labelled images"):
        _score(np.random.default_rng(0).normal(size=(n, 5)), np.arange(n), classes=3)


def test_nan_features_are_a_clear_error_naming_the_row() -> None:
    features, labels = _problem(12, 5)
    features[7, 1] = np.nan
    with pytest.raises(UserError, match="row 7"):
        _score(features, labels)


def test_the_smallest_allowed_inputs_score_finitely() -> None:
    draw = np.random.default_rng(0)
    for d in (1, 2, 50):
        assert np.isfinite(_score(draw.normal(size=(4, d)), [0, 1, 0, 1]))
        assert np.isfinite(_score(draw.normal(size=(4, d)), [0, 1, 2, 3]))


def test_better_separated_classes_score_higher() -> None:
    scores = [_score(*_problem(60, 100, signal=signal)) for signal in (0.0, 0.5, 1.0, 2.0)]
    assert scores == sorted(scores)


def _regression(n: int, d: int, seed: int = 0, noise: float = 0.5) -> tuple[NDArray, NDArray]:
    draw = np.random.default_rng(seed)
    features = draw.normal(size=(n, d)) * np.geomspace(2, 0.2, d)
    return features, features @ draw.normal(size=(d, 2)) + noise * draw.normal(size=(n, 2))


def _regression_evidence(features: NDArray, targets: NDArray) -> Evidence:
    return Evidence(
        moments=Moments.of(features, np.zeros(len(features), dtype=int), 1),
        labels=np.zeros(len(features), dtype=np.int64),
        features=lambda: features,
        source_probabilities=lambda: None,
        regression=RegressionMoments.of(features, targets),
    )


def _regression_score(features: NDArray, targets: NDArray) -> float:
    return LogME().score(_regression_evidence(features, targets))


@pytest.mark.parametrize(("n", "d", "noise"), [(40, 6, 0.5), (24, 60, 1.0), (24, 60, 30.0)])
def test_real_targets_have_the_evidence_that_brute_force_finds(n: int, d: int, noise: float) -> None:
    features, targets = _regression(n, d, noise=noise)
    rotate = _contrasts(n).T
    kernel = rotate @ features @ features.T @ rotate.T
    kernel /= np.trace(kernel) / (n - 1)
    found = target_evidence(RegressionMoments.of(features, targets)).per_row
    for column in range(2):
        target = rotate @ targets[:, column]
        target /= np.sqrt(target @ target / (n - 1))

        def negative(logs: NDArray, target: NDArray = target) -> float:
            noise, weight = np.exp(np.clip(logs, -30, 20))
            covariance = noise * np.eye(n - 1) + weight * kernel
            return -float(multivariate_normal(cov=covariance, allow_singular=False).logpdf(target))

        runs = [
            minimize(negative, start, method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-10})
            for start in [(0.0, -25.0), (-1.0, 0.0), (-4.0, 1.0)]
        ]
        assert found[column] == pytest.approx(-min(run.fun for run in runs) / (n - 1), abs=1e-5)


@pytest.mark.parametrize(("n", "d"), [(60, 8), (30, 80), (400, 270)])
def test_the_unit_and_the_zero_of_a_target_change_nothing(n: int, d: int) -> None:
    """The public code gives -15.2 for targets times 1e6 and -5.9 for targets plus 1e3."""
    features, targets = _regression(n, d)
    base = _regression_score(features, targets)
    assert _regression_score(features, targets * 1e6) == pytest.approx(base, abs=1e-9)
    assert _regression_score(features, targets + 1e3) == pytest.approx(base, abs=1e-8)
    assert _regression_score(features * 1e4 + 50, targets * -1e-6) == pytest.approx(base, abs=1e-6)


def test_features_that_foretell_the_targets_score_above_those_that_do_not() -> None:
    features, targets = _regression(80, 200)
    noise = np.random.default_rng(7).normal(size=features.shape)
    assert _regression_score(noise, targets) < _regression_score(features, targets)
    null = -0.5 * np.log(2 * np.pi * np.e)
    assert null - 1e-12 <= _regression_score(noise, targets) < null + 0.1


@pytest.mark.parametrize("value", [0.0, 7.70, 1e6])
def test_a_constant_target_is_a_clear_error(value: float) -> None:
    features, targets = _regression(30, 5)
    targets[:, 1] = value
    with pytest.raises(UserError, match=r"a target is constant \(column 1\)"):
        _regression_score(features, targets)


def test_real_targets_need_images_and_features_that_vary() -> None:
    features, targets = _regression(30, 5)
    with pytest.raises(UserError, match="at least 4 images"):
        _regression_score(features[:3], targets[:3])
    with pytest.raises(UserError, match="carry no variance"):
        _regression_score(np.full((30, 5), 3.3), targets)

"""What goes on around a phase: means of weights, sharpness, mixing, layer decay, patience, setbacks, budgets."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.models import group_parameters

from tlcore.errors import PluginError, UserError
from tlcore.training import phase_run
from tlcore.training.job import Measured, Picked, Pruned, TrainJob
from tlcore.training.loop import run_plan
from tlcore.training.mixing import mixed, randomly_augmented, seeded
from tlcore.training.network import Network
from tlcore.training.objectives import Supervised
from tlcore.training.parameters import make_optimizer
from tlcore.training.plan import Batch, Group, Losses, Move, Objective, Phase, TrainPlan
from tlcore.training.prefetch import Prefetcher

Make = Callable[..., TrainJob]


def phase(objective: Objective | None = None, **changes: Any) -> Phase:
    fields: dict[str, Any] = {
        "name": "phase", "objective": objective or Supervised(), "moves": (Move((Group("all", 1e-3),)),), "epochs": 3,
        "batch_size": 8,
    }  # fmt: skip
    return Phase(**{**fields, **changes})


def weights(network: Network) -> dict[str, np.ndarray]:
    return {name: value.detach().double().numpy().copy() for name, value in network.state_dict().items()}


@pytest.mark.slow
def test_the_mean_of_weights_follows_its_recursion(make_job: Make) -> None:
    seen: list[dict[str, np.ndarray]] = []
    job = make_job(TrainPlan((phase(ema=0.8, choose="last"),)))
    start = weights(job.network)
    job = replace(job, progress=lambda done, total, text: seen.append(weights(job.network)))
    run_plan(job)
    mean = start
    for step, now in enumerate(seen):
        # of timm: min(decay, 1 - (1 + t)^(-2/3)), t counting updates from 1
        decay = min(0.8, 1 - (2 + step) ** (-2 / 3))
        mean = {name: decay * mean[name] + (1 - decay) * now[name] for name in mean}
    for name, value in weights(job.network).items():
        if "num_batches" not in name:
            np.testing.assert_allclose(value, mean[name], rtol=2e-4, atol=2e-6)


class _Bowl(Objective):
    """sum c w^2 over the head's weights, whose gradient is known."""

    def loss(self, network: Network, batch: Batch) -> Losses:
        scale = torch.arange(1, network.head.weight.numel() + 1).view_as(network.head.weight) / 100
        return {"total": (scale * (network.head.weight - 1) ** 2).sum()}


def test_a_sharpness_aware_step_takes_the_gradient_uphill(make_job: Make) -> None:
    plan = TrainPlan(
        (
            phase(
                _Bowl(),
                epochs=1,
                steps_per_epoch=1,
                moves=(Move((Group("head.weight", 0.1),)),),
                optimizer="sgd",
                momentum=0.0,
                schedule="constant",
                warmup=0.0,
                clip_norm=None,
                sam=0.5,
                choose="end",
            ),  # fmt: skip
        )
    )
    job = make_job(plan)
    before = weights(job.network)["head.weight"]
    run_plan(job)
    scale = np.arange(1, before.size + 1).reshape(before.shape) / 100
    gradient = 2 * scale * (before - 1)
    uphill = before + 0.5 * gradient / np.linalg.norm(gradient)
    expected = before - 0.1 * 2 * scale * (uphill - 1)
    np.testing.assert_allclose(weights(job.network)["head.weight"], expected, atol=1e-5)


@pytest.mark.slow
def test_sharpness_leaves_running_statistics_to_the_first_pass(make_job: Make) -> None:
    frozen = (Move((Group("head", 0.0),)),)
    one, two = (
        make_job(TrainPlan((phase(moves=frozen, sam=sam, choose="end"),)), scratch=str(sam))
        for sam in (None, 0.1)
    )
    run_plan(one)
    run_plan(two)
    left, right = weights(one.network), weights(two.network)
    assert all(np.array_equal(left[name], right[name]) for name in left if "running" in name)


@pytest.mark.parametrize("parts", [{"mixup": 0.5}, {"cutmix": 1.0}, {"mixup": 0.5, "cutmix": 1.0}])
@pytest.mark.parametrize("count", [7, 8])
def test_a_mixed_batch_is_itself_and_its_reverse(parts: dict[str, float], count: int) -> None:
    images = torch.rand(count, 3, 16, 16)
    for seed in range(6):
        blended, share = mixed(images.clone(), parts.get("mixup", 0.0), parts.get("cutmix", 0.0), seed)
        assert blended.shape == images.shape and 0 <= share <= 1
        blend = share * images + (1 - share) * images.flip(0)
        own = (blended == images).all(1).float().mean((1, 2))
        reverse = (blended == images.flip(0)).all(1)
        is_mixup = torch.allclose(blended, blend, atol=1e-6)
        is_cut = bool(((blended == images).all(1) | reverse).all()) and torch.allclose(
            own[: count // 2], torch.full((count // 2,), share), atol=1e-3
        )
        assert is_mixup or is_cut
        assert is_mixup or parts.get("cutmix")


def test_a_batch_of_one_is_not_mixed() -> None:
    image = torch.rand(1, 3, 8, 8)
    blended, share = mixed(image, 1.0, 1.0, 0)
    assert torch.equal(blended, image) and share == 1.0


def test_mixed_labels_cost_their_shares(make_job: Make) -> None:
    seen: list[tuple[float, float, float]] = []

    class Watching(Supervised):
        def loss(self, network: Network, batch: Batch) -> Losses:
            losses = super().loss(network, batch)
            view = batch.source
            assert (
                view is not None
                and view.labels is not None
                and view.others is not None
                and view.share is not None
            )
            logits = network(view.inputs)
            own, other = (torch.nn.functional.cross_entropy(logits, y) for y in (view.labels, view.others))
            seen.append(
                (losses["total"].item(), (view.share * own + (1 - view.share) * other).item(), view.share)
            )
            assert torch.equal(view.others, view.labels.flip(0))
            return losses

    run_plan(make_job(TrainPlan((phase(Watching(), mixup=1.0, epochs=1),))))
    assert all(abs(ours - theirs) < 1e-5 for ours, theirs, _ in seen)
    assert len({share for *_, share in seen}) > 1


def test_random_augmentation_follows_its_seed_and_leaves_global_generators_alone() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (4, 24, 24, 3), dtype=np.uint8)
    random.seed(3)
    np.random.seed(3)
    before = (random.getstate(), np.random.get_state()[1].tolist())
    one = randomly_augmented(pixels, "rand-m9-mstd0.5", 11)
    again = randomly_augmented(pixels, "rand-m9-mstd0.5", 11)
    other = randomly_augmented(pixels, "rand-m9-mstd0.5", 12)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before
    assert one.dtype == np.uint8 and one.shape == pixels.shape
    assert np.array_equal(one, again) and not np.array_equal(one, other)
    assert not np.array_equal(one, pixels)


def test_an_unknown_policy_is_named_with_examples() -> None:
    with pytest.raises(UserError, match='knows no augmentation policy "rand-q9"') as caught:
        randomly_augmented(np.zeros((1, 8, 8, 3), np.uint8), "rand-q9", 0)
    assert "rand-m9-mstd0.5" in (caught.value.hint or "")


def test_seeding_for_a_moment_survives_an_error() -> None:
    random.seed(5)
    before = random.getstate()
    with pytest.raises(ZeroDivisionError), seeded(1):
        1 / 0  # noqa: B018
    assert random.getstate() == before


def test_layer_decay_slows_each_layer_by_its_distance_to_the_head(make_job: Make) -> None:
    job = make_job(TrainPlan((phase(),)))
    asked = phase(moves=(Move((Group("all", 1e-2, 0.1, 0.5),)),))
    optimizer = make_optimizer(job.network, None, asked, asked.moves[0])
    assert optimizer is not None
    rate = {id(value): group["peak"] for group in optimizer.param_groups for value in group["params"]}
    backbone = job.network.backbone
    layers = group_parameters(backbone, backbone.group_matcher(coarse=False), reverse=True)
    top = max(layers.values())
    for name, value in backbone.named_parameters():
        assert rate[id(value)] == pytest.approx(1e-2 * 0.5 ** (top - layers[name] + 1))
    assert all(rate[id(value)] == 1e-2 for value in job.network.head.parameters())
    assert len({id(v) for g in optimizer.param_groups for v in g["params"]}) == len(
        list(job.network.parameters())
    )


def _scripted(*values: float) -> Callable[[Network], Measured]:
    looks = iter(values)

    def measure(network: Network) -> Measured:
        value = next(looks)
        return Measured((value,), {"validation_accuracy": value})

    return measure


def test_patience_ends_a_phase_and_keeps_its_best(make_job: Make) -> None:
    plan = TrainPlan((phase(epochs=9, patience=2),))
    result = run_plan(make_job(plan, measure=_scripted(0.1, 0.2, 0.5, 0.4, 0.5, 0.9)))
    assert result.chosen_epoch == 2 and len(result.history) == 4
    assert result.stopped == "phase, epoch 4 of 9: no better one in 2"


@pytest.mark.slow
def test_between_start_and_end_the_best_blend_is_kept(make_job: Make) -> None:
    plan = TrainPlan((phase(epochs=2, interpolate=(0.25, 0.5)),))
    job = make_job(plan, measure=_scripted(0.1, 0.2, 0.3, 0.4, 0.6))  # start, two epochs, two blends
    start = weights(job.network)
    result = run_plan(job)
    assert result.picked == {0: Picked(2, 0.5)}
    plain = make_job(TrainPlan((phase(epochs=2),)), scratch="plain", measure=_scripted(0.1, 0.2, 0.3))
    run_plan(plain)
    end = weights(plain.network)
    for name, value in weights(job.network).items():
        if "num_batches" not in name:
            np.testing.assert_allclose(value, 0.5 * start[name] + 0.5 * end[name], atol=1e-6)
    assert [line.phase for line in result.history] == ["phase", "phase", "phase at 0.25", "phase at 0.5"]


def test_a_worse_blend_is_not_kept(make_job: Make) -> None:
    plan = TrainPlan((phase(epochs=1, interpolate=(0.5,)),))
    blended = make_job(plan, measure=_scripted(0.1, 0.5, 0.4))
    result = run_plan(blended)
    plain = make_job(TrainPlan((phase(epochs=1),)), scratch="plain", measure=_scripted(0.1, 0.5))
    run_plan(plain)
    assert result.picked == {0: Picked(1, 1.0)}
    assert all(np.array_equal(v, weights(plain.network)[n]) for n, v in weights(blended.network).items())


class _NanAt(Supervised):
    """A loss that is not a number at some steps while the rate is above a bound."""

    def __init__(self, *steps: int, times: int = 1) -> None:
        super().__init__()
        self.steps, self.left = steps, dict.fromkeys(steps, times)

    def loss(self, network: Network, batch: Batch) -> Losses:
        total = super().loss(network, batch)["total"]
        if self.left.get(batch.step, 0):
            self.left[batch.step] -= 1
            total = total * math.nan
        return {"total": total}


@pytest.mark.slow
def test_a_diverged_phase_goes_back_and_on_with_half_the_rate(make_job: Make) -> None:
    result = run_plan(make_job(TrainPlan((phase(_NanAt(4)),))))
    assert [line.epoch for line in result.history] == [1, 2, 3]
    assert result.notes[0] == (
        "phase diverged at step 5 (the loss is nan): taken up again from step 1 with 0.5 of the learning rates"
    )
    halved = make_job(TrainPlan((phase(moves=(Move((Group("all", 5e-4),)),)),)), scratch="halved")
    again = make_job(TrainPlan((phase(_NanAt(0)),)), scratch="again")
    run_plan(halved)
    run_plan(again)
    assert all(np.allclose(v, weights(halved.network)[n]) for n, v in weights(again.network).items())


def test_a_phase_that_diverges_three_times_fails_with_the_rate_that_was_too_much(make_job: Make) -> None:
    with pytest.raises(PluginError, match="diverged at step 3: the loss is nan; 2 restarts") as caught:
        run_plan(make_job(TrainPlan((phase(_NanAt(2, times=3)),))))
    assert "0.00025 was too much" in (caught.value.hint or "")


@pytest.mark.slow
def test_a_loss_that_leaves_all_bounds_counts_as_diverged(make_job: Make) -> None:
    class Growing(Supervised):
        def loss(self, network: Network, batch: Batch) -> Losses:
            return {"total": super().loss(network, batch)["total"] * (1000.0 if batch.step > 3 else 1.0)}

    with pytest.raises(PluginError, match="the loss has grown from"):
        run_plan(make_job(TrainPlan((phase(Growing()),))))


@pytest.mark.slow
def test_a_diverged_training_that_is_killed_ends_as_an_unbroken_one(make_job: Make) -> None:
    class Killed(Exception):
        pass

    def run(scratch: str, times: int, killed_at: int | None) -> TrainJob:
        calls = 0

        def progress(done: int, total: int, text: str) -> None:
            nonlocal calls
            calls += 1
            if calls == killed_at:
                raise Killed

        job = make_job(TrainPlan((phase(_NanAt(4, times=times)),)), scratch=scratch, progress=progress)
        with suppress(Killed):
            run_plan(job)
        return job

    whole = run("whole", 1, None)
    run("broken", 1, 6)  # one step after the setback
    again = run("broken", 0, None)
    assert all(np.array_equal(v, weights(whole.network)[n]) for n, v in weights(again.network).items())


@pytest.mark.slow
def test_a_budget_ends_training_with_the_best_it_has(make_job: Make) -> None:
    clock: list[int] = []
    plan = TrainPlan((phase(epochs=1000),))
    result = run_plan(make_job(plan, budget=1.0, progress=lambda done, total, text: clock.append(done)))
    assert 0 < len(clock) < 3000
    assert "the budget of 1 s" in result.stopped and "of 1000 epochs" in result.stopped
    assert result.chosen_epoch is not None and "validation_accuracy" in result.measures


def test_a_budget_that_is_spent_at_once_leaves_the_start(make_job: Make) -> None:
    job = make_job(TrainPlan((phase(),)), budget=1e-6)
    before = weights(job.network)
    result = run_plan(job)
    assert result.chosen_epoch == 0 and result.history == ()
    assert all(np.array_equal(v, before[n]) for n, v in weights(job.network).items())


def test_who_watches_may_end_a_training(make_job: Make) -> None:
    seen: list[int] = []

    def after(line: Any) -> None:
        seen.append(line.epoch)
        if len(seen) == 2:
            raise Pruned("enough")

    with pytest.raises(Pruned, match="enough"):
        run_plan(make_job(TrainPlan((phase(epochs=5),)), after_epoch=after))
    assert seen == [1, 2]


@pytest.mark.slow
def test_what_is_fixed_is_not_chosen_again(make_job: Make) -> None:
    plan = TrainPlan((phase(epochs=4, interpolate=(0.5,)),))
    job = make_job(
        plan, fixed={0: Picked(2, 0.5)}, measure=lambda network: pytest.fail("looked at"), start_counts=True
    )
    start = weights(job.network)
    result = run_plan(job)
    whole: list[dict[str, np.ndarray]] = []
    other = make_job(TrainPlan((phase(epochs=4),)), scratch="whole")
    other = replace(other, progress=lambda done, total, text: whole.append(weights(other.network)))
    run_plan(other)
    after_two = whole[5]  # three steps an epoch, the same schedule
    assert len(result.history) == 2 and result.picked == {0: Picked(2, 0.5)}
    for name, value in weights(job.network).items():
        if "num_batches" not in name:
            np.testing.assert_allclose(value, 0.5 * start[name] + 0.5 * after_two[name], atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(first=st.integers(0, 5), count=st.integers(1, 40), slow=st.booleans())
def test_batches_come_in_order_whoever_makes_them(first: int, count: int, slow: bool) -> None:
    def make(step: int) -> int:
        return sum(range(20_000 if slow else 1)) * 0 + step * step

    ahead = Prefetcher(make, first, first + count)
    try:
        assert [ahead.get(step) for step in range(first, first + count)] == [
            step * step for step in range(first, first + count)
        ]
    finally:
        ahead.close()


def test_an_error_in_a_batch_reaches_the_loop() -> None:
    def make(step: int) -> int:
        if step == 30:
            raise UserError("the image is gone")
        return sum(range(50_000)) * 0 + step

    ahead = Prefetcher(make, 0, 60)
    with pytest.raises(UserError, match="gone"):
        for step in range(60):
            ahead.get(step)
    ahead.close()


def test_a_step_out_of_order_is_made_anew() -> None:
    ahead = Prefetcher(lambda step: step, 0, 10)
    assert [ahead.get(0), ahead.get(1), ahead.get(0), ahead.get(1)] == [0, 1, 0, 1]
    ahead.close()


def _last_stage(**changes: Any) -> TrainPlan:
    return TrainPlan(
        (
            phase(
                moves=(Move((Group("head", 1e-2), Group("last:1", 1e-3))),), frozen_statistics=True, **changes
            ),
        )
    )


@pytest.mark.slow
def test_on_kept_activations_the_last_stage_learns_as_from_images(make_job: Make) -> None:
    kept = make_job(_last_stage(inputs="activations", augment="none"), scratch="kept")
    plain = make_job(_last_stage(augment="none"), scratch="plain")
    start = weights(kept.network)
    result = run_plan(kept)
    run_plan(plain)
    assert result.notes == ()
    after, expected = weights(kept.network), weights(plain.network)
    moved = [name for name in start if not np.array_equal(start[name], after[name])]
    assert any(name.startswith("backbone.") for name in moved)
    # float16 keeps a thousandth, and the optimiser divides by the gradient's own size
    for name in moved:
        np.testing.assert_allclose(after[name], expected[name], atol=2e-3)


@pytest.mark.slow
def test_kept_activations_have_as_many_views_as_epochs_may_use(make_job: Make) -> None:
    job = make_job(_last_stage(inputs="activations", views=2), scratch="views")
    run_plan(job)
    assert len(list((job.scratch / "activations").glob("*.npy"))) == 2


@pytest.mark.slow
def test_a_training_on_kept_activations_that_is_killed_ends_as_an_unbroken_one(make_job: Make) -> None:
    class Killed(Exception):
        pass

    def run(scratch: str, killed_at: int | None) -> TrainJob:
        def progress(done: int, total: int, text: str) -> None:
            if "epoch" in text and done == killed_at:
                raise Killed

        job = make_job(_last_stage(inputs="activations", views=2), scratch=scratch, progress=progress)
        with suppress(Killed):
            run_plan(job)
        return job

    whole = run("whole", None)
    run("broken", 5)
    again = run("broken", None)
    assert all(np.array_equal(v, weights(whole.network)[n]) for n, v in weights(again.network).items())


@pytest.mark.slow
def test_mixed_batches_are_made_of_images_and_the_reader_is_told(make_job: Make) -> None:
    result = run_plan(make_job(_last_stage(inputs="activations", mixup=0.2)))
    assert result.notes[0] == "phase: from images, since batches are mixed or of two views"


@pytest.mark.slow
def test_a_small_training_is_float32_without_asking(make_job: Make) -> None:
    job = make_job(TrainPlan((phase(),)), precision="auto", scratch="auto")
    plain = make_job(TrainPlan((phase(),)), scratch="plain")
    assert not any("float32" in note for note in run_plan(job).notes)
    run_plan(plain)
    assert all(np.array_equal(v, weights(plain.network)[n]) for n, v in weights(job.network).items())


@pytest.mark.slow
def test_precision_is_asked_once_remembered_and_told(
    make_job: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(phase_run, "_WORTH_MEASURING", 0)
    parts = {"precision": "auto", "decisions": tmp_path / "decisions", "architecture": "test_resnet"}
    first = make_job(TrainPlan((phase(),)), scratch="first", **parts)
    told = [note for note in run_plan(first).notes if note.startswith("phase: ")]
    assert len(told) == 1 and ("float32" in told[0] or "bf16" in told[0])
    file = tmp_path / "decisions" / "precision.json"
    before = file.read_bytes() if file.is_file() else None  # none where the hardware has no bf16
    again = make_job(TrainPlan((phase(),)), scratch="again", **parts)
    assert [note for note in run_plan(again).notes if note.startswith("phase: ")] == told
    assert all(np.array_equal(v, weights(first.network)[n]) for n, v in weights(again.network).items())
    assert before is None or file.read_bytes() == before


@pytest.mark.slow
def test_bf16_trains_and_leaves_float32_weights(make_job: Make) -> None:
    job = make_job(TrainPlan((phase(epochs=4),)), count=48, precision="bf16")
    result = run_plan(job)
    assert result.measures["validation_accuracy"] > 0.6
    assert {value.dtype for value in job.network.parameters()} == {torch.float32}


@pytest.mark.slow
def test_a_training_on_features_is_float32_whatever_is_asked(make_job: Make) -> None:
    plan = TrainPlan((phase(inputs="features", moves=(Move((Group("head", 1e-2),)),)),))
    asked, plain = make_job(plan, scratch="asked", precision="bf16"), make_job(plan, scratch="plain")
    run_plan(asked)
    run_plan(plain)
    assert all(np.array_equal(v, weights(plain.network)[n]) for n, v in weights(asked.network).items())


class Killed(Exception):
    pass


def _dying(call: Callable[..., Any], at: int | None) -> Callable[..., Any]:
    calls = 0

    def dying(*given: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == at:
            raise Killed
        return call(*given)

    return dying


ENDING = {
    "patience": {"epochs": 6, "patience": 1},
    "blends": {"epochs": 2, "interpolate": (0.3, 0.6)},
    "both": {"epochs": 6, "patience": 1, "interpolate": (0.5,), "ema": 0.8},
}


def _best_on_the_way(network: Network) -> Measured:
    """Best where the head, which starts at zero, has gone a part of its way: training goes past it."""
    gone = float(network.state_dict()["head.weight"].abs().mean())
    return Measured((-abs(gone - 0.008),), {"validation_accuracy": gone})


@pytest.mark.slow
@pytest.mark.parametrize("name", ENDING)
def test_wherever_a_training_is_killed_it_ends_as_an_unbroken_one(make_job: Make, name: str) -> None:
    plan = TrainPlan((phase(moves=(Move((Group("all", 5e-3),)),), **ENDING[name]),))

    def run(scratch: str, look: int | None = None, step: int | None = None) -> tuple[TrainJob, Any]:
        job = make_job(plan, count=16, scratch=scratch)  # two steps an epoch
        job = replace(job, measure=_dying(_best_on_the_way, look), progress=_dying(job.progress, step))
        try:
            return job, run_plan(job)
        except Killed:
            return job, None

    whole, expected = run("whole")
    assert bool(expected.stopped) == (name in ("patience", "both")) and expected.picked[0].epoch > 0
    looks = 2 + len(expected.history)
    deaths = [("look", n) for n in range(1, looks)] + [
        ("step", n) for n in range(1, 2 * len(expected.history) + 1)
    ]
    for kind, number in deaths:
        scratch = f"{kind}-{number}"
        run(scratch, **{kind: number})
        again, result = run(scratch)
        assert result is not None
        assert [line.model_dump(exclude={"seconds"}) for line in result.history] == [
            line.model_dump(exclude={"seconds"}) for line in expected.history
        ], scratch
        assert (result.picked, result.stopped) == (expected.picked, expected.stopped), scratch
        assert all(np.array_equal(v, weights(whole.network)[n]) for n, v in weights(again.network).items()), (
            scratch
        )


def test_a_rare_class_counts_as_much_as_the_others_whatever_is_in_the_batch() -> None:
    from tlcore.protocols import TrainTask
    from tlcore.training.objectives import supervised_loss
    from tlcore.training.plan import View

    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 0, 0, 0, 1, 2])
    task = TrainTask(("a", "b", "c"), 4, 30, counts=(20, 5, 5))
    view = View(torch.zeros(6, 4), labels, torch.arange(6))
    found = supervised_loss(logits, view, task=task, balanced=True).item()
    each = -np.log(np.exp(logits.numpy()) / np.exp(logits.numpy()).sum(1, keepdims=True))[
        np.arange(6), labels.numpy()
    ]
    share = 30 / (3 * np.array([20, 5, 5]))
    assert found == pytest.approx(float((share[labels.numpy()] * each).mean()), rel=1e-5)
    halves = [
        supervised_loss(
            logits[part], View(view.inputs[part], labels[part], view.index[part]), task=task, balanced=True
        )
        for part in (slice(0, 3), slice(3, 6))
    ]
    assert found == pytest.approx(float(sum(halves)) / 2, rel=1e-5)

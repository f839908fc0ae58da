"""The loop keeps its promises: resume is exact, choice is honest, contracts are checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tlcore.errors import PluginError, UserError
from tlcore.protocols import TrainTask
from tlcore.training.job import Measured, TrainJob
from tlcore.training.loop import run_plan
from tlcore.training.network import Network
from tlcore.training.objectives import Supervised
from tlcore.training.plan import (
    Batch,
    Group,
    HeadFit,
    HeadProblem,
    Losses,
    Move,
    Objective,
    Phase,
    Setup,
    TrainPlan,
)
from tlcore.training.predict import embed
from tlcore.training.resume import load_state
from tlcore_adapters.dann import Dann
from tlcore_tuners.lp_ft import LpFt

Make = Callable[..., TrainJob]
TASK = TrainTask(("dark", "middle", "bright"), 1, 24, 24)


class Killed(Exception):
    pass


def kill_at(step: int) -> Callable[[int, int, str], None]:
    calls = 0

    def progress(done: int, total: int, text: str) -> None:
        nonlocal calls
        calls += 1
        if calls == step:
            raise Killed

    return progress


def weights(job: TrainJob) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in job.network.state_dict().items()}


class _Passing(Objective):
    """The form of AdaBN with a buffer of its own: no optimiser anywhere."""

    def setup(self, setup: Setup) -> nn.Module:
        self.own = nn.Module()
        self.own.register_buffer("seen", torch.zeros(()))
        return self.own

    def loss(self, network: Network, batch: Batch) -> Losses:
        assert batch.target is not None
        self.own.seen += 1
        network(batch.target.inputs)
        return {"total": self.own.seen.clone()}


PLANS: dict[str, Callable[[], TrainPlan]] = {
    "lp-ft": lambda: LpFt(epochs=3, batch_size=8).plan(TASK),
    "dann": lambda: Dann(steps=9, checkpoints=3, batch_size=8).plan(TASK),
    "head": lambda: Dann(steps=9, checkpoints=3, batch_size=8, train="head").plan(TASK),
    "around": lambda: TrainPlan(
        (
            _phase(
                Supervised(0.1),
                epochs=4,
                ema=0.9,
                sam=0.05,
                mixup=0.4,
                cutmix=0.4,
                interpolate=(0.3, 0.7),
                patience=3,
                moves=(Move((Group("all", 1e-3, layer_decay=0.7),)),),
                randaugment="rand-m5-mstd0.5",
            ),  # fmt: skip
        )
    ),
    "statistics": lambda: TrainPlan((_phase(_Passing(), moves=(Move(()),), streams=("target",), epochs=4),)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("killed_at", [5, 1, 2, 9])
def test_a_killed_training_ends_with_the_weights_of_an_unbroken_one(
    make_job: Make, name: str, killed_at: int
) -> None:
    whole = make_job(PLANS[name](), target=20, scratch="whole")
    expected = run_plan(whole)
    with pytest.raises(Killed):
        run_plan(make_job(PLANS[name](), target=20, scratch="broken", progress=kill_at(killed_at)))
    again = make_job(PLANS[name](), target=20, scratch="broken")
    result = run_plan(again)
    # The head fit reports twice before it is saved; there is nothing to resume from until then.
    assert (result.resumed_from_step is not None) == (killed_at > 2 or name != "lp-ft")
    wanted = weights(whole)
    assert all(torch.equal(value, wanted[key]) for key, value in weights(again).items())
    assert [line.model_dump(exclude={"seconds"}) for line in result.history] == [
        line.model_dump(exclude={"seconds"}) for line in expected.history
    ]
    assert (result.chosen_phase, result.chosen_epoch) == (expected.chosen_phase, expected.chosen_epoch)
    assert expected.earlier_seconds == 0 and (result.earlier_seconds > 0) == (
        result.resumed_from_step is not None
    )


def test_a_resume_file_holds_tensors_and_plain_values_only(make_job: Make) -> None:
    job = make_job(PLANS["lp-ft"]())
    run_plan(job)
    state = load_state(job.scratch)  # reads with weights_only=True
    assert state is not None and state["network"].keys() == job.network.state_dict().keys()


def test_a_damaged_resume_file_is_named_with_the_remedy(make_job: Make) -> None:
    job = make_job(PLANS["lp-ft"]())
    job.scratch.mkdir(parents=True)
    (job.scratch / "training.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(PluginError, match="cannot be read"):
        run_plan(job)


def test_fine_tuning_learns_what_the_images_show(make_job: Make) -> None:
    result = run_plan(make_job(LpFt(epochs=2).plan(TASK), count=48))
    assert result.measures["validation_accuracy"] == 1.0


class _Worse(Objective):
    """Climbs the loss, so that every epoch is worse than the start."""

    def loss(self, network: Network, batch: Batch) -> Losses:
        return {"total": -Supervised().loss(network, batch)["total"]}


def _phase(objective: Objective, **parts: object) -> Phase:
    fields: dict[str, object] = {
        "epochs": 2,
        "batch_size": 8,
        "moves": (Move((Group("all", 1e-2),)),),
        **parts,
    }
    return Phase(name=str(fields.pop("name", "phase")), objective=objective, **fields)  # type: ignore[arg-type]


@pytest.mark.slow
def test_weights_before_a_phase_win_when_no_epoch_is_better(make_job: Make) -> None:
    plan = TrainPlan((LpFt().plan(TASK).phases[0], _phase(_Worse())))
    job = make_job(plan)
    result = run_plan(job)
    assert (result.chosen_phase, result.chosen_epoch) == ("phase", 0)
    alone = make_job(TrainPlan(plan.phases[:1]), scratch="alone")
    run_plan(alone)
    wanted = weights(alone)
    assert all(torch.equal(value, wanted[key]) for key, value in weights(job).items())


def test_an_adapter_does_not_choose_its_starting_point_when_told_so(make_job: Make) -> None:
    result = run_plan(make_job(TrainPlan((_phase(_Worse()),)), start_counts=False))
    assert result.chosen_epoch == 1


@pytest.mark.parametrize("pattern", ["head", "norm", "backbone.layer4.*"])
def test_only_the_named_parameters_change(make_job: Make, pattern: str) -> None:
    job = make_job(
        TrainPlan(
            (
                _phase(
                    Supervised(),
                    moves=(Move((Group(pattern, 1e-2),)),),
                    frozen_statistics=True,
                    choose="last",
                ),
            )
        )
    )
    torch.nn.init.normal_(job.network.head.weight, generator=torch.Generator().manual_seed(0))
    before = {name: value.clone() for name, value in job.network.named_parameters()}
    run_plan(job)
    changed = {name for name, value in job.network.named_parameters() if not torch.equal(value, before[name])}
    if pattern == "head":
        assert changed == {"head.weight", "head.bias"}
    elif pattern == "norm":
        norms = {f"{at}.{name}" for at, module in job.network.named_modules() if isinstance(module, nn.BatchNorm2d)
                 for name, _ in module.named_parameters(recurse=False)}  # fmt: skip
        assert changed and changed <= norms
    else:
        assert changed and all(name.startswith("backbone.layer4.") for name in changed)


def test_frozen_statistics_stay(make_job: Make) -> None:
    job = make_job(TrainPlan((_phase(Supervised(), frozen_statistics=True),)))
    before = {name: value.clone() for name, value in job.network.named_buffers()}
    run_plan(job)
    assert all(torch.equal(value, before[name]) for name, value in job.network.named_buffers())


def test_a_move_without_groups_changes_statistics_alone(make_job: Make) -> None:
    """The form of AdaBN: the target passes through, nothing is stepped."""

    class Pass(Objective):
        def loss(self, network: Network, batch: Batch) -> Losses:
            assert batch.source is None and batch.target is not None and batch.target.labels is None
            return {"total": network(batch.target.inputs).sum() * 0}

    job = make_job(
        TrainPlan((_phase(Pass(), moves=(Move(()),), streams=("target",), choose="last"),)), target=16
    )
    parameters = {name: value.clone() for name, value in job.network.named_parameters()}
    statistics = {name: value.clone() for name, value in job.network.named_buffers()}
    run_plan(job)
    assert all(torch.equal(value, parameters[name]) for name, value in job.network.named_parameters())
    assert any(not torch.equal(value, statistics[name]) for name, value in job.network.named_buffers())


@pytest.mark.slow
def test_self_training_fits_the_loop(make_job: Make) -> None:
    """The form of FixMatch: weak and strong views, pseudo-labels from the weak one."""

    class SelfTraining(Objective):
        def loss(self, network: Network, batch: Batch) -> Losses:
            assert batch.source is not None and batch.target is not None and batch.target.strong is not None
            assert not torch.equal(batch.target.inputs, batch.target.strong)
            pseudo = network(batch.target.inputs).detach().argmax(1)
            strong = nn.functional.cross_entropy(network(batch.target.strong), pseudo)
            return {"total": Supervised().loss(network, batch)["total"] + strong, "strong": strong}

    phase = _phase(SelfTraining(), streams=("source", "target"), strong_view=True)
    result = run_plan(make_job(TrainPlan((phase,)), target=16))
    assert {"total", "strong"} <= result.history[0].losses.keys()


def test_source_free_training_fits_the_loop(make_job: Make) -> None:
    """The form of SHOT: target alone, frozen head, pseudo-labels refreshed each epoch and kept over a kill."""
    refreshed: list[int] = []

    class SourceFree(Objective):
        def setup(self, setup: Setup) -> nn.Module:
            self.bank = nn.Module()
            self.bank.register_buffer("labels", torch.zeros(16, dtype=torch.long))
            return self.bank

        def epoch_started(self, setup: Setup) -> None:
            refreshed.append(setup.epoch)
            _, probabilities = setup.predict("target")
            assert probabilities.shape == (16, 3)
            self.bank.labels.copy_(torch.from_numpy(probabilities.argmax(1)))

        def loss(self, network: Network, batch: Batch) -> Losses:
            assert batch.source is None and batch.target is not None
            wanted = self.bank.labels[batch.target.index]
            return {"total": nn.functional.cross_entropy(network(batch.target.inputs), wanted)}

    groups = (Move((Group("backbone", 1e-3),)),)
    phase = _phase(SourceFree(), streams=("target",), moves=groups)
    job = make_job(TrainPlan((phase,)), target=16)
    head = job.network.head.weight.clone()
    run_plan(job)
    assert refreshed == [0, 1]
    assert torch.equal(head, job.network.head.weight)


def test_min_max_in_turns_fits_the_loop(make_job: Make) -> None:
    """The form of MCD: two moves per batch, each changing its own parameters."""

    class Turns(Objective):
        def setup(self, setup: Setup) -> nn.Module:
            self.second = nn.Linear(setup.network.feature_dim, 3)
            return self.second

        def heads(self, network: Network, batch: Batch) -> Losses:
            assert batch.source is not None and batch.source.labels is not None
            values = network.features(batch.source.inputs).detach()
            both = [
                nn.functional.cross_entropy(head(values), batch.source.labels)
                for head in (network.head, self.second)
            ]
            return {"total": both[0] + both[1]}

        def features(self, network: Network, batch: Batch) -> Losses:
            assert batch.target is not None
            values = network.features(batch.target.inputs)
            apart = (network.head(values).softmax(1) - self.second(values).softmax(1)).abs().mean()
            return {"total": apart, "discrepancy": apart}

    moves = (
        Move((Group("head", 1e-2), Group("objective", 1e-2)), "heads"),
        Move((Group("backbone", 1e-3),), "features"),
    )
    result = run_plan(
        make_job(TrainPlan((_phase(Turns(), moves=moves, streams=("source", "target")),)), target=16)
    )
    assert "discrepancy" in result.history[-1].losses


def test_a_phase_on_cached_features_never_touches_the_backbone(make_job: Make) -> None:
    phase = _phase(Supervised(), inputs="features", moves=(Move((Group("head", 1e-2),)),), choose="last")
    job = make_job(TrainPlan((phase,)))
    before = {name: value.clone() for name, value in job.network.backbone.state_dict().items()}
    run_plan(job)
    assert all(torch.equal(value, before[name]) for name, value in job.network.backbone.state_dict().items())
    assert job.network.head.weight.abs().sum() > 0


def test_a_loss_that_is_never_finite_stops_with_the_step_and_the_remedy(make_job: Make) -> None:
    class Broken(Objective):
        def loss(self, network: Network, batch: Batch) -> Losses:
            return {"total": Supervised().loss(network, batch)["total"] * float("nan")}

    with pytest.raises(PluginError, match="diverged at step 1: the loss is nan; 2 restarts") as caught:
        run_plan(make_job(TrainPlan((_phase(Broken()),))))
    assert "smaller learning rate" in caught.value.hint


def test_a_shown_loss_that_is_not_finite_is_named_before_it_reaches_the_store(make_job: Make) -> None:
    class Empty(Objective):
        def loss(self, network: Network, batch: Batch) -> Losses:
            total = Supervised().loss(network, batch)["total"]
            return {"total": total, "confident": total.detach()[None][:0].mean()}

    with pytest.raises(PluginError, match='phase "phase" diverged at step 1: "confident" is nan'):
        run_plan(make_job(TrainPlan((_phase(Empty()),))))


def test_a_loss_without_a_total_is_named(make_job: Make) -> None:
    class NoTotal(Objective):
        def loss(self, network: Network, batch: Batch) -> Losses:
            return {"mine": Supervised().loss(network, batch)["total"]}

    with pytest.raises(PluginError, match='names no "total"; it has: mine'):
        run_plan(make_job(TrainPlan((_phase(NoTotal()),))))


def test_a_group_that_matches_nothing_is_named(make_job: Make) -> None:
    with pytest.raises(PluginError, match='"backbone.nowhere.*" of the training plan matches nothing'):
        run_plan(
            make_job(TrainPlan((_phase(Supervised(), moves=(Move((Group("backbone.nowhere.*", 1e-2),)),)),)))
        )


def test_a_phase_that_needs_target_images_says_so_without_any(make_job: Make) -> None:
    with pytest.raises(UserError, match="needs target images"):
        run_plan(make_job(PLANS["dann"]()))


def test_a_head_fit_of_the_wrong_shape_is_refused(make_job: Make) -> None:
    def fit(problem: HeadProblem) -> tuple[np.ndarray, np.ndarray, dict[str, float]]:
        return np.zeros((2, 2)), np.zeros(2), {}

    with pytest.raises(PluginError, match="expected"):
        run_plan(make_job(TrainPlan((HeadFit("bad", fit),))))


def test_a_plan_without_phases_or_with_equal_names_is_refused() -> None:
    with pytest.raises(PluginError, match="no phase"):
        TrainPlan(())
    phase = LpFt().plan(TASK).phases[0]
    with pytest.raises(PluginError, match="share a name"):
        TrainPlan((phase, phase))


@pytest.mark.slow
def test_a_phase_ends_early_when_two_looks_in_a_row_say_so(make_job: Make) -> None:
    plan = TrainPlan((_phase(Supervised(), epochs=6),))
    looks: list[int] = []

    def measure(network: Network) -> Measured:
        looks.append(len(looks))
        return Measured((-float(len(looks)),), {}, "it fell" if len(looks) in (2, 4, 5) else "")

    result = run_plan(make_job(plan, measure=measure, start_counts=False))
    assert len(result.history) == 5 and result.chosen_epoch == 1
    assert result.stopped == "phase, epoch 5 of 6: it fell"


def test_a_phase_that_only_prepares_is_not_measured(make_job: Make) -> None:
    plan = TrainPlan((_phase(Supervised(), epochs=2, choose="end"),))
    result = run_plan(make_job(plan, measure=lambda network: pytest.fail("looked at"), start_counts=False))
    assert len(result.history) == 2


def test_an_epoch_may_be_a_number_of_steps(make_job: Make) -> None:
    steps: list[int] = []
    plan = TrainPlan((_phase(Supervised(), epochs=3, steps_per_epoch=2),))
    result = run_plan(make_job(plan, progress=lambda done, total, text: steps.append(total)))
    assert len(result.history) == 3 and set(steps) == {6}


def test_training_on_cached_features_is_training_on_the_frozen_backbone(make_job: Make) -> None:
    """The same weights whether features were handed in or worked out by the loop; the backbone never moves."""
    plan = Dann(steps=6, checkpoints=2, train="head", batch_size=8).plan(TASK)
    plain = make_job(plan, target=20, scratch="plain")
    before = weights(plain)
    run_plan(plain)
    given = make_job(plan, target=20, scratch="given")
    features: dict[Any, np.ndarray] = {
        name: embed(given.network, stream.pixels, stream.rows, given.preprocess)
        for name, stream in given.streams.items()
    }
    given = make_job(plan, target=20, scratch="given", features=features)
    run_plan(given)
    assert all(torch.equal(value, weights(given)[name]) for name, value in weights(plain).items())
    assert all(torch.equal(v, weights(plain)[n]) for n, v in before.items() if n.startswith("backbone."))
    assert plain.network.feature_dim == 256


def test_fits_and_objectives_are_told_which_images_are_copies(make_job: Make) -> None:
    told: list[object] = []

    def fit(problem: HeadProblem) -> tuple[np.ndarray, np.ndarray, dict[str, float]]:
        told.append(problem.groups)
        return np.zeros((3, problem.features.shape[1])), np.zeros(3), {}

    class Asking(Supervised):
        def setup(self, setup: Setup) -> None:
            super().setup(setup)
            told.append(setup.groups)

    job = make_job(TrainPlan((HeadFit("asking", fit), _phase(Asking()))))
    groups = np.arange(24) // 2
    job.streams["source"] = replace(job.streams["source"], groups=groups)  # type: ignore[index]
    run_plan(job)
    assert [given is groups for given in told] == [True, True]

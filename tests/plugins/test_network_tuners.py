"""What holds for every tuner that is discovered, and for every one that trains the network."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import get_args

import pytest

from tests.plugins.tuned import job, small_network
from tlcore.protocols import Card, TrainTask, Tuner
from tlcore.registry import Registry
from tlcore.training.loop import run_plan
from tlcore.training.network_tuner import NetworkTuner
from tlcore.training.parameters import select
from tlcore.training.plan import HeadFit, Phase
from tlcore.training.space import search_space
from tlcore.values import Task

REGISTRY = Registry.discover(block=())
TUNERS = {
    one.name: REGISTRY.load("tuner", one.name)
    for one in REGISTRY.entries
    if one.kind == "tuner" and one.distribution == "tlcore"
}
OF_THE_NETWORK = {name: cls for name, cls in TUNERS.items() if issubclass(cls, NetworkTuner)}
TRAITS = set(re.findall(r'"([a-z-]+)"', Card.__doc__ or ""))

each = pytest.mark.parametrize("name", sorted(set(TUNERS) - {"auto"}))
each_network = pytest.mark.parametrize("name", sorted(OF_THE_NETWORK))


def kinds(tuner: type[Tuner]) -> list[Task]:
    return [kind for kind in get_args(Task) if kind == "classification" or kind in tuner.card.traits]


def test_the_strategies_of_the_network_are_all_here() -> None:
    assert OF_THE_NETWORK.keys() >= {
        "full", "lp-ft", "gradual-unfreezing", "norm-only", "lora", "l2-sp", "delta", "bss", "co-tuning", "distill",
        "scratch", "partial",
    }  # fmt: skip


@each
def test_the_card_s_traits_are_known(name: str) -> None:
    assert TUNERS[name].card.traits <= TRAITS


@each
def test_there_is_a_plan_for_every_kind_of_labels_it_promises(name: str) -> None:
    tuner = REGISTRY.build("tuner", name, {})
    assert isinstance(tuner, Tuner)
    for kind in kinds(TUNERS[name]):
        plan = tuner.plan(TrainTask(("a", "b"), 8, 40, task=kind, counts=(20, 20)))
        assert plan.phases and all(isinstance(phase, Phase | HeadFit) for phase in plan.phases)


@each_network
def test_every_option_around_a_phase_reaches_it(name: str) -> None:
    options = {"ema": 0.9, "sam": 0.1, "mixup": 0.3, "cutmix": 0.4, "patience": 2, "randaugment": "rand-m3", "wise": True,
               "batch_size": 7, "augment": "flip"}  # fmt: skip
    tuner = REGISTRY.build("tuner", name, options)
    assert isinstance(tuner, NetworkTuner)
    phases = [phase for phase in tuner.plan(TrainTask(("a", "b"), 8, 40)).phases if isinstance(phase, Phase)]
    assert phases
    for phase in phases:
        assert (phase.ema, phase.sam, phase.mixup, phase.cutmix) == (0.9, 0.1, 0.3, 0.4)
        assert (phase.patience, phase.randaugment, phase.batch_size, phase.augment) == (
            2,
            "rand-m3",
            7,
            "flip",
        )
        assert phase.interpolate and phase.moves[0].groups


@each_network
def test_passes_add_up_to_the_epochs_that_were_asked_for(name: str) -> None:
    plan = REGISTRY.build("tuner", name, {"epochs": 6}).plan(TrainTask(("a", "b"), 8, 40))  # type: ignore[attr-defined]
    assert sum(phase.epochs for phase in plan.phases if isinstance(phase, Phase)) == 6


@each_network
@pytest.mark.parametrize("architecture", ["test_resnet", "test_vit"])
def test_every_group_names_parameters_of_cnns_and_transformers(name: str, architecture: str) -> None:
    network = small_network(architecture)
    plan = REGISTRY.build("tuner", name, {}).plan(TrainTask(("a", "b"), 8, 40))  # type: ignore[attr-defined]
    if plan.transform is not None:
        plan.transform.apply(network)
    for phase in plan.phases:
        if isinstance(phase, Phase):
            for group in phase.moves[0].groups:
                assert group.parameters == "objective" or select(network, None, group.parameters)


@each_network
def test_what_it_would_search_can_be_searched(name: str) -> None:
    tuner = REGISTRY.build("tuner", name, {})
    assert [one.name for one in search_space(tuner)] == list(OF_THE_NETWORK[name].searched)


@each
def test_it_survives_json_and_pickling(name: str) -> None:
    tuner = REGISTRY.build("tuner", name, {})
    assert type(tuner).model_validate_json(tuner.model_dump_json()) == tuner
    assert pickle.loads(pickle.dumps(tuner)) == tuner  # noqa: S301 - written a moment ago, by this test


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    sorted(n for n, c in OF_THE_NETWORK.items() if not c.card.traits & {"source-head", "teacher"}),
)
def test_a_plan_of_two_epochs_is_carried_out_with_all_options_at_once(name: str, tmp_path: Path) -> None:
    options = {
        "epochs": 2,
        "mixup": 0.2,
        "ema": 0.8,
        "sam": 0.05,
        "class_weights": "balanced",
        "layer_decay": 0.8,
    }
    tuner = REGISTRY.build("tuner", name, options)
    assert isinstance(tuner, Tuner)
    result = run_plan(job(tuner, tmp_path, count=16))
    assert result.measures["validation_accuracy"] >= 1 / 3


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["regression", "multi-label"])
@each_network
def test_it_learns_the_other_kinds_of_labels_that_it_promises(name: str, kind: Task, tmp_path: Path) -> None:
    if kind not in OF_THE_NETWORK[name].card.traits:
        pytest.skip("not promised")
    tuner = REGISTRY.build("tuner", name, {"epochs": 3})
    assert isinstance(tuner, Tuner)
    result = run_plan(job(tuner, tmp_path, kind=kind, start_counts=False))
    assert result.history[-1].losses["total"] < 2
    assert result.measures["validation_correlation"] > 0.5

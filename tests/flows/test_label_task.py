from __future__ import annotations

from typing import Any

import pytest

from tlcore.config import RunConfig
from tlcore.errors import UserError
from tlcore.registry import Registry
from tlcore.stages.values import CheckedData
from tlcore.values import DataReport
from tlcore_flows.label_task import probe_of, refuse_unsound, suited

REGISTRY = Registry.discover()


def config(**sections: Any) -> RunConfig:
    document = {
        "data": {"source": "list.csv"},
        "models": ["local:zoo"],
        "finetune": {"try": ["ridge", "lp-ft"]},
    }
    return RunConfig.model_validate({**document, **sections})


def data(task: str, *, target: bool = False) -> CheckedData:
    return CheckedData.model_validate(
        {
            "name": "d", "classes": ("age",), "rows": 9, "fingerprint": "", "has_target": target, "report": DataReport(),
            "task": task,
        }
    )  # fmt: skip


def test_strategies_that_promise_the_labels_may_go_on() -> None:
    for task in ("classification", "regression", "multi-label"):
        refuse_unsound(config(), REGISTRY, data(task))
    refuse_unsound(config(finetune={"try": ["linear-probe"]}), REGISTRY, data("classification", target=True))


def test_adapters_are_refused_before_anything_is_trained() -> None:
    with pytest.raises(UserError, match="adapters are for classes, and these labels are tags") as caught:
        refuse_unsound(config(), REGISTRY, data("multi-label", target=True))
    assert "--adapt none" in caught.value.hint
    refuse_unsound(config(adapt={"try": []}), REGISTRY, data("multi-label", target=True))


def test_a_tuner_of_classes_is_refused_with_the_choices() -> None:
    with pytest.raises(
        UserError, match="linear-probe is for classes, and these labels are numbers"
    ) as caught:
        refuse_unsound(config(finetune={"try": ["ridge", "linear-probe"]}), REGISTRY, data("regression"))
    assert {"ridge", "lp-ft", "full"} <= set(
        caught.value.choices
    ) and "linear-probe" not in caught.value.choices
    with pytest.raises(UserError, match="linear-probe") as caught:
        refuse_unsound(config(evaluation={"scratch": "linear-probe"}), REGISTRY, data("regression"))
    assert caught.value.where == "evaluation.scratch"


def test_the_default_strategies_are_fitted_to_the_labels_and_named_ones_kept() -> None:
    default = config(finetune={})
    refuse_unsound(default, REGISTRY, data("regression"))
    names = [choice.name for choice in suited(default, "regression").finetune.strategies]
    assert names == ["ridge", "auto"]
    assert suited(default, "classification") is default
    named = config(finetune={"try": ["linear-probe"]})
    assert suited(named, "regression") is named


def test_the_frozen_baseline_fits_the_labels() -> None:
    assert (probe_of("classification"), probe_of("regression")) == ("linear-probe", "ridge")

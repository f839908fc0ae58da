from __future__ import annotations

from typing import Any

import pytest

from tlcore.config import RunConfig, StrategyChoice
from tlcore.errors import UserError
from tlcore.registry import Registry
from tlcore.values import Candidate
from tlcore_flows.needs import lacks, refuse_unable, untrainable

REGISTRY = Registry.discover()


def config(*tuners: str, **selection: Any) -> RunConfig:
    return RunConfig.model_validate(
        {
            "data": {"source": "photos"},
            "models": ["local:zoo"],
            "finetune": {"try": list(tuners)},
            "selection": selection,
        }
    )


def candidate(source: str, classes: int = 0) -> Candidate:
    return Candidate(name=source, source={"name": source, "options": {}}, architecture="a", classes=classes)


CLIP, HEADLESS, HEADED = candidate("open-clip"), candidate("local"), candidate("local", 5)


@pytest.mark.parametrize(
    ("tuner", "able", "unable", "word"),
    [("zero-shot", CLIP, HEADED, "text tower"), ("co-tuning", HEADED, HEADLESS, "head of pretraining")],
)
def test_a_tuner_needs_a_model_with_what_its_traits_say(
    tuner: str, able: Candidate, unable: Candidate, word: str
) -> None:
    choice = StrategyChoice(name=tuner)
    assert lacks(REGISTRY, choice, able) is None and word in str(lacks(REGISTRY, choice, unable))
    assert lacks(REGISTRY, StrategyChoice(name="lp-ft"), unable) is None
    refuse_unable(config(tuner), REGISTRY, [unable, able])
    with pytest.raises(UserError, match=f"{tuner} needs .* no model that is named has one") as caught:
        refuse_unable(config("lp-ft", tuner), REGISTRY, [unable, unable])
    assert caught.value.where == "finetune.try" and "--tuner" in str(caught.value.hint)


def test_verification_is_asked_as_well() -> None:
    wanted = config("lp-ft", verify=True, verify_with="co-tuning")
    with pytest.raises(UserError) as caught:
        refuse_unable(wanted, REGISTRY, [HEADLESS])
    assert caught.value.where == "selection.verify_with"


def test_a_candidate_that_no_strategy_can_train_takes_no_part_and_hears_why() -> None:
    assert untrainable(config("zero-shot", "lp-ft"), REGISTRY, HEADLESS) is None
    assert untrainable(config("zero-shot"), REGISTRY, CLIP) is None
    said = untrainable(config("zero-shot", "co-tuning"), REGISTRY, HEADLESS)
    assert said is not None and "zero-shot cannot train it" in said and "co-tuning cannot train it" in said

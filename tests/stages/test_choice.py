"""Which of several adapters is kept, and what is said of each."""

from __future__ import annotations

from tlcore.evaluation.gate import KEPT, NOT_KEPT
from tlcore.stages.choice import judge_adapters
from tlcore.stages.values import AdaptedModel
from tlcore.values import SOURCE_ONLY, Adapted, Candidate, Checkpoint, Preprocess

BASE = Adapted(
    strategy="lp-ft", validator_score=0.5, validators={"im": 1.0}, source_validation_accuracy=0.9, top_share=0.3,
    cluster_agreement=0.5,
)  # fmt: skip


CHECKPOINT = Checkpoint(
    candidate=Candidate(name="a", source={}, architecture="a"), classes=("a", "b"), preprocess=Preprocess(height=8, width=8),
    weights="weights.safetensors", strategy="any",
)  # fmt: skip


def model(name: str, score: float, agreement: float = 0.7) -> AdaptedModel:
    adapted = BASE.model_copy(
        update={
            "strategy": name, "validator_score": score, "validators": {"im": 1 + score}, "cluster_agreement": agreement,
        }
    )  # fmt: skip
    return AdaptedModel(checkpoint=CHECKPOINT, adapted=adapted, source_only=BASE, target_images=9)


def verdicts(*models: AdaptedModel) -> tuple[str, dict[str, str]]:
    judged = judge_adapters(models, (), validators=["im"], floor=0.05)
    return judged.kept, {entry.strategy: entry.verdict for entry in judged.tried}


def test_of_those_that_pass_the_highest_score_is_kept_and_the_others_are_said_to_have_passed() -> None:
    kept, said = verdicts(model("coral", 0.6), model("dann", 0.8), model("mcc", 0.9, agreement=0.4))
    assert kept == "dann" and said["dann"].startswith(KEPT)
    assert said["coral"].startswith("Passed, but dann has the higher score: im 1.600 above")
    assert said["mcc"].startswith(NOT_KEPT) and "clusters" in said["mcc"]


def test_among_equals_the_first_is_kept_and_where_none_passes_source_only() -> None:
    assert verdicts(model("coral", 0.6), model("dann", 0.6))[0] == "coral"
    assert verdicts(model("coral", 0.6, agreement=0.5))[0] == SOURCE_ONLY

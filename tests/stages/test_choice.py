"""Which of several adapters is kept, and what is said of each."""

from __future__ import annotations

from tlcore.evaluation.gate import KEPT, NOT_KEPT
from tlcore.stages.choice import judge_adapters
from tlcore.values import SOURCE_ONLY, Adapted

BASE = Adapted(
    strategy="lp-ft", validator_score=0.5, validators={"im": 1.0}, source_validation_accuracy=0.9, top_share=0.3,
    cluster_agreement=0.5,
)  # fmt: skip


def adapted(name: str, score: float, agreement: float = 0.7) -> Adapted:
    return BASE.model_copy(
        update={
            "strategy": name, "validator_score": score, "validators": {"im": 1 + score}, "cluster_agreement": agreement,
        }
    )  # fmt: skip


def verdicts(*entries: Adapted) -> tuple[str, dict[str, str]]:
    judged = judge_adapters(BASE, entries, (), validators=["im"], floor=0.05, classes=10, target_images=9)
    return judged.kept, {entry.strategy: entry.verdict for entry in judged.tried}


def test_of_those_that_pass_the_highest_score_is_kept_and_the_others_are_said_to_have_passed() -> None:
    kept, said = verdicts(adapted("coral", 0.6), adapted("dann", 0.8), adapted("mcc", 0.9, agreement=0.4))
    assert kept == "dann" and said["dann"].startswith(KEPT)
    assert said["coral"].startswith("Passed, but dann has the higher score: im 1.600 above")
    assert said["mcc"].startswith(NOT_KEPT) and "clusters" in said["mcc"]


def test_among_equals_the_first_is_kept_and_where_none_passes_source_only() -> None:
    assert verdicts(adapted("coral", 0.6), adapted("dann", 0.6))[0] == "coral"
    assert verdicts(adapted("coral", 0.6, agreement=0.5))[0] == SOURCE_ONLY


def test_where_all_were_refused_or_failed_source_only_is_kept_and_each_says_why() -> None:
    others = [
        BASE.model_copy(update={"strategy": "dann", "refused": "not sound here"}),
        BASE.model_copy(update={"strategy": "mcc", "failed": "the loss is not finite"}),
    ]
    judged = judge_adapters(BASE, (), others, validators=["im"], floor=0.05, classes=10, target_images=9)
    assert judged.kept == SOURCE_ONLY and judged.tried == tuple(others)
    assert "dann: refused, not sound here." in judged.reason and "mcc: failed, the loss" in judged.reason

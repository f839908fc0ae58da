"""Which of several adapters is kept, and what is said of each."""

from __future__ import annotations

from pathlib import Path

import pytest

from tlcore.evaluation.gate import KEPT, NOT_KEPT
from tlcore.stages.choice import judge_adapters, kept_start
from tlcore.stages.values import Trained
from tlcore.values import SOURCE_ONLY, Adapted, Epoch, SearchResult, SoupResult

from .conftest import Chain, source, write_images, write_zoo

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


@pytest.fixture
def bench(chain: Chain, tmp_path: Path) -> Bench:
    return Bench(chain, tmp_path)


class Bench:
    """Trainings of one tiny network."""

    def __init__(self, chain: Chain, tmp_path: Path) -> None:
        self.chain, self.data = chain, chain.data(write_images(tmp_path / "photos", 12, seed=0))
        (self.candidate,) = chain.candidates(write_zoo(tmp_path / "zoo", ("test_resnet",)))
        self.pixels = chain.pixels(self.data, self.candidate)

    def __call__(self, tuner: str, validation: str = "held-out", **options: object) -> Trained:
        ref = self.chain(
            "train", tuner, inputs={"data": self.data, "pixels": self.pixels},
            options={
                "candidate": self.candidate.model_dump(mode="json"), "pretrained": True, "validation": validation,
                "folds": 2,
            },
            strategies={"source": source(self.candidate), "tuner": ("tuner", tuner, options)},
        )  # fmt: skip
        return self.chain.store.read(ref, Trained)


SPOILT = {"epochs": 1, "lr": 0.01, "head_factor": 100.0, "batch_size": 4}


@pytest.mark.slow
@pytest.mark.parametrize("validation", ["held-out", "cross-validation"])
def test_a_training_that_only_spoils_its_probe_is_said_to_have_kept_it(validation: str, bench: Bench) -> None:
    trained = bench("lp-ft", validation, **SPOILT)
    assert kept_start(trained) == "the linear probe"
    assert kept_start(bench("linear-probe", validation)) == ""


def test_a_training_that_got_further_kept_nothing(bench: Bench) -> None:
    trained = bench("full", epochs=2, lr=1e-3)
    assert trained.checkpoint.chosen_epoch and kept_start(trained) == ""


def one(strategy: str, chosen: int | None, *lines: Epoch, accuracy: float, base: Trained) -> Trained:
    checkpoint = base.checkpoint.model_copy(
        update={
            "strategy": strategy, "chosen_epoch": chosen, "history": lines,
            "measures": {"validation_accuracy": accuracy, "validation_loss": 0.5},
        }
    )  # fmt: skip
    return base.model_copy(update={"checkpoint": checkpoint})


def line(phase: str, epoch: int, accuracy: float, *, total: float | None = 1.0) -> Epoch:
    measures = {"validation_accuracy": accuracy, "validation_loss": 0.5}
    return Epoch(
        phase=phase, epoch=epoch, losses={} if total is None else {"total": total}, measures=measures
    )


def test_what_the_start_was_is_read_off_the_history(bench: Bench) -> None:
    base = bench("linear-probe")
    probe = line("probe", 1, 0.8, total=None)
    worse, better = line("unfreeze last:1", 1, 0.7), line("unfreeze last:1", 1, 0.9)
    last = line("unfreeze backbone", 1, 0.6)
    between = line("tune at 0.4", 1, 0.7, total=None)
    cases = [
        (one("lp-ft", 0, probe, line("tune", 1, 0.7), accuracy=0.8, base=base), "the linear probe"),
        (one("lp-ft", 0, probe, accuracy=0.8, base=base), "the linear probe"),  # the budget was spent
        (one("lp-ft", 1, probe, line("tune", 1, 0.9), between, accuracy=0.9, base=base), ""),
        (one("full", 0, line("full", 1, 0.3), accuracy=0.4, base=base), "its start"),
        (one("full", 0, accuracy=0.4, base=base), "its start"),
        (one("gradual-unfreezing", 0, probe, worse, last, accuracy=0.8, base=base), "the linear probe"),
        (one("gradual-unfreezing", 0, probe, better, last, accuracy=0.9, base=base), ""),
        (one("gradual-unfreezing", None, probe, better, accuracy=0.9, base=base), ""),
        (one("ridge", None, line("ridge", 1, 0.8, total=None), accuracy=0.8, base=base), ""),
    ]
    assert [kept_start(trained) for trained, _ in cases] == [said for _, said in cases]
    numbers = cases[0][0].checkpoint.model_copy(update={"task": "regression"})
    assert kept_start(cases[0][0].model_copy(update={"checkpoint": numbers})) == "the ridge"


def test_a_soup_is_no_start(bench: Bench) -> None:
    base = bench("linear-probe")
    trained = one("full", 0, line("full", 1, 0.3), accuracy=0.4, base=base)
    for kept, said in ((True, ""), (False, "its start")):
        soup = SoupResult(members=(0, 1), offered=(0, 1), validation=0.5, single=0.4, kept=kept)
        search = SearchResult(candidate="a", strategy="full", soup=soup)
        assert kept_start(trained.model_copy(update={"search": search})) == said

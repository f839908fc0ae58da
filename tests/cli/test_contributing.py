"""The examples in CONTRIBUTING.md are what they say: one file each, and nothing else."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def blocks() -> list[str]:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)


def test_the_strategy_passes_its_test(blocks: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    strategy, its_test, *_ = blocks
    module = ModuleType("tlcore_scorers.trace_ratio")
    # Annotations of a pydantic class are looked up in its module.
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(strategy, "trace_ratio.py", "exec"), module.__dict__)
    names: dict[str, object] = {}
    exec(compile(its_test, "test_trace_ratio.py", "exec"), names)
    tests = [value for name, value in names.items() if name.startswith("test_")]
    assert len(tests) == 2
    for one in tests:
        one()  # type: ignore[operator]


def test_the_strategy_keeps_the_contract(blocks: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from tlcore.registry.contract import check

    module = ModuleType("tlcore_scorers.trace_ratio")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(blocks[0], "trace_ratio.py", "exec"), module.__dict__)
    (scorer,) = module.tlcore_scorers()
    assert check("scorer", scorer).name == "trace-ratio"


@pytest.fixture
def tuners(blocks: list[str], monkeypatch: pytest.MonkeyPatch) -> list[ModuleType]:
    """The modules of the two tuners."""
    made = []
    for number, text in enumerate(blocks[2:]):
        module = ModuleType(f"tlcore_tuners.example_{number}")
        monkeypatch.setitem(sys.modules, module.__name__, module)
        exec(compile(text, f"{module.__name__}.py", "exec"), module.__dict__)
        made.append(module)
    assert len(made) == 2
    return made


def test_the_tuners_keep_the_contract(tuners: list[ModuleType]) -> None:
    from tlcore.registry.contract import check

    names = [check("tuner", kind).name for module in tuners for kind in module.tlcore_tuners()]
    assert names == ["class-means", "confidence-penalty"]


def test_the_head_of_means_answers_with_the_nearest_mean(tuners: list[ModuleType]) -> None:
    from scipy.spatial.distance import cdist

    from tlcore.testing import tiny_task
    from tlcore.training.plan import HeadProblem

    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(40, 6)).astype(np.float32), rng.integers(0, 3, 40)
    plan = tuners[0].ClassMeans().plan(tiny_task())
    assert plan.keeps_backbone
    weight, bias, _ = plan.phases[0].fit(HeadProblem(features, labels, ("a", "b", "c"), seed=0))
    means = np.stack([features[labels == k].mean(0) for k in range(3)])
    nearest = cdist(features, means).argmin(1)
    np.testing.assert_array_equal((features @ weight.T + bias).argmax(1), nearest)
    absent = plan.phases[0].fit(HeadProblem(features, labels, ("a", "b", "c", "d"), seed=0))
    assert np.isfinite(absent[0]).all() and absent[0].shape == (4, 6)


def test_the_penalised_loss_is_cross_entropy_less_entropy(tuners: list[ModuleType]) -> None:
    import torch
    from scipy.special import log_softmax
    from scipy.stats import entropy

    from tlcore.testing import tiny_task
    from tlcore.training.plan import Batch, HeadFit, View

    tuner = tuners[1].ConfidencePenalty(weight=0.5, mixup=0.2)
    probe, phase = tuner.plan(tiny_task()).phases
    assert isinstance(probe, HeadFit) and phase.mixup == 0.2
    logits, labels = torch.randn(5, 3), torch.tensor([0, 1, 2, 0, 1])
    batch = Batch(View(logits, labels, torch.arange(5)), None, progress=0.0, step=0)
    found = phase.objective.loss(torch.nn.Identity(), batch)
    logs = log_softmax(logits.double().numpy(), axis=1)
    fit = -logs[np.arange(5), labels.numpy()].mean()
    assert float(found["fit"]) == pytest.approx(fit, rel=1e-5)
    assert float(found["total"]) == pytest.approx(fit - 0.5 * entropy(np.exp(logs), axis=1).mean(), rel=1e-5)

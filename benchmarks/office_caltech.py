"""The closed-form adapters on Office-Caltech's SURF features: the twelve pairs of four domains, ten classes.

    python -m benchmarks.office_caltech [--seeds N]

Writes benchmarks/results/office_caltech.csv, with the columns of adaptation.csv. Source-only is a logistic regression on
the source; a fifth of the source, drawn by the seed, is held out as its validation images. As published for this set,
the adapters see all of the target's features, and accuracy is measured on the same ones (Gong et al. 2012): there is
no training along which to choose, so the last and the oracle's accuracy are the chosen one.
"""

from __future__ import annotations

import argparse
import json
import time
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.adaptation import CLOSED_FORM, SEEDS, witness_scores
from benchmarks.adaptation_tables import CLOSED, VALIDATORS, cells, keep, read
from benchmarks.image_sets import shared_data

DOMAINS = ("amazon", "caltech", "dslr", "webcam")


def cell(source: Any, target: Any, adapter: str, seed: int, registry: Any) -> dict[str, Any]:
    """One line of the table. source, target: name, features [n, d], labels [n]."""
    from tlcore.evaluation.accuracy_estimates import estimate_accuracy
    from tlcore.evaluation.panel import Panel
    from tlcore.protocols import TrainTask
    from tlcore.training.heads import logistic_head
    from tlcore.training.plan import HeadProblem

    (name, x, y), (other, xt, yt) = source, target
    classes = tuple(str(k) for k in range(int(y.max()) + 1))
    train, held = _parted(y, seed)
    problem = HeadProblem(x[train], y[train], classes, seed, xt)
    strategy = registry.build("adapter", adapter, {})
    (phase,) = strategy.plan(TrainTask(classes, x.shape[1], len(train), len(xt), seed)).phases
    heads = {"before": partial(logistic_head, penalties=7, folds=5), "after": phase.fit}
    seen = {}
    for when, fit in heads.items():
        started = time.perf_counter()
        seen[when] = _outputs(fit(problem)[:2], x[held], y[held], xt)
    seconds = time.perf_counter() - started
    p = {when: outputs.target_probabilities for when, outputs in seen.items()}
    hits = {when: float((found.argmax(1) == yt).mean()) for when, found in p.items()}
    found = {when: witness_scores(registry, outputs) for when, outputs in seen.items()}
    panel = Panel([registry.build("validator", name, {}) for name in VALIDATORS])
    return {
        "pair": f"{name}-{other}", "adapter": adapter, "mode": "closed", "seed": seed,
        "source_only": f"{hits['before']:.4f}", **dict.fromkeys(("chosen", "last", "oracle"), f"{hits['after']:.4f}"),
        "seconds": f"{seconds:.1f}", "target_test": len(yt), "stopped": "",
        "evidence": json.dumps(
            {**found, "score": [panel.combined(found[when], outputs) for when, outputs in seen.items()],
             "estimates": [estimate_accuracy(outputs).model_dump() for outputs in seen.values()],
             "source": [found[when]["source-accuracy"] for when in heads],
             "share": [float(np.bincount(found.argmax(1)).max() / len(found)) for found in p.values()],
             "target_only": "target-only" in strategy.card.traits}
        ),
    }  # fmt: skip


def _parted(labels: NDArray[np.int64], seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Four fifths and one fifth of every class."""
    from sklearn.model_selection import train_test_split

    train, held = train_test_split(np.arange(len(labels)), test_size=0.2, stratify=labels, random_state=seed)
    return np.sort(train), np.sort(held)


def _outputs(
    head: tuple[NDArray[np.float64], NDArray[np.float64]], held: Any, labels: Any, target: Any
) -> Any:
    from scipy.special import softmax

    from tlcore.protocols import ValidatorOutputs

    weight, bias = head
    on_target, on_held = (softmax(rows @ weight.T + bias, axis=1) for rows in (target, held))
    return ValidatorOutputs(on_target, on_held, labels, target, held)


def _domain(name: str) -> tuple[str, NDArray[np.float32], NDArray[np.int64]]:
    """Counts of visual words as shares of the image's words, and labels from 0."""
    with np.load(shared_data() / "office_caltech10" / "office_caltech10.npz") as file:
        counts, labels = file[f"{name}_surf"], file[f"{name}_y"]
    rows = counts.astype(np.float32)
    return name, rows / rows.sum(axis=1, keepdims=True), labels.astype(np.int64)


def main() -> None:
    from tlcore.registry import Registry

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=SEEDS)
    given = parser.parse_args()
    registry, domains = Registry.discover(), [_domain(name) for name in DOMAINS]
    for seed in range(given.seeds):
        for source in domains:
            for target in domains:
                for adapter in CLOSED_FORM if source is not target else ():
                    keep(cell(source, target, adapter, seed, registry), CLOSED)
    print(cells(read(CLOSED)))


if __name__ == "__main__":
    main()

"""The same adaptation by tlcore, skada and pytorch-adapt: same features, network, optimiser, rates, batches and steps.

    python -m benchmarks.adaptation_rivals --rival FOLDER [--store FOLDER] [--repeats N] [--pairs NAME ...] [--methods NAME ...]

FOLDER is where `make .venv/adaptation_rivals` installs them, beside this project's torch. (`adapt`, the third that was
looked at, needs TensorFlow and was left out.) The features are those of the PACS pairs of benchmarks/adaptation.py
(mobilenetv2_100), whose store is used. All in one process on one thread: each repeat is one seed, the order of the three
rotates. Accuracy is that of the last step on the target's test images, CPU seconds are those of the whole training
(skada's to the nearest whole epoch); ratios are of tlcore to the rival in the same repeat.

Discriminators and weights of the losses are tlcore's everywhere: skada's own discriminator ends in a softmax over one
unit, which is 1 whatever comes in. What stays each tool's own: tlcore lets the reversed gradient grow with time (Ganin
et al. 2016), skada reverses it in full from the start, and so does pytorch-adapt's DANN; its CDAN plays in two turns.
tlcore weighs CDAN's images by the certainty of their predictions, as pytorch-adapt's CDAN+E does; skada hands logits,
not probabilities, to the product.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from benchmarks.adaptation import Bench
from benchmarks.image_sets import shared_data
from tlcore.protocols import TrainTask
from tlcore.registry import Registry
from tlcore.training.discriminator import discriminator
from tlcore.training.job import Measured, TrainJob
from tlcore.training.loop import run_plan
from tlcore.training.network import Network, bottleneck_module
from tlcore.training.predict import predict_features
from tlcore.training.streams import StreamData
from tlcore.values import Bottleneck, Preprocess

METHODS = ("coral", "dann", "cdan", "mcc")
PAIRS = ("photo-art", "photo-sketch", "art-photo")
BATCH, SHAPE = 32, Bottleneck(width=256, dropout=0.5)
LR, HIDDEN = 1e-2, {"dann": 256, "cdan": 1024}
SGD = {"momentum": 0.9, "nesterov": True, "weight_decay": 1e-3}


@dataclass(frozen=True)
class Task:
    """Backbone features float32 [n, d] of labelled source images, of target images, and of the target's test images."""

    source: NDArray[np.float32]
    labels: NDArray[np.int64]
    target: NDArray[np.float32]
    test: NDArray[np.float32]
    truth: NDArray[np.int64]
    classes: tuple[str, ...]
    steps: int


def tlcore(method: str, task: Task, seed: int, registry: Registry) -> float:
    n, d = task.source.shape
    adapter: Any = registry.build("adapter", method, {"train": "head", "steps": task.steps, "checkpoints": 1})
    asked = TrainTask(task.classes, d, n, len(task.target), seed)
    network = Network(nn.Identity(), d, len(task.classes))
    nothing = np.zeros((1, 1, 1, 3), np.uint8)
    with tempfile.TemporaryDirectory() as scratch:
        run_plan(
            TrainJob(
                network=network, preprocess=Preprocess(height=8, width=8), task=asked, plan=adapter.plan(asked),
                streams={
                    "source": StreamData(nothing, np.arange(n), task.labels),
                    "target": StreamData(nothing, np.arange(len(task.target)), None),
                },
                measure=lambda network: Measured((0.0,), {}), scratch=Path(scratch), seed=seed, start_counts=False,
                features={"source": task.source, "target": task.target},
            )
        )  # fmt: skip
    return float((predict_features(network, task.test)[1].argmax(1) == task.truth).mean())


def _module(task: Task, seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    neck = bottleneck_module(task.source.shape[1], SHAPE)
    return nn.Sequential(OrderedDict(bottleneck=neck, head=nn.Linear(SHAPE.width, len(task.classes))))


class _Weighable(nn.Module):
    """A module as skada calls it, with weights that nobody gives."""

    def __init__(self, parts: nn.Sequential) -> None:
        super().__init__()
        self.bottleneck, self.head = parts.bottleneck, parts.head

    def forward(self, x: torch.Tensor, sample_weight: Any = None) -> Any:
        return self.head(self.bottleneck(x))


class _Reversed(nn.Module):
    """The discriminator as skada takes it: behind its own gradient reversal, a probability per image."""

    def __init__(self, judge: nn.Module) -> None:
        super().__init__()
        self.judge = judge

    def forward(self, x: torch.Tensor, sample_weight: Any = None) -> torch.Tensor:
        from skada.deep.modules import GradientReversalLayer

        return torch.sigmoid(self.judge(GradientReversalLayer.apply(x, 1.0))).squeeze(1)


def _judge(method: str, task: Task) -> nn.Module:
    width = SHAPE.width * (len(task.classes) if method == "cdan" else 1)
    return discriminator(width, HIDDEN[method])


def _factor(step: int, steps: int) -> float:
    return float((1 + 10 * min(1.0, step / steps)) ** -0.75)


def skada(method: str, task: Task, seed: int, registry: Registry) -> float:
    from skada.deep import CDAN, DANN, MCC, DeepCoral
    from skorch.callbacks import LRScheduler

    module = _module(task, seed)
    make, extra = {
        "coral": (DeepCoral, {}), "dann": (DANN, {"reg": 0.5}), "cdan": (CDAN, {"reg": 0.5}), "mcc": (MCC, {"T": 2.5}),
    }[method]  # fmt: skip
    if method in HIDDEN:
        extra["domain_classifier"] = _Reversed(_judge(method, task))
    per_epoch = max(len(task.source), len(task.target)) // BATCH  # whole batches alone, of the larger domain
    schedule = LRScheduler(
        torch.optim.lr_scheduler.LambdaLR,
        lr_lambda=lambda step: _factor(step, task.steps),
        step_every="batch",
    )
    net = make(
        _Weighable(module), layer_name="bottleneck", batch_size=BATCH, max_epochs=max(1, round(task.steps / per_epoch)),
        train_split=None, verbose=0, optimizer=torch.optim.SGD, lr=LR, callbacks=[("schedule", schedule)],
        **{f"optimizer__{name}": value for name, value in SGD.items()}, **extra,
    )  # fmt: skip
    x = np.concatenate([task.source, task.target])
    y = np.concatenate([task.labels, np.full(len(task.target), -1)])
    domain = np.concatenate([np.full(len(task.source), 1), np.full(len(task.target), -2)])
    net.fit(x, y, sample_domain=domain)
    found = net.predict(task.test, sample_domain=np.full(len(task.test), -2))
    return float((found == task.truth).mean())


def pytorch_adapt(method: str, task: Task, seed: int, registry: Registry) -> float:
    from pytorch_adapt.hooks import (
        AlignerHook,
        AlignerPlusCHook,
        CDANEHook,
        ClassifierHook,
        DANNHook,
        MCCHook,
    )
    from pytorch_adapt.layers import CORALLoss, MCCLoss, RandomizedDotProduct
    from pytorch_adapt.weighters import SumWeighter

    module = _module(task, seed)
    width, classes = SHAPE.width, len(task.classes)
    models: dict[str, nn.Module] = {"G": module.bottleneck, "C": module.head}
    if method in HIDDEN:
        models["D"] = nn.Sequential(_judge(method, task), nn.Flatten(0))
    optimizers = [torch.optim.SGD(m.parameters(), lr=LR, **SGD) for m in models.values()]
    halves = SumWeighter(weights={f"{domain}_domain_loss": 0.5 for domain in ("src", "target")})
    if method == "coral":
        hook: Any = AlignerPlusCHook(
            optimizers, weighter=SumWeighter(), aligner_hook=AlignerHook(loss_fn=CORALLoss()), softmax=False
        )
    elif method == "dann":
        hook = DANNHook(optimizers, weighter=halves)
    elif method == "cdan":
        turns = {
            f"{side}_weighter": SumWeighter(
                weights={f"{side}_{d}_domain_loss": 0.5 for d in ("src", "target")}
            )
            for side in "gd"
        }
        hook = CDANEHook(g_opts=optimizers[:2], d_opts=optimizers[2:], **turns)
        models["feature_combiner"] = RandomizedDotProduct([width, classes], width * classes)
    else:
        hook = ClassifierHook(optimizers, weighter=SumWeighter(), post=[MCCHook(loss_fn=MCCLoss(T=2.5))])
    source, labels, target = (torch.from_numpy(v) for v in (task.source, task.labels, task.target))
    for step in range(task.steps):
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = LR * _factor(step, task.steps)
        a, b = torch.randint(len(source), (BATCH,)), torch.randint(len(target), (BATCH,))
        batch = {
            "src_imgs": source[a], "src_labels": labels[a], "target_imgs": target[b],
            "src_domain": torch.zeros(BATCH), "target_domain": torch.ones(BATCH),
        }  # fmt: skip
        hook({**models, **batch})
    module.eval()
    with torch.inference_mode():
        found = module(torch.from_numpy(task.test)).argmax(1).numpy()
    return float((found == task.truth).mean())


def load(bench: Bench, pair: str, steps: int) -> Task:
    from tlcore.stages.tables import load_table, rows_of
    from tlcore.stages.values import CheckedData
    from tlcore.values import TARGET

    places, _ = bench.prepared(bench.pairs[pair], 0)
    features = np.load(bench.store.folder(places["embedded"][0]) / "features.npy")
    table = load_table(
        bench.store.folder(places["data"][0]), bench.store.read(places["data"][0], CheckedData)
    )
    labels = np.asarray(table.labels())
    source, target = rows_of(table, "train", labelled=True), rows_of(table, "train", TARGET)
    test = rows_of(table, "test", TARGET, labelled=True)
    return Task(
        features[source], labels[source], features[target], features[test], labels[test], table.classes, steps
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rival", type=Path, required=True)
    parser.add_argument("--store", type=Path, default=Path(".tlcore-adaptation"))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--pairs", nargs="*", choices=PAIRS, default=PAIRS)
    parser.add_argument("--methods", nargs="*", choices=METHODS, default=METHODS)
    parser.add_argument("--steps", type=int, default=500)
    given = parser.parse_args()
    sys.path.append(str(given.rival.resolve()))  # last: the rivals work with this project's own packages
    bench = Bench(given.store.resolve(), shared_data())
    torch.set_num_threads(1)
    tools: list[Callable[[str, Task, int, Registry], float]] = [tlcore, skada, pytorch_adapt]
    tasks = {pair: load(bench, pair, given.steps) for pair in given.pairs}
    for tool in tools:
        tool(
            "mcc", next(iter(tasks.values())), 0, bench.registry
        )  # imports and first calls are not what is compared
    print(
        f"{'pair':14}{'method':8}{'tool':15}{'accuracy, %':>22}{'CPU s':>8}   tlcore's CPU time as a share of it"
    )
    for pair, task in tasks.items():
        for method in given.methods:
            accuracy: dict[str, list[float]] = {tool.__name__: [] for tool in tools}
            seconds: dict[str, list[float]] = {tool.__name__: [] for tool in tools}
            for seed in range(given.repeats):
                for tool in tools[seed % 3 :] + tools[: seed % 3]:
                    started = time.process_time()
                    accuracy[tool.__name__].append(100 * tool(method, task, seed, bench.registry))
                    seconds[tool.__name__].append(time.process_time() - started)
            for name, found in accuracy.items():
                ratios = np.array(seconds["tlcore"]) / np.array(seconds[name])
                spread = f"{np.mean(found):.1f} ({min(found):.1f} to {max(found):.1f})"
                share = (
                    ""
                    if name == "tlcore"
                    else f"   {np.median(ratios):.2f} ({ratios.min():.2f} to {ratios.max():.2f})"
                )
                print(
                    f"{pair:14}{method:8}{name:15}{spread:>22}{np.median(seconds[name]):8.2f}{share}",
                    flush=True,
                )


if __name__ == "__main__":
    main()

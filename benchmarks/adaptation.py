"""Every adapter on every pair of domains: what is chosen without labels, what the gate says, what an oracle would have had.

    python -m benchmarks.adaptation [--store FOLDER] [--pairs NAME ...] [--adapters NAME ...] [--seeds N] [--results FILE]

Writes benchmarks/results/adaptation.csv (or FILE), one line per pair, adapter, mode and seed; benchmarks/adaptation_tables.py
reads it. The job may be killed and started again: what is done lies in the store.

Digits: a small residual network (373,000 parameters; LeNet has no batch norm, which AdaBN and TENT need) from scratch on
32 x 32 pixels, its first weights the same for all seeds; the source-only model is trained
for 12 epochs; adapters train the whole network. 1,800 USPS and 2,000 MNIST training images (the sampled protocol of
Long et al. 2013), 1,000 test images each; rendered digits as in the demo against scikit-learn's scans.
PACS: mobilenetv2_100 with ImageNet weights and a linear probe as the source-only model, which no seed changes; adapters
train a bottleneck and a head on cached features, or, where their mathematics needs images or for the best three, the
last stage (60 steps).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.adaptation_tables import FLOOR, RESULTS, VALIDATORS, keep
from benchmarks.chain import Chain
from benchmarks.image_sets import shared_data, write_digits
from tlcore.errors import TlcoreError

SEEDS = 3
DIGIT_ADAPTERS = (
    "coral-align", "subspace-alignment", "importance-weighting", "adabn", "tent", "coral", "mk-mmd", "jan", "dann", "cdan",
    "bsp", "afn", "mdd", "mcc", "shot", "fixmatch",
)  # fmt: skip
IMAGES_ONLY = {"adabn": "all", "tent": "all", "fixmatch": "last"}
"""Adapters that cannot work on cached features, and what they train on PACS."""
CLOSED_FORM = ("coral-align", "subspace-alignment", "importance-weighting")
NO_MODE = frozenset({*CLOSED_FORM, "adabn"})
LAST = {"steps": 60, "checkpoints": 3}
"""Where the last stage is trained on images: some two minutes on one core."""
BEST_THREE = ("mcc", "mk-mmd", "jan")
"""Of the trained adapters on PACS features, by the mean accuracy of their label-free choice: with the last stage as well."""
WITNESSES = ("im", "bnm", "snd", "entropy", "dev", "class-ami", "source-accuracy")


@dataclass(frozen=True)
class Pair:
    """Folders of a labelled source and of a target, the networks' folder and the tuner of the source-only model."""

    name: str
    source: Path
    target: Path
    models: Path
    model: str
    tuner: tuple[str, dict[str, Any]]
    mode: str
    folders: str = "classes"
    options: dict[str, Any] = field(default_factory=dict)


class Bench(Chain):
    """The pairs' data, source-only models and cells on one store."""

    def __init__(self, store: Path, data: Path) -> None:
        super().__init__(store)
        self.pairs = {pair.name: pair for pair in _pairs(store / "made", data)}

    def cell(self, pair: Pair, adapter: str, mode: str, seed: int) -> dict[str, Any]:
        from tlcore.stages.values import AdaptedModel

        places, candidate = self.prepared(pair, seed)
        options: dict[str, Any] = {} if mode == "closed" or adapter in NO_MODE else {"train": mode}
        if mode == "last":
            options |= LAST
        strategies = {
            "source": self.source(candidate),
            "adapter": ("adapter", adapter, options),
            **{f"validator-{i}": ("validator", name, {}) for i, name in enumerate(VALIDATORS)},
        }
        ref = self.stage(
            "adapt", f"{adapter} on {pair.name}", inputs=places, strategies=strategies, seed=seed,
            options={"source_floor": FLOOR, "max_images": 1000, "label_sets": "closed", "gmacs": candidate.gmacs},
        )  # fmt: skip
        found = self.store.read(ref, AdaptedModel)
        adapted = found.adapted
        return {
            "pair": pair.name, "adapter": adapter, "mode": mode, "seed": seed,
            "source_only": f"{found.source_only.accuracy:.4f}", "chosen": f"{adapted.accuracy:.4f}",
            "last": f"{adapted.accuracy_last:.4f}", "oracle": f"{adapted.accuracy_oracle:.4f}",
            "seconds": f"{adapted.seconds:.1f}", "target_test": self.tested(places), "stopped": adapted.stopped,
            "evidence": json.dumps(
                {"before": self.witnesses(places, candidate, places["model"], seed, same_backbone=True),
                 "after": self.witnesses(places, candidate, (ref,), seed, same_backbone=mode in {"head", "closed"}),
                 "estimates": [x.estimates.model_dump() for x in (found.source_only, adapted) if x.estimates],
                 "score": [found.source_only.validator_score, adapted.validator_score],
                 "source": [found.source_only.source_validation_accuracy, adapted.source_validation_accuracy],
                 "share": [found.source_only.top_share, adapted.top_share],
                 "target_only": adapted.target_only}
            ),
        }  # fmt: skip

    def prepared(self, pair: Pair, seed: int) -> tuple[dict[str, Any], Any]:
        """Refs of data, pixels, source-only model and its features; and the candidate."""
        from tlcore.stages.values import CandidateList, DecodedImages

        def folder(path: Path) -> tuple[str, str, dict[str, Any]]:
            return ("data-source", "image-folder", {"path": str(path)})

        loaded = self.stage(
            "load", pair.name, strategies={"source": folder(pair.source), "target": folder(pair.target)}
        )
        limits = {"max_pixels": 100_000_000, "max_bad_share": 0.01, "validation": 0.15, "test": 0.2}
        data = self.stage(
            "check", pair.name, inputs={"data": (loaded,)}, options=limits,
            strategies={"check": ("data-check", "image-table", {})},
        )  # fmt: skip
        listed = self.stage(
            "candidates", strategies={"model-0": ("model-source", "local", {"spec": str(pair.models)})}
        )
        candidate = next(c for c in self.store.read(listed, CandidateList).entries if c.name == pair.model)
        rule = candidate.preprocess.decoding()
        decoded = self.stage(
            "decode", pair.name, inputs={"data": (data,)},
            options={"rules": [rule.model_dump(mode="json")], "max_pixels": 100_000_000},
        )  # fmt: skip
        pixels = self.store.read(decoded, DecodedImages).pixels[rule.decode_key()]
        places: dict[str, Any] = {"data": (data,), "pixels": (pixels,)}
        name, options = pair.tuner
        model = self.stage(
            "train", f"source only of {pair.name}", inputs=places, seed=seed,
            options={"candidate": candidate.recipe(), "pretrained": True},
            strategies={"source": self.source(candidate), "tuner": ("tuner", name, options)},
        )  # fmt: skip
        places["model"] = (model,)
        embedded = self.stage(
            "embed",
            pair.name,
            inputs=places,
            strategies={"source": self.source(candidate)},
            seed=seed,
            threads=2,
        )
        places["embedded"] = (embedded,)
        return places, candidate

    def tested(self, places: dict[str, Any]) -> int:
        from tlcore.stages.tables import load_table, rows_of
        from tlcore.stages.values import CheckedData
        from tlcore.values import TARGET

        (data,) = places["data"]
        table = load_table(self.store.folder(data), self.store.read(data, CheckedData))
        return len(rows_of(table, "test", TARGET, labelled=True))

    def witnesses(
        self, places: dict[str, Any], candidate: Any, model: Any, seed: int, *, same_backbone: bool
    ) -> dict[str, float]:
        """Every validator's score of a trained network, whoever chose the checkpoint."""
        from tlcore.protocols import ValidatorOutputs
        from tlcore.stages.base import Choice, StageContext, StageJob, no_progress
        from tlcore.stages.networks import load_network
        from tlcore.stages.tables import load_table, pixels_for, rows_of, target_sample
        from tlcore.stages.values import AdaptedModel, CheckedData, Trained
        from tlcore.training.predict import predict, predict_features

        kind = AdaptedModel if model[0].stage == "adapt" else Trained
        choice = dict(zip(("kind", "name", "options"), self.source(candidate), strict=True))
        job = StageJob(
            stage="adapt",
            inputs={**places, "model": model},
            strategies={"source": Choice.model_validate(choice)},
            seed=seed,
        )
        context = StageContext(self.store, self.registry, job, None, no_progress)  # type: ignore[arg-type]
        table = load_table(context.folder("data"), context.read("data", CheckedData))
        checkpoint = context.read("model", kind).checkpoint
        network = load_network(context, "model", checkpoint)
        source, target = rows_of(table, "val", labelled=True), target_sample(table, 1000, seed)
        rows = np.concatenate([source, target])
        if same_backbone:
            features, p = predict_features(
                network, np.load(context.folder("embedded") / "features.npy", mmap_mode="r")[rows]
            )
        else:
            features, p = predict(
                network, pixels_for(context, checkpoint.preprocess), rows, checkpoint.preprocess
            )
        n = len(source)
        outputs = ValidatorOutputs(
            target_probabilities=p[n:].astype(np.float64), source_probabilities=p[:n].astype(np.float64),
            source_labels=np.asarray(table.labels())[source], target_features=features[n:], source_features=features[:n],
        )  # fmt: skip
        return witness_scores(self.registry, outputs)


def witness_scores(registry: Any, outputs: Any) -> dict[str, float]:
    """Every validator's score, with its default options."""
    return {name: float(registry.build("validator", name, {}).score(outputs)) for name in WITNESSES}


def _pairs(made: Path, data: Path) -> list[Pair]:
    """The image pairs; digits are written as PNG files, networks from scratch once."""
    from tlcore.demo.zoo import write_rendered_digits

    for name, counts in (("usps", {"train": 180, "test": 100}), ("mnist", {"train": 200, "test": 100})):
        if not (made / name / "done").is_file():
            write_digits(data / name / f"{name}.npz", made / name, counts)
    rendered, scans = made / "rendered", made / "scans"
    if not rendered.is_dir():
        write_rendered_digits(rendered, 100, 0)
    if not scans.is_dir():
        from tlcore_data.digits import Digits

        Digits(path=str(scans), per_class=60, test_share=0.9).load()
    scratch = _network_from_scratch(made / "scratch")
    digits: dict[str, Any] = {
        "models": scratch, "model": "scratch-resnet", "tuner": ("full", {"epochs": 12, "lr": 1e-3}), "mode": "all",
    }  # fmt: skip
    pacs: dict[str, Any] = {
        "models": data / "weights", "model": "mobilenetv2_100", "tuner": ("linear-probe", {}), "mode": "head",
    }  # fmt: skip
    domains = data / "pacs"
    return [
        Pair("usps-mnist", made / "usps", made / "mnist", **digits),
        Pair("mnist-usps", made / "mnist", made / "usps", **digits),
        Pair("rendered-scans", rendered, scans, **digits),
        Pair("photo-art", domains / "photo", domains / "art_painting", **pacs),
        Pair("photo-sketch", domains / "photo", domains / "sketch", **pacs),
        Pair("art-photo", domains / "art_painting", domains / "photo", **pacs),
    ]


def _network_from_scratch(folder: Path) -> Path:
    import timm
    import torch
    from safetensors.torch import save_file

    if (folder / "index.json").is_file():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    network = timm.create_model("test_resnet", num_classes=10)
    save_file({name: value.clone() for name, value in network.state_dict().items()}, folder / "w.safetensors")
    entry = {
        "file": "w.safetensors", "architecture": "test_resnet", "kwargs": {}, "num_classes": 10, "input_size": [3, 32, 32],
        "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "interpolation": "bilinear", "pretrained_on": "nothing",
        "modality": "image", "known_to_timm": True, "licence": "Apache-2.0",
    }  # fmt: skip
    (folder / "index.json").write_text(json.dumps({"scratch-resnet": entry}), encoding="utf-8")
    return folder


def _cells(bench: Bench, given: argparse.Namespace) -> Iterator[tuple[Pair, str, str, int]]:
    for seed in range(given.seeds):
        for pair in bench.pairs.values():
            if given.pairs and pair.name not in given.pairs:
                continue
            for adapter in DIGIT_ADAPTERS:
                if given.adapters and adapter not in given.adapters:
                    continue
                mode = "closed" if adapter in CLOSED_FORM else pair.mode
                if mode == "head":
                    mode = IMAGES_ONLY.get(adapter, mode)
                yield pair, adapter, mode, seed
        for pair in bench.pairs.values():
            for adapter in BEST_THREE if pair.mode == "head" else ():
                if (not given.pairs or pair.name in given.pairs) and not given.adapters:
                    yield pair, adapter, "last", seed


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", type=Path, default=Path(".tlcore-adaptation"))
    parser.add_argument("--pairs", nargs="*")
    parser.add_argument("--adapters", nargs="*")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    bench = Bench(given.store.resolve(), shared_data())
    started = time.monotonic()
    for pair, adapter, mode, seed in _cells(bench, given):
        where = f"{pair.name} {adapter} ({mode}) seed {seed}"
        try:
            row = bench.cell(pair, adapter, mode, seed)
        except TlcoreError as error:
            print(f"{where}: {error}", flush=True)
            continue
        keep(row, given.results)
        numbers = " ".join(
            f"{name} {row[name]}" for name in ("source_only", "chosen", "last", "oracle", "seconds")
        )
        print(f"{time.monotonic() - started:6.0f} s {where}: {numbers}", flush=True)


if __name__ == "__main__":
    main()

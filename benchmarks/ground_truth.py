"""What fine-tuning really achieves: every source model on every labelled image set, by brute force.

    python -m benchmarks.ground_truth --plugin FOLDER [--store FOLDER] [--workers 2]

Writes benchmarks/results/ground_truth.csv, one line per image set, candidate and seed. FOLDER is where
tests/example_plugin has been installed (pip install --target FOLDER), whose narrow networks take part.
The job may be killed and started again: what is done lies in the store.

The recipe is the same for all: the probe in closed form, then 3 epochs of everything (`lp-ft`, its other
options at their defaults), the epoch chosen on 15 % of the training images, accuracy on the test images of
the set. One seed for all; two more for the four candidates that are best with the first one.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from benchmarks.chain import Chain
from benchmarks.image_sets import image_sets, shared_data

RESULTS = Path(__file__).parent / "results" / "ground_truth.csv"
RECIPE = {"epochs": 3}
MORE_SEEDS, BEST = (1, 2), 4
COLUMNS = (
    "set", "candidate", "seed", "accuracy", "probe_validation", "validation", "chosen_epoch", "test_images",
    "train_images", "validation_images", "seconds",
)  # fmt: skip


class Bench(Chain):
    """The stages of the main job on one store, without Prefect."""

    def __init__(self, store: Path, data: Path) -> None:
        super().__init__(store)
        self.data, self.sets = data, image_sets(data, store / "digits")

    def checked(self, set_name: str) -> Any:
        source = ("data-source", "image-folder", {"path": str(self.sets[set_name])})
        data = self.stage("load", set_name, strategies={"source": source})
        options = {"max_pixels": 100_000_000, "max_bad_share": 0.01, "validation": 0.15, "test": 0.2}
        check = {"check": ("data-check", "image-table", {})}
        return self.stage("check", set_name, inputs={"data": (data,)}, options=options, strategies=check)

    def candidates(self) -> list[Any]:
        """All networks for images, in the order of their names."""
        from tlcore.stages.values import CandidateList

        sources = {
            f"model-{i}": ("model-source", source, {"spec": f"{self.data}/weights"})
            for i, source in enumerate(("local", "narrow-mobilenets"))
        }
        found = self.store.read(self.stage("candidates", strategies=sources), CandidateList).entries
        return sorted((c for c in found if c.skipped is None), key=lambda c: c.name)

    def inputs(self, set_name: str, candidate: Any) -> dict[str, Any]:
        """Refs of the checked table, the pixels and the features of one candidate on one set."""
        from tlcore.stages.values import DecodedImages

        data = self.checked(set_name)
        rules = {c.preprocess.decode_key(): c.preprocess.decoding() for c in self.candidates()}
        options = {
            "rules": [rules[key].model_dump(mode="json") for key in sorted(rules)],
            "max_pixels": 100_000_000,
        }
        decoded = self.stage("decode", set_name, inputs={"data": (data,)}, options=options)
        pixels = self.store.read(decoded, DecodedImages).pixels[candidate.preprocess.decode_key()]
        features = self.stage(
            "features",
            candidate.name,
            inputs={"data": (data,), "pixels": (pixels,)},
            options={"candidate": candidate.model_dump(mode="json"), "max_images": 5000},
            strategies={"source": self.source(candidate)},
        )
        return {"data": (data,), "pixels": (pixels,), "features": (features,)}

    def row(self, set_name: str, candidate: Any, seed: int) -> dict[str, Any]:
        """Fine-tune, or find that it was done."""
        from tlcore.stages.values import CheckedData, Evaluation, Trained

        inputs = self.inputs(set_name, candidate)
        model = self.stage(
            "train",
            f"{candidate.name} on {set_name}",
            inputs=inputs,
            options={"candidate": candidate.model_dump(mode="json"), "pretrained": True},
            strategies={"source": self.source(candidate), "tuner": ("tuner", "lp-ft", RECIPE)},
            seed=seed,
        )
        tested = {"data": inputs["data"], "model": (model,)}
        evaluation = self.store.read(
            self.stage("evaluate", candidate.name, inputs=tested, options={"replicates": 100}), Evaluation
        )
        trained = self.store.read(model, Trained)
        report = self.store.read(inputs["data"][0], CheckedData).report
        history = trained.checkpoint.history
        return {
            "set": set_name,
            "candidate": candidate.name,
            "seed": seed,
            "accuracy": f"{evaluation.metrics.accuracy:.6f}",
            "probe_validation": f"{history[0].measures.get('validation_accuracy', float('nan')):.6f}",
            "validation": f"{trained.validation:.6f}",
            "chosen_epoch": trained.checkpoint.chosen_epoch,
            "test_images": evaluation.metrics.images,
            "train_images": report.source_images("train"),
            "validation_images": report.source_images("val"),
            "seconds": f"{trained.seconds:.1f}",
        }


def read_table(path: Path = RESULTS) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def best_of(rows: list[dict[str, Any]]) -> dict[str, list[str]]:
    """The best four candidates by set with the first seed."""
    by_set: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for row in rows:
        if int(row["seed"]) == 0:
            by_set[row["set"]].append((float(row["accuracy"]), row["candidate"]))
    return {
        name: [c for _, c in sorted(found, key=lambda f: (-f[0], f[1]))[:BEST]]
        for name, found in by_set.items()
    }


def _work(bench: Bench, tasks: list[tuple[str, str, int]]) -> list[dict[str, Any]]:
    candidates = {c.name: c for c in bench.candidates()}
    rows = []
    for number, (set_name, name, seed) in enumerate(tasks, 1):
        rows.append(bench.row(set_name, candidates[name], seed))
        line = rows[-1]
        print(
            f"{number}/{len(tasks)} {set_name} {name} seed {seed}: {line['accuracy']} in {line['seconds']} s",
            flush=True,
        )
    return rows


def _write(rows: list[dict[str, Any]]) -> None:
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted(rows, key=lambda r: (r["set"], r["candidate"], r["seed"])))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--plugin", type=Path, required=True)
    parser.add_argument("--store", type=Path, default=Path(".tlcore-ground-truth"))
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread each")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    given = parser.parse_args()
    data = shared_data()
    if given.part is None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        environment["PYTHONPATH"] = os.pathsep.join(
            filter(None, (str(given.plugin.resolve()), environment.get("PYTHONPATH")))
        )
        for phase in (1, 2):
            workers = [
                subprocess.Popen(
                    [
                        sys.executable,
                        "-m",
                        "benchmarks.ground_truth",
                        *sys.argv[1:],
                        "--part",
                        f"{phase}/{i}/{given.workers}",
                    ],
                    env=environment,
                )  # fmt: skip
                for i in range(given.workers)
            ]
            codes = [worker.wait() for worker in workers]
            if any(codes):
                sys.exit("a worker failed; start the same command again to go on")
        subprocess.run(
            [sys.executable, "-m", "benchmarks.ground_truth", *sys.argv[1:], "--part", "0/0/1"],
            env=environment, check=True,
        )  # fmt: skip
        return
    phase, part, parts = map(int, given.part.split("/"))
    bench = Bench(given.store.resolve(), data)
    first = [(name, c.name, 0) for name in bench.sets for c in bench.candidates()]
    if phase == 1:
        _work(bench, first[part::parts])
        return
    rows = (
        _work(bench, first)
        if phase == 0
        else [bench.row(name, c, 0) for name in bench.sets for c in bench.candidates()]
    )
    more = [(name, c, seed) for name, best in best_of(rows).items() for c in best for seed in MORE_SEEDS]
    found = _work(bench, more[part::parts])
    if phase == 0:
        _write(rows + found)


if __name__ == "__main__":
    main()

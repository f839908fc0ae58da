"""Tuners side by side with what a user would write instead: same images, steps, network and machine, one run.

    python -m benchmarks.tuning_rivals [--only heads networks memory] [--repeats 3] [--models resnet18 …] [--sets flowers5 …]
                                       [--images 320] [--epochs 5] [--store FOLDER] [--results FILE]

Heads: `linear-probe` and `ridge` against scikit-learn's StandardScaler and LogisticRegressionCV with its defaults
(10 penalties, 5 folds, L-BFGS; max_iter raised until it converges), on mobilenetv2_100's features (1280 of the exact
pixels, by this project) of real sets with 5, 20 and all images a class, one draw a repeat; where the photographs are
missing, on random features. All in this process on one thread; processor seconds of fitting alone, ours through the
tuner's plan and the loop, with the look at the validation images that it takes. Accuracy is of the test images.

Networks: `full` and `partial` against plain loops, see benchmarks/tuning_loops.py. The limits are held against the loop
that finds its pixels decoded, as ours does; the loop on files is given beside it, with 0 or 2 workers, whichever is
faster. An epoch is the median of the steady ones: without the first, where memory is taken and threads are tried, and of
`partial` without those that make activations; the whole job counts all of that, and the choice of the precision. Ours
looks at the network after each epoch, at no cost here, and the loops do not look at all. Each training is a process of
its own.

Memory: the peak of the same processes in `full` and in the plain loop (pixels decoded), and above what the process
takes that only builds network and data.

Each repeat runs all ways in turn, the order going round, so that a busy machine slows all. Ratios are of ours to the
rival in the same repeat: median, least and greatest. Nothing is asserted; beside each limit stands whether it holds.
JPEGs are of 500 x 375 px with structure at all scales; networks are random. Neither changes the time.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.image_sets import PHOTOGRAPHS
from benchmarks.side_by_side import Report
from benchmarks.ten_candidates import write_images
from benchmarks.tuning_head_rivals import heads

MODELS = ("resnet18", "mobilenetv3_small_100")
FILES = ("files-0", "files-2")
WAYS = ("full", "partial", "decoded", *FILES)
LONGER, BATCH = 500, 32
LIMITS = {
    ("full", "resnet18"): 0.4, ("full", "mobilenetv3_small_100"): 0.75,
    ("partial", "resnet18"): 0.2, ("partial", "mobilenetv3_small_100"): 0.2,
}  # fmt: skip
"""Of an epoch of the plain loop's full fine-tuning."""
Run = dict[str, Any]


class Trainings:
    """Each in a process of its own; what has been run is kept."""

    def __init__(self, folder: Path, given: argparse.Namespace) -> None:
        self.folder, self.given = folder, given
        self.runs: dict[tuple[str, str], list[Run]] = {}

    def fill(self, model: str, ways: Sequence[str]) -> dict[str, list[Run]]:
        """All repeats of these ways, the order going round."""
        missing = [way for way in ways if (model, way) not in self.runs]
        for number in range(self.given.repeats):
            turn = number % max(1, len(missing))
            for way in missing[turn:] + missing[:turn]:
                self.runs.setdefault((model, way), []).append(self.run(model, way, self.given.epochs))
        return {way: self.runs[model, way] for way in ways}

    def run(self, model: str, way: str, epochs: int) -> Run:
        command = [sys.executable, "-m", "benchmarks.tuning_loops", way, model, "--folder", str(self.folder)]
        command += ["--epochs", str(epochs), "--batch", str(BATCH), "--threads", str(self.given.threads)]
        # tlcore sets this wait policy for itself; the plain loops are slower without it
        environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, check=False, stdin=subprocess.DEVNULL
        )
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
        found: Run = json.loads(done.stdout.splitlines()[-1])
        return found


def steady(run: Run, what: str = "epochs") -> float:
    """Median of the epochs that make nothing that is kept; of all, where there are no others."""
    values: list[float] = run[what]
    return statistics.median(values[run["unsteady"] :] or values)


def networks(report: Report, given: argparse.Namespace, trainings: Trainings) -> None:
    for model in given.models:
        found = trainings.fill(model, WAYS)
        report.say(f"\n{model}: {given.images} images, batch {BATCH}; medians (least to greatest)\n")
        report.say(
            f"{'':10}{'s an epoch':>22}{'CPU s an epoch':>17}{f's, {given.epochs} epochs':>16}{'CPU s':>9}"
        )
        for way, runs in found.items():
            seconds = [steady(run) for run in runs]
            spread = f"{statistics.median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f})"
            whole = [statistics.median(run["whole"][place] for run in runs) for place in (0, 1)]
            spent = statistics.median(steady(run, "cpu") for run in runs)
            report.say(f"{way:10}{spread:>22}{spent:>17.2f}{whole[0]:>16.1f}{whole[1]:>9.1f}")
        for note in dict.fromkeys(note for way in ("full", "partial") for note in found[way][-1]["notes"]):
            report.say(f"  {note}")
        report.say()
        files = min(FILES, key=lambda way: statistics.median(steady(run) for run in found[way]))
        for way in ("full", "partial"):
            for rival in ("decoded", files):
                pairs = list(zip(found[way], found[rival], strict=True))
                said = f"{way} / plain, {'pixels decoded' if rival == 'decoded' else rival}"
                limit = LIMITS.get((way, model)) if rival == "decoded" else None
                report.ratio(f"{said}, an epoch", [steady(a) / steady(b) for a, b in pairs], limit)
                report.ratio(
                    f"{said}, an epoch, CPU", [steady(a, "cpu") / steady(b, "cpu") for a, b in pairs]
                )
                for place, unit in enumerate(("", ", CPU")):
                    shares = [a["whole"][place] / b["whole"][place] for a, b in pairs]
                    report.ratio(f"{said}, {given.epochs} epochs{unit}", shares)


def memory(report: Report, given: argparse.Namespace, trainings: Trainings, model: str = "resnet18") -> None:
    found = trainings.fill(model, ("full", "decoded"))
    report.say(f"\nPeak of resident memory, {model}, batch {BATCH}, MiB\n")
    for way, runs in found.items():
        peak = statistics.median(run["peak_mib"] for run in runs)
        built = float(trainings.run(model, way, 0)["peak_mib"])
        name = "plain, pixels decoded" if way == "decoded" else way
        report.say(
            f"{name:24}{peak:8.0f}, of which network and data {built:8.0f}, training {peak - built:8.0f}"
        )
    shares = [a["peak_mib"] / b["peak_mib"] for a, b in zip(found["full"], found["decoded"], strict=True)]
    report.say()
    report.ratio("full / plain, pixels decoded, peak memory", shares, 1.0)


def main() -> None:
    parts = ("heads", "networks", "memory")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=parts, default=parts)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--sets", nargs="+", choices=[*PHOTOGRAPHS, "random"])
    parser.add_argument(
        "--store", type=Path, default=Path(".tlcore-tuning-rivals"), help="folder that keeps features"
    )
    parser.add_argument("--images", type=int, default=320)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0, help="of the networks; 0: torch's own choice")
    parser.add_argument("--results", type=Path, help="file that the report is written to as well")
    given = parser.parse_args()
    report = Report()
    report.say(f"python -m benchmarks.tuning_rivals {' '.join(sys.argv[1:])}".rstrip())
    report.say(f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}")
    if "heads" in given.only:
        heads(report, given)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made) / "images"
        if {"networks", "memory"} & set(given.only):
            write_images(folder, given.images, LONGER)
        trainings = Trainings(folder, given)
        if "networks" in given.only:
            networks(report, given, trainings)
        if "memory" in given.only:
            memory(report, given, trainings)
    if given.results is not None:
        given.results.parent.mkdir(parents=True, exist_ok=True)
        given.results.write_text("\n".join(report.lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

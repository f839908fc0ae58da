"""Every tuner at few labels: accuracy, seconds and memory, and how `auto` does beside the best of them.

    python -m benchmarks.tuning [--part features|network] [--sets NAME ...] [--shots N ...] [--tuners NAME ...]
        [--seeds N] [--only TEXT] [--epochs N] [--validation auto|held-out] [--workers N] [--threads N]
        [--store FOLDER] [--results FILE] [--plugin FOLDER] [--candidate NAME]

Writes benchmarks/results/tuning.csv (or FILE), one line per cell; benchmarks/tuning_tables.py reads it. May be killed and
started again: cells that have a line are left out, and a training goes on where it was.

features: the tuners of heads on cached features of eight labelled image sets (six of photographs; MNIST and USPS with 100
training and 100 test images a digit), {1, 5, 20, all} images a class, three seeds, two ImageNet networks. Seconds are those
of fitting, its cross-validation included, not those of the features. Heads in closed form are fitted to all images; how one
that takes gradient steps is stopped stands at `tuning_cells.fit_head`.
network: the tuners of the network and three heads on three sets, {5, 20} images a class, mobilenetv1_050 (it comes through
tests/example_plugin, installed in the folder --plugin: make .venv/example_plugin), through the stages of the main job.
Features of the untouched network are computed once for all tuners and not counted. Seed 0 for all; seeds 1 and 2 for what
`auto` chooses and the best three by mean accuracy. `distill` learns from mobilenetv1_100, tuned with lp-ft, whose seconds
are added. --candidate takes another one instead.

A tuner's options are its defaults, but --epochs bounds the passes of those with more, and random weights (`scratch`) have
three times as many. --tuners takes options too: 'lp-ft{"ema": 0.95}'. `auto` stands for what it chooses now
(tlcore.training.auto.TABLE): a cell like any other, found again under its own name. Each of --workers (2) has --threads (1).
Trainings with 5 images a class are validated as the main job does it ("auto": five-fold cross-validation of so few), since
one image of a class says too little; with 20 on 15 % of them held out, which takes a sixth of the time (--validation: one way
for all).
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.image_sets import shared_data
from benchmarks.tuning_cells import Bench
from benchmarks.tuning_plan import EPOCHS, SEEDS, Plan
from benchmarks.tuning_rows import (
    RESULTS,
    Cell,
    begin,
    keep,
    read,
)


@contextlib.contextmanager
def claimed(folder: Path, cell: Cell) -> Iterator[bool]:
    """Whether no other worker is at this cell. The claim ends with the process."""
    folder.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256("/".join(cell.key).encode()).hexdigest()[:24]
    with (folder / digest).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        yield True


def work(bench: Bench, wanted: Sequence[Cell], store: Path, results: Path, worker: str) -> None:
    """Do what has no line yet and nobody else is at; what fails is named and has no line."""
    started = time.monotonic()
    for cell in wanted:
        with claimed(store / "claims", cell) as mine:
            if not mine or cell.key in read(results):
                continue
            try:
                row = bench.row(cell)
            except Exception as error:  # noqa: BLE001 - one strategy's mistake must not cost the others their night
                print(f"{cell.name}: left out, {type(error).__name__}: {error}", flush=True)
                continue
            keep(row, results)
        took = f"{row['seconds']} s, {row['peak_mb'] or '–'} MB"
        print(
            f"{worker}: {time.monotonic() - started:6.0f} s {cell.name}: {row['accuracy']} in {took}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", choices=("features", "network"))
    parser.add_argument("--sets", nargs="*")
    parser.add_argument("--shots", nargs="*", help="images a class, or all")
    parser.add_argument("--tuners", nargs="*")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--only", metavar="TEXT", help="cells whose name holds this text")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--validation", choices=("auto", "held-out"))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--store", type=Path, default=Path(".tlcore-tuning"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--candidate", metavar="NAME", help="of the part network")
    parser.add_argument("--plugin", type=Path, metavar="FOLDER")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    given = parser.parse_args()
    bench = Bench(given.store.resolve(), shared_data(), threads=given.threads)
    if given.work:
        turn, number = map(int, given.work.split("/"))
        wanted = Plan(given, bench).cells(turn)
        start = len(wanted) * number // given.workers
        work(bench, [*wanted[start:], *wanted[:start]], given.store, given.results, f"{number + 1}")
        return
    begin(given.results)
    paths = [str(given.plugin.resolve()) if given.plugin else "", os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        environment[name] = str(given.threads)
    for turn in (1, 2):
        left = [cell for cell in Plan(given, bench).cells(turn) if cell.key not in read(given.results)]
        print(f"turn {turn}: {len(left)} cells to do", flush=True)
        if not left:
            continue
        command = [sys.executable, "-m", "benchmarks.tuning", *sys.argv[1:], "--work"]
        children = [
            subprocess.Popen([*command, f"{turn}/{i}"], env=environment) for i in range(given.workers)
        ]
        codes = [child.wait() for child in children]
        if any(codes):
            sys.exit("a worker failed; start the same command again to go on")


if __name__ == "__main__":
    main()

"""How well scores, panels and the static prior foretell what fine-tuning achieves.

    python -m benchmarks.selection --plugin FOLDER [--store FOLDER]    # scores, then the report
    python -m benchmarks.selection                                      # the report from the tables alone

Scores every candidate on the training images of every set of benchmarks/results/ground_truth.csv with every
installed scorer (benchmarks/results/scores.csv), and prints, per scorer, for every panel that is asked for,
for the static prior and for a random choice: Kendall's weighted tau, top-1 and top-3 regret in points of
test accuracy, means over the sets. Then what a trial of the first three would have added, by the validation
accuracies of the same trainings. --search tries every panel of up to five scorers and says how the best
one of all other sets does on the set left out.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.ground_truth import Bench, read_table
from benchmarks.image_sets import shared_data

SCORES = Path(__file__).parent / "results" / "scores.csv"
COLUMNS = ("set", "candidate", "scorer", "score", "cpu_seconds")
Table = dict[str, dict[str, dict[str, float]]]
"""set -> scorer -> candidate -> score; scorers in which larger is better."""


def achieved() -> dict[str, dict[str, float]]:
    """Test accuracy by set and candidate, mean over the seeds, in points."""
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in read_table():
        found[row["set"]][row["candidate"]].append(100 * float(row["accuracy"]))
    return {name: {c: sum(v) / len(v) for c, v in rows.items()} for name, rows in found.items()}


def write_scores(store: Path) -> None:
    """Every scorer on every candidate and set, at default options; what the table has already is left as it is.

    Remove benchmarks/results/scores.csv to have all of them anew.
    """
    bench = Bench(store, shared_data())
    names = [name for name in bench.registry.names("scorer") if name != "mean-margin"]  # the example plugin's
    done: set[tuple[str, str]] = set()
    if SCORES.is_file():
        with SCORES.open(encoding="utf-8", newline="") as file:
            done = {(row["set"], row["candidate"]) for row in csv.DictReader(file)}
    else:
        _append([dict(zip(COLUMNS, COLUMNS, strict=True))])
    for set_name in sorted({row["set"] for row in read_table()}):
        for candidate in bench.candidates():
            if (set_name, candidate.name) not in done:
                _append(_scores(bench, set_name, candidate, names))
                print(f"{set_name} {candidate.name}: scored", flush=True)


def _append(lines: list[dict[str, object]]) -> None:
    with SCORES.open("a", encoding="utf-8", newline="") as file:
        csv.DictWriter(file, COLUMNS, lineterminator="\n").writerows(lines)


def _scores(bench: Bench, set_name: str, candidate: Any, names: Sequence[str]) -> list[dict[str, object]]:
    from tlcore.errors import TlcoreError
    from tlcore.features.files import load_features
    from tlcore.stages.tables import load_table
    from tlcore.stages.values import CheckedData

    inputs = bench.inputs(set_name, candidate)
    checked = bench.store.read(inputs["data"][0], CheckedData)
    dataset = load_table(bench.store.folder(inputs["data"][0]), checked)
    stored = load_features(bench.store.folder(inputs["features"][0]))
    label_of = dict(zip(dataset.table["sample_id"].to_list(), dataset.labels(), strict=True))
    labels = np.array([label_of[name] for name in stored.sample_ids], dtype=np.int64)
    evidence = evidence_of(stored.features, labels, len(dataset.classes), stored.probabilities)
    lines = [_line(set_name, candidate.name, PRIOR, float(candidate.params), 0.0)]
    for name in names:
        scorer = bench.registry.build("scorer", name, {}, where="benchmark")
        started = time.process_time()
        try:
            value = float(scorer.score(evidence))
        except TlcoreError as error:
            print(f"{set_name} {candidate.name} {name}: {error.what}", file=sys.stderr)
            continue
        lines.append(_line(set_name, candidate.name, name, value, time.process_time() - started))
    return lines


def evidence_of(features, labels, classes, probabilities):  # type: ignore[no-untyped-def]
    from tlcore.features.folds import fold_moments
    from tlcore.features.moments import Moments
    from tlcore.protocols import Evidence

    folds = fold_moments(features, labels, classes, probabilities)
    return Evidence(
        moments=Moments.merge(folds), labels=labels, features=lambda: features,
        source_probabilities=lambda: probabilities, folds=folds,
    )  # fmt: skip


def _line(set_name: str, candidate: str, scorer: str, score: float, seconds: float) -> dict[str, object]:
    return {
        "set": set_name, "candidate": candidate, "scorer": scorer, "score": repr(score), "cpu_seconds": f"{seconds:.4f}",
    }  # fmt: skip


def read_scores() -> Table:
    table: Table = defaultdict(lambda: defaultdict(dict))
    with SCORES.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            table[row["set"]][row["scorer"]][row["candidate"]] = float(row["score"])
    return table


class Judge:
    """Agreement of one order of candidates with what they achieved, per set."""

    def __init__(self, scores: Table, truth: Mapping[str, Mapping[str, float]]) -> None:
        self.scores, self.truth = scores, truth
        self.sets = sorted(truth)

    def places(self, set_name: str, scorers: Sequence[str]) -> dict[str, float]:
        """The panel of `tlcore.selection.panel`, of the candidates that any of the scorers could score; lower is better."""
        from tlcore.selection.panel import panel_means

        scores = [self.scores[set_name].get(name, {}) for name in scorers]
        candidates = list(dict.fromkeys(candidate for column in scores for candidate in column))
        if not candidates:
            return {}
        table = np.array([[column.get(candidate, np.nan) for column in scores] for candidate in candidates])
        return dict(zip(candidates, panel_means(table).tolist(), strict=True))

    def measure(self, set_name: str, scorers: Sequence[str]) -> tuple[float, float, float]:
        """Weighted tau, top-1 regret, top-3 regret. Candidates that no scorer could score come last."""
        from tlcore.selection.agreement import agreement, regret

        places, truth = self.places(set_name, scorers), self.truth[set_name]
        order = [-places.get(candidate, 2.0) for candidate in truth]
        accuracy = list(truth.values())
        tau = agreement(order, accuracy).weighted_tau
        return (0.0 if tau is None else tau), regret(order, accuracy, 1), regret(order, accuracy, 3)

    def mean(self, scorers: Sequence[str], sets: Sequence[str] | None = None) -> tuple[float, float, float]:
        found = np.array([self.measure(name, scorers) for name in sets or self.sets])
        tau, top1, top3 = found.mean(axis=0)
        return float(tau), float(top1), float(top3)


def search(judge: Judge, scorers: Sequence[str], largest: int) -> list[tuple[tuple[str, ...], list[float]]]:
    """Every panel and its top-1 regret, top-3 regret and tau by set."""
    panels = []
    for size in range(1, largest + 1):
        for panel in itertools.combinations(scorers, size):
            panels.append((panel, [judge.measure(name, panel) for name in judge.sets]))
    return panels  # type: ignore[return-value]


def report(panels: Sequence[Sequence[str]], *, largest: int) -> None:
    judge = Judge(read_scores(), achieved())
    scorers = sorted({name for found in judge.scores.values() for name in found} - {PRIOR})
    candidates = {len(found) for found in judge.truth.values()}
    print(
        f"{len(judge.sets)} image sets, {'/'.join(map(str, sorted(candidates)))} candidates; means over the sets.\n"
    )
    print("| | weighted tau | top-1 regret | top-3 regret |\n|---|---|---|---|")
    rows = [(f"panel: {', '.join(panel)}", judge.mean(panel)) for panel in panels]
    rows += sorted(((name, judge.mean([name])) for name in scorers), key=lambda row: row[1][1])
    rows += [("static prior (parameters)", judge.mean([PRIOR]))]
    for name, (tau, top1, top3) in rows:
        print(f"| {name} | {tau:.2f} | {top1:.2f} | {top3:.2f} |")
    print("| random choice | 0.00 | {:.2f} | {:.2f} |".format(*_random(judge)))
    print(
        "\n| set | best candidate | "
        + " | ".join(f"panel {i + 1}" for i in range(len(panels)))
        + " | static prior |"
    )
    print("|---|---|" + "---|" * (len(panels) + 1))
    for name in judge.sets:
        best = max(judge.truth[name].items(), key=lambda found: found[1])
        cells = [f"{judge.measure(name, panel)[1]:.2f}" for panel in (*panels, [PRIOR])]
        print(f"| {name} | {best[0]} {best[1]:.1f} | {' | '.join(cells)} |")
    _trial_report(judge, panels[0])
    if largest:
        _search_report(judge, scorers, largest)


def _random(judge: Judge) -> tuple[float, float]:
    from tlcore.selection.agreement import random_regret

    equal = [[random_regret(list(found.values()), k) for k in (1, 3)] for found in judge.truth.values()]
    top1, top3 = np.mean(equal, axis=0)
    return float(top1), float(top3)


def _trial_report(judge: Judge, panel: Sequence[str]) -> None:
    """Mean regret where the first three by rank were trained in full and the rule of the trial chose among them."""
    from tlcore.selection.halving import standing
    from tlcore.values import Rung

    first = {(row["set"], row["candidate"]): row for row in read_table() if row["seed"] == "0"}
    regrets: dict[str, list[float]] = defaultdict(list)
    overruled = 0
    for name in judge.sets:
        truth, places = judge.truth[name], judge.places(name, panel)
        shortlist = sorted(places, key=places.__getitem__)[:3]
        rungs = []
        for candidate in shortlist:
            row = first[name, candidate]
            accuracy, images = float(row["validation"]), int(row["validation_images"])
            rungs.append(Rung(candidate=candidate, rung=1, epochs=3, validation=accuracy, images=images))
        level = standing(shortlist, rungs)
        overruled += level[0] != shortlist[0]
        alone = standing(shortlist, [rung.model_copy(update={"images": None}) for rung in rungs])
        chosen = {"the ranking": shortlist[0], "the trial": level[0], "validation accuracy alone": alone[0]}
        for way, candidate in chosen.items():
            regrets[way].append(max(truth.values()) - truth[candidate])
    said = ", ".join(f"{way} {np.mean(found):.2f}" for way, found in regrets.items())
    print(
        f"\nOf the panel's first three, top-1 regret by {said}. The trial overruled the ranking on {overruled} sets."
    )


def _search_report(judge: Judge, scorers: Sequence[str], largest: int) -> None:
    found = search(judge, scorers, largest)
    table = np.array([values for _, values in found])  # [panels, sets, (tau, top1, top3)]
    loss = table[:, :, 1] + table[:, :, 2] - table[:, :, 0]
    print(f"\nOf {len(found)} panels, by top-1 + top-3 regret - tau:\n")
    for place in np.argsort(loss.mean(axis=1))[:15]:
        tau, top1, top3 = table[place].mean(axis=0)
        print(f"- {', '.join(found[place][0])}: tau {tau:.2f}, top-1 {top1:.2f}, top-3 {top3:.2f}")
    left = []
    for out in range(len(judge.sets)):
        others = [i for i in range(len(judge.sets)) if i != out]
        place = int(np.argmin(loss[:, others].mean(axis=1)))
        left.append(table[place, out])
        print(
            f"- without {judge.sets[out]}: {', '.join(found[place][0])}; there top-1 {table[place, out, 1]:.2f}"
        )
    tau, top1, top3 = np.mean(left, axis=0)
    print(
        f"\nChosen on the other sets, on the set left out: tau {tau:.2f}, top-1 {top1:.2f}, top-3 {top3:.2f}."
    )


PRIOR = "(parameters)"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--plugin", type=Path)
    parser.add_argument("--store", type=Path, default=Path(".tlcore-ground-truth"))
    parser.add_argument("--panel", action="append", default=[], metavar="SCORER,SCORER")
    parser.add_argument(
        "--search", type=int, default=0, metavar="SIZE", help="try all panels of up to this size"
    )
    given = parser.parse_args()
    if given.plugin is not None:
        sys.path.insert(0, str(given.plugin.resolve()))
        write_scores(given.store.resolve())
    from tlcore.config import SelectionConfig

    default = [choice.name for choice in SelectionConfig().scorers]
    report([default, *(panel.split(",") for panel in given.panel)], largest=given.search)


if __name__ == "__main__":
    main()

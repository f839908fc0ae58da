"""Which cells benchmarks/tuning.py does: tuners by part, what `auto` stands for, and the best that get further seeds."""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.tuning_cells import Bench
from benchmarks.tuning_rows import ALL, Cell, Part, Row, Spec, chosen_by_auto, read, spec_of

__all__ = ["EPOCHS", "SCRATCH", "SEEDS", "Plan", "best_of", "cells", "of_auto", "left_to_train", "specs"]

CANDIDATES = {"features": ("mobilenetv2_100", "mobilenetv1_100"), "network": ("mobilenetv1_050",)}
NETWORK_SETS = ("flowers5", "pacs-art", "pacs-sketch")
SHOTS = {"features": ("1", "5", "20", ALL), "network": ("5", "20")}
VALIDATION = {"5": "auto"}
"""By images a class; of others images held out."""
SEEDS, BEST = 3, 3
COMPARED = ("linear-probe", "ridge", "gda")
"""Heads on features that the tuners of the network are compared with on the same folders."""
METRICS = ("cosine", "mahalanobis")
EPOCHS, SCRATCH = 15, 3


def specs(registry: Any, part: Part, epochs: int, wanted: Sequence[str] | None = None) -> list[Spec]:
    """The tuners of a part, by name: what keeps the backbone is one of features. `auto` and those that read texts are
    left out."""
    from tlcore.protocols import TrainTask

    task = TrainTask(("a", "b"), 8, 8, counts=(4, 4))
    found = []
    for asked in wanted if wanted is not None else registry.names("tuner"):
        name, brace, rest = asked.partition("{")
        kind = registry.load("tuner", name)
        if kind.chooses() or "text" in kind.card.traits:
            continue
        options: dict[str, Any] = json.loads(brace + rest) if brace else {}
        on_features = registry.build("tuner", name, options).plan(task).keeps_backbone
        if on_features != (part == "features") and not (part == "network" and name in COMPARED):
            continue
        if name == "prototype" and not options:
            found += [Spec.of(name, {"metric": metric}) for metric in METRICS]
            continue
        most = epochs * (SCRATCH if "random-start" in kind.card.traits else 1)
        if not on_features and kind.model_fields["epochs"].default > most:
            options = {"epochs": most, **options}
        found.append(Spec.of(name, options))
    return found


def cells(
    part: Part,
    sets: Sequence[str],
    shots: Sequence[str],
    seeds: Sequence[int],
    tuners: Sequence[Spec],
    candidate: str | None = None,
) -> list[Cell]:
    """All of them, those that share a folder or features in a row. candidate: instead of the part's own."""
    candidates = CANDIDATES[part] if candidate is None else (candidate,)
    return [
        Cell(part, name, candidate, count, seed, spec)
        for name in sets for candidate in candidates for count in shots for seed in seeds for spec in tuners
    ]  # fmt: skip


def of_auto(
    places: Sequence[Cell], classes: Mapping[str, int], images: Mapping[tuple[str, str], int]
) -> list[Cell]:
    """What `auto` would choose in the places of these cells.

    classes: by set. images: in the training split, by set and shots.
    """
    chosen = (
        replace(place, spec=chosen_by_auto(classes[place.set], images[place.set, place.shots]))
        for place in places
    )
    return list(dict.fromkeys(chosen))


def best_of(rows: Sequence[Row], places: int) -> list[Spec]:
    """The best three by mean accuracy of the tuners that have a line in all places, a place being a set and shots."""
    found: dict[Spec, dict[tuple[str, str], float]] = defaultdict(dict)
    for row in rows:
        if row["seed"] == "0":
            found[spec_of(row)][row["set"], row["shots"]] = float(row["accuracy"])
    means = {spec: np.mean(list(seen.values())) for spec, seen in found.items() if len(seen) == places}
    return sorted(means, key=lambda spec: (-means[spec], spec.label))[:BEST]


class Plan:
    """Which cells this call asks for."""

    def __init__(self, given: argparse.Namespace, bench: Bench) -> None:
        self.given, self.bench = given, bench

    def cells(self, turn: int) -> list[Cell]:
        """The first turn: heads, and networks with seed 0. The second: further seeds of networks."""
        found: list[Cell] = []
        if turn == 1 and self.given.part in (None, "features"):
            found += self._part("features", range(self.given.seeds))
        if self.given.part in (None, "network"):
            found += self._part("network", range(1) if turn == 1 else range(1, self.given.seeds))
        return [cell for cell in found if self.given.only is None or self.given.only in cell.name]

    def _part(self, part: Part, seeds: Sequence[int]) -> list[Cell]:
        given = self.given
        sets = given.sets or (list(self.bench.sets) if part == "features" else NETWORK_SETS)
        shots = [count for count in given.shots or SHOTS[part] if count in SHOTS[part] or given.shots]
        asked = [name for name in given.tuners or () if name != "auto"]
        tuners = specs(self.bench.registry, part, given.epochs, asked if given.tuners else None)
        if part == "network" and seeds and seeds[0] > 0:
            rows = [row for key, row in read(given.results).items() if key[0] == part and row["set"] in sets]
            rows = [
                row
                for row in rows
                if row["shots"] in shots
                and row["validation"] == self._validation(row["shots"])
                and row["candidate"] in (CANDIDATES[part] if given.candidate is None else (given.candidate,))
            ]
            tuners = best_of([row for row in rows if spec_of(row) in tuners], len(sets) * len(shots))
        candidate = given.candidate if part == "network" else None
        found = cells(part, sets, shots, seeds, tuners, candidate)
        # Of heads `auto` chooses one that is there already.
        if part == "network" and (not given.tuners or "auto" in given.tuners):
            counts = {name: _counts(self.bench.sets[name] / "train") for name in sets}
            left = {
                (name, count): sum(left_to_train(n if count == ALL else min(n, int(count))) for n in counts[name])
                for name in sets for count in shots
            }  # fmt: skip
            places = cells(part, sets, shots, seeds, [Spec("auto")], candidate)
            found += of_auto(places, {name: len(each) for name, each in counts.items()}, left)
        if part == "features":
            return found
        return [replace(cell, validation=self._validation(cell.shots)) for cell in dict.fromkeys(found)]

    def _validation(self, shots: str) -> str:
        return self.given.validation or VALIDATION.get(shots, "held-out")


def _counts(folder: Path) -> list[int]:
    """Images of each class."""
    return [len(list(place.iterdir())) for place in sorted(folder.iterdir())]


def left_to_train(images: int, validation: float = 0.15) -> int:
    """Images of a class that stay in the training split (tlcore.data.splits)."""
    return images - (max(1, int(validation * images + 0.5)) if images >= 2 else 0)

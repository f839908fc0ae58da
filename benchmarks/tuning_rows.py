"""The cells of benchmarks/tuning.py and the lines that are kept of them."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

__all__ = [
    "ALL",
    "COLUMNS",
    "RESULTS",
    "Cell",
    "Part",
    "Row",
    "Spec",
    "begin",
    "chosen_by_auto",
    "keep",
    "read",
    "spec_of",
]

RESULTS = Path(__file__).parent / "results" / "tuning.csv"
ALL = "all"
COLUMNS = (
    "part", "set", "candidate", "shots", "seed", "tuner", "options", "validation", "classes", "train_images", "test_images",
    "accuracy", "seconds", "cpu_seconds", "peak_mb", "added_mb", "notes",
)  # fmt: skip
KEY = COLUMNS[:8]

Part = Literal["features", "network"]
Row = dict[str, str]


@dataclass(frozen=True)
class Spec:
    """A tuner by its name, with the options that differ from its defaults, as JSON with sorted keys."""

    tuner: str
    options: str = "{}"

    @classmethod
    def of(cls, tuner: str, options: Mapping[str, Any] | None = None) -> Spec:
        return cls(tuner, json.dumps(dict(options or {}), sort_keys=True))

    @property
    def label(self) -> str:
        """For people: "lp-ft (ema 0.95, layer_decay 0.75)"."""
        told = ", ".join(
            value if name == "metric" else f"{name} {value}"
            for name, value in json.loads(self.options).items()
        )
        return f"{self.tuner} ({told})" if told else self.tuner


@dataclass(frozen=True)
class Cell:
    """One training. shots: images a class, or "all". validation: the option of the stage that trains networks."""

    part: Part
    set: str
    candidate: str
    shots: str
    seed: int
    spec: Spec
    validation: str = ""

    @property
    def key(self) -> tuple[str, ...]:
        place = (self.part, self.set, self.candidate, self.shots, str(self.seed))
        return (*place, self.spec.tuner, self.spec.options, self.validation)

    @property
    def name(self) -> str:
        """What --only looks for a text in."""
        return f"{self.part}/{self.set}/{self.candidate}/{self.shots}/seed {self.seed}/{self.spec.label}"


def spec_of(row: Row) -> Spec:
    return Spec(row["tuner"], row["options"])


def chosen_by_auto(classes: int, train_images: int) -> Spec:
    """What `auto`, as it is now, takes for so many classes and labelled training images, without a budget and with a network
    whose work is below its limit (as that of mobilenetv1_050 is, some 500 of 3,000 GMACs)."""
    from tlcore.protocols import TrainTask
    from tlcore.training.auto import Auto

    names = tuple(str(k) for k in range(classes))
    return Spec.of(*Auto().choose(TrainTask(names, 1, train_images)))


def read(path: Path = RESULTS) -> dict[tuple[str, ...], Row]:
    """The lines by cell; of two of one cell the later. A last line that a kill cut short is left out."""
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if None not in row and None not in row.values()]
    return {tuple(row[name] for name in KEY): row for row in rows}


def keep(row: Mapping[str, Any], path: Path) -> None:
    """Append one line in one write, so that processes may share the file."""
    text = io.StringIO()
    csv.DictWriter(text, COLUMNS, lineterminator="\n").writerow(row)
    with path.open("ab") as file:
        os.write(file.fileno(), text.getvalue().encode())


def begin(path: Path) -> None:
    """The line of columns, where there is no table yet; and an end to a line that a kill cut short."""
    path.parent.mkdir(parents=True, exist_ok=True)
    known = path.read_bytes() if path.is_file() else b""
    if not known:
        path.write_text(",".join(COLUMNS) + "\n", encoding="utf-8")
    elif not known.endswith(b"\n"):
        path.write_bytes(known[: known.rfind(b"\n") + 1])

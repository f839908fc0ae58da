"""The kept results of benchmarks/adaptation.py and office_caltech.py, and what they say about the gate.

    python -m benchmarks.adaptation_tables [--cells] [--write]

Prints, from benchmarks/results: every pair and adapter as means over seeds (--cells), each pair with the default adapter
and with the choice among all adapters, each adapter, and how often the do-no-harm gate is
wrong. The verdicts are those of the gate as it is now, on the evidence that was kept; no image or network is needed.

Harm and help are differences of more than half a point of target test accuracy, label-free choice against source-only.
A false acceptance is harm that the gate lets pass, a false rejection help that it keeps away. The oracle's gain is that
of the checkpoint with the best target test accuracy, source-only among them.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tlcore.evaluation.gate import verdict
from tlcore.values import AccuracyEstimates, Adapted

RESULTS = Path(__file__).parent / "results" / "adaptation.csv"
CLOSED = Path(__file__).parent / "results" / "office_caltech.csv"
TABLES = RESULTS.with_suffix(".txt")
COLUMNS = (
    "pair", "adapter", "mode", "seed", "source_only", "chosen", "last", "oracle", "seconds", "target_test", "stopped",
    "evidence",
)  # fmt: skip
VALIDATORS = ("im", "bnm")
DEFAULT = "mcc"
DIGITS = ("usps-mnist", "mnist-usps", "rendered-scans")
PACS = ("photo-art", "photo-sketch", "art-photo")
FLOOR, MATTERS = 0.05, 0.005

Row = dict[str, Any]


def read(path: Path = RESULTS) -> list[Row]:
    csv.field_size_limit(1 << 20)
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def keep(row: Row, path: Path) -> None:
    """Put one line into a table, in the place of an older one of the same cell."""
    rows = {_key(other): other for other in read(path)} | {_key(row): row}
    path.parent.mkdir(exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows[key] for key in sorted(rows))


def _key(row: Row) -> tuple[str, ...]:
    return row["pair"], row["mode"], row["adapter"], str(row["seed"])


def accepted(row: Row) -> bool:
    """The gate's verdict on one cell."""
    evidence = json.loads(row["evidence"])
    before, after = (
        Adapted(
            strategy=row["adapter"], validator_score=evidence["score"][i], validators={n: seen[n] for n in VALIDATORS},
            source_validation_accuracy=evidence["source"][i], target_only=evidence["target_only"] and i == 1,
            nuclear_norm=seen["bnm"], top_share=evidence["share"][i], cluster_agreement=seen["class-ami"],
            estimates=AccuracyEstimates.model_validate(evidence["estimates"][i]),
        )
        for i, seen in enumerate((evidence["before"], evidence["after"]))
    )  # fmt: skip
    return verdict(before, after, floor=FLOOR, classes=7 if row["pair"] in PACS else 10)[0]


def gain(row: Row, column: str = "chosen") -> float:
    """Points above source-only."""
    return 100 * (float(row[column]) - float(row["source_only"]))


def gated(row: Row) -> float:
    """Points above source-only that the gate lets through."""
    return gain(row) if accepted(row) else 0.0


def cells(rows: Iterable[Row]) -> str:
    """Means over seeds in percent; kept: in how many seeds; seconds: the median."""
    names = ("source_only", "chosen", "last", "oracle")
    lines = [
        f"{'pair':16}{'adapter':22}{'mode':8}{'source':>8}{'chosen':>8}{'last':>8}{'oracle':>8}{'gated':>8}   kept  seconds"
    ]
    for (pair, mode, adapter), found in grouped(rows, "pair", "mode", "adapter").items():
        means = "".join(f"{100 * np.mean([float(row[name]) for row in found]):8.1f}" for name in names)
        after = np.mean([100 * float(row["source_only"]) + gated(row) for row in found])
        kept = f"{sum(map(accepted, found))}/{len(found)}"
        seconds = np.median([float(row["seconds"]) for row in found])
        lines.append(f"{pair:16}{adapter:22}{mode:8}{means}{after:8.1f}{kept:>7}{seconds:9.1f}")
    return "\n".join(lines)


def grouped(rows: Iterable[Row], *columns: str) -> dict[tuple[str, ...], list[Row]]:
    found: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in rows:
        found[tuple(row[column] for column in columns)].append(row)
    return found


def by_pair(rows: Sequence[Row]) -> str:
    """The default adapter, and the choice among all adapters of the pair's own mode, as means over seeds."""
    lines = [f"{'':24}{'the default, ' + DEFAULT:>34}{'the choice among all':>32}"]
    lines.append(
        f"{'pair':16}{'source':>8}"
        + f"{'chosen':>8}{'gated':>8}{'last':>8}{'oracle':>10}"
        + f"{'gated':>14}{'oracle':>18}"
    )
    table = []
    for pair in (*DIGITS, *PACS):
        mine = [row for row in rows if row["pair"] == pair and row["mode"] != "last"]
        seeds = grouped(mine, "seed").values()
        if not mine:
            continue
        default = [row for row in mine if row["adapter"] == DEFAULT]
        picked = [_picked(found) for found in seeds]
        best = [max(0.0, *(gain(row, "oracle") for row in found)) for found in seeds]
        line = [float(np.mean([100 * float(row["source_only"]) for row in default]))]
        line += [float(np.mean([f(row) for row in default])) for f in (gain, gated)]
        line += [float(np.mean([gain(row, column) for row in default])) for column in ("last", "oracle")]
        line += [float(np.mean(picked)), float(np.mean(best))]
        table.append((pair, line))
    for name, pairs in (("mean of digits", DIGITS), ("mean of PACS", PACS)):
        members = [line for pair, line in table if pair in pairs]
        if members:
            table.append((name, [float(value) for value in np.mean(members, axis=0)]))
    for name, (source, *gains) in table:
        one = "".join(f"{value:+8.1f}" for value in gains[:3])
        lines.append(f"{name:16}{source:8.1f}{one}{gains[3]:+10.1f}{gains[4]:+14.1f}{gains[5]:+18.1f}")
    return "\n".join(lines)


def by_adapter(rows: Sequence[Row]) -> str:
    """Each adapter's mean gain over pairs and seeds: label-free choice, and what of it the gate lets through."""
    parts = {
        "digits": lambda row: row["pair"] in DIGITS,
        "PACS, features": lambda row: row["pair"] in PACS and row["mode"] in {"head", "closed"},
        "PACS, images": lambda row: row["pair"] in PACS and row["mode"] not in {"head", "closed"},
        "SURF": lambda row: row["pair"] not in (*DIGITS, *PACS),
    }
    lines = [f"{'':22}" + "".join(f"{name:>24}" for name in parts)]
    lines.append(f"{'adapter':22}" + f"{'chosen':>10}{'gated':>7}{'s':>7}" * len(parts))
    for (adapter,), found in sorted(grouped(rows, "adapter").items()):
        line = f"{adapter:22}"
        for belongs in parts.values():
            mine = [row for row in found if belongs(row)]
            if mine:
                seconds = np.median([float(row["seconds"]) for row in mine])
                line += "".join(
                    f"{np.mean([f(row) for row in mine]):+{w}.1f}" for f, w in ((gain, 10), (gated, 7))
                )
                line += f"{seconds:7.1f}"
            else:
                line += f"{'–':>10}{'–':>7}{'–':>7}"
        lines.append(line.rstrip())
    return "\n".join(lines)


def _picked(rows: Iterable[Row]) -> float:
    """What the rule gains when it chooses among these: the highest score of all that the gate accepts."""
    passed = [row for row in rows if accepted(row)]
    return gain(max(passed, key=lambda row: json.loads(row["evidence"])["score"][1])) if passed else 0.0


def distinct(rows: Iterable[Row]) -> list[Row]:
    """One of each: closed forms on the same source-only model give the same for every seed."""
    names = ("pair", "mode", "adapter", "source_only", "chosen", "last", "oracle")
    found: dict[tuple[str, ...], Row] = {}
    for row in rows:
        scores = json.dumps(json.loads(row["evidence"])["score"])
        found.setdefault((*(row[name] for name in names), scores), row)
    return list(found.values())


def errors(rows: Sequence[Row]) -> str:
    """How often the gate is wrong, for all cells and in parts. Cells that are the same for several seeds count once."""
    rows = distinct(rows)
    parts = {
        "digits": [r for r in rows if r["pair"] in DIGITS],
        "PACS, on features": [r for r in rows if r["pair"] in PACS and r["mode"] in {"head", "closed"}],
        "PACS, on images": [r for r in rows if r["pair"] in PACS and r["mode"] not in {"head", "closed"}],
        "Office-Caltech SURF": [r for r in rows if r["pair"] not in (*DIGITS, *PACS)],
        f"the default, {DEFAULT}": [r for r in rows if r["adapter"] == DEFAULT],
        "all": list(rows),
    }
    lines = [
        f"{'':22}{'cells':>6}{'harm':>6}{'let through':>13}{'help':>6}{'kept away':>11}{'mean gain, all':>16}{'gated':>7}"
        f"{'of the oracle':>15}"
    ]
    for name, found in parts.items():
        if not found:
            continue
        harm = [row for row in found if gain(row) < -100 * MATTERS - 1e-9]
        good = [row for row in found if gain(row) > 100 * MATTERS + 1e-9]
        false = sum(map(accepted, harm)), sum(not accepted(row) for row in good)
        shares = [
            f"{n} ({100 * n / max(1, len(of)):.0f} %)" for n, of in zip(false, (harm, good), strict=True)
        ]
        best = sum(max(0.0, gain(row, "oracle")) for row in found)
        let = sum(map(gated, found))
        lines.append(
            f"{name:22}{len(found):6}{len(harm):6}{shares[0]:>13}{len(good):6}{shares[1]:>11}"
            f"{np.mean([gain(row) for row in found]):+16.1f}{let / len(found):+7.1f}{100 * let / best if best else 0:13.0f} %"
        )
    means = {
        key: float(np.mean([gated(row) for row in found]))
        for key, found in grouped(rows, "pair", "mode", "adapter").items()
    }
    under = {key: value for key, value in means.items() if value < -100 * MATTERS}
    lines.append(
        f"\n{len(under)} of {len(means)} pairs and adapters lie more than half a point under source-only with the gate on,"
    )
    lines.append(
        "as means over seeds" + "".join(f"; {' '.join(key)}: {value:+.1f}" for key, value in under.items())
    )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cells", action="store_true", help="every pair and adapter too")
    parser.add_argument(
        "--write", action="store_true", help=f"all of it into {TABLES.name} beside the results"
    )
    given = parser.parse_args()
    rows = read(RESULTS) + read(CLOSED)
    parts = [by_pair(rows), by_adapter(rows), errors(rows)]
    if given.cells or given.write:
        parts.append(cells(rows))
    text = "\n\n".join(parts)
    print(text)
    if given.write:
        commands = "".join(
            f"python -m benchmarks.{name}\n"
            for name in ("adaptation", "office_caltech", "adaptation_tables --write")
        )
        TABLES.write_text(
            f"{commands}\nPoints of target test accuracy above source-only; times in seconds.\n\n{text}\n",
            encoding="utf-8",
        )


if __name__ == "__main__":
    main()

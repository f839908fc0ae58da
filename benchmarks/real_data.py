"""The main job on real photographs: rankings, accuracies with intervals, seconds per stage.

    python -m benchmarks.real_data [--data SHARED/data] [--plugin FOLDER] [--only NAME] [--documents FOLDER]

Runs `tlcore run --json` on three problems, each in a fresh store and a process of its own, and prints what
the README's "Measured" section sums up. The photographs and weights are not part of the project:
they are looked for under $TLCORE_SHARED/data (default ../shared/data). With --plugin, a folder in which
tests/example_plugin has been installed (pip install --target FOLDER), the networks that only a plugin
knows take part as well.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

PROBLEMS: dict[str, list[str]] = {
    "hymenoptera": ["--data", "{data}/hymenoptera"],
    "flowers5": ["--data", "{data}/flowers5"],
    "PACS photo → sketch": ["--data", "{data}/pacs/photo", "--target", "{data}/pacs/sketch"],
}


def run(arguments: list[str], environment: dict[str, str]) -> tuple[dict[str, Any], float]:
    with tempfile.TemporaryDirectory() as home:
        command = [
            str(Path(sys.executable).with_name("tlcore")),
            "run",
            *arguments,
            "--json",
            "--store",
            home,
        ]
        started = time.monotonic()
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, check=False)
        if done.returncode:
            sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}")
        document: dict[str, Any] = json.loads(done.stdout)
        return document, time.monotonic() - started


def percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def show(name: str, document: dict[str, Any], wall: float) -> None:
    metrics, chosen = document["metrics"], document["chosen"]
    low, high = metrics["accuracy_ci"]
    print(f"\n**{name}**: {chosen['candidate']}, {chosen['strategy']}; {wall:.0f} s in all.\n")
    scorers = document["selection"]["scorers"]
    print(f"| candidate | rank | {' | '.join(scorers)} | parameters |")
    print("|---" * (3 + len(scorers)) + "|")
    for row in document["ranking"]:
        if row["skipped"] is None:
            low_rank, high_rank = row["rank_interval"] or (row["rank"], row["rank"])
            scores = " | ".join(
                f"{row['scores'][one]:.3f}" if one in row["scores"] else "–" for one in scorers
            )
            print(
                f"| {row['candidate']} | {row['rank']} ({low_rank:.0f}–{high_rank:.0f}) | {scores} "
                f"| {row['params'] / 1e6:.2f} M |"
            )
    print(f"\nShortlist: {', '.join(document['selection']['shortlist'])}.")
    trial = document["trial"]
    if trial:
        rungs = ", ".join(
            f"{rung['candidate']} {percent(rung['validation'])} after {rung['epochs']} epoch(s)"
            for rung in trial["rungs"]
        )
        print(f"Trial in {trial['seconds']:.0f} s: {rungs or 'none'}; {trial['reason']}.")
    skipped = [row["candidate"] for row in document["ranking"] if row["skipped"] is not None]
    if skipped:
        print(f"\nSkipped by name: {', '.join(skipped)}.")
    print("\n| | test accuracy |\n|---|---|")
    print(f"| **result** | **{percent(metrics['accuracy'])}** ({percent(low)} to {percent(high)}) |")
    for baseline, accuracy in document["baselines"].items():
        print(f"| {baseline} | {percent(accuracy)} |")
    adaptation = document["adaptation"]
    if adaptation:
        print("\n| | label-free choice | last epoch | oracle |\n|---|---|---|---|")
        print(f"| source-only | {percent(adaptation['source_only']['accuracy'])} | | |")
        for entry in adaptation["tried"]:
            cells = (percent(entry[key]) for key in ("accuracy", "accuracy_last", "accuracy_oracle"))
            print(f"| {entry['strategy']} | {' | '.join(cells)} |")
        print(f"\nKept: {adaptation['kept']}.")
    parity = document["parity"]
    print(
        f"\nParity on {parity['images']} images: largest difference {parity['max_probability_difference']:.1e}."
    )
    print(
        "\nSeconds: "
        + ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in document["seconds"].items())
        + "."
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, default=Path(os.environ.get("TLCORE_SHARED", "../shared")) / "data"
    )
    parser.add_argument("--plugin", type=Path)
    parser.add_argument("--only", choices=list(PROBLEMS))
    parser.add_argument(
        "--documents", type=Path, help="folder that the JSON documents of the runs are kept in"
    )
    given = parser.parse_args()
    if not given.data.is_dir():
        sys.exit(f"no photographs at {given.data}; set TLCORE_SHARED to the folder that holds data/")
    environment = dict(os.environ)
    models = ["--models", f"local:{given.data}/weights"]
    if given.plugin is not None:
        environment["PYTHONPATH"] = str(given.plugin)
        models += ["--models", f"narrow-mobilenets:{given.data}/weights"]
    print(f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}")
    for name, arguments in PROBLEMS.items():
        if given.only in (None, name):
            document, wall = run([part.format(data=given.data) for part in arguments] + models, environment)
            show(name, document, wall)
            if given.documents is not None:
                given.documents.mkdir(parents=True, exist_ok=True)
                text = json.dumps(document, indent=1, ensure_ascii=False)
                (given.documents / f"{name.split()[0]}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

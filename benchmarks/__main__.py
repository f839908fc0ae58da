"""All benchmarks in turn, each in a process of its own: what the measured figures of README.md come from.

    python -m benchmarks [--rival FOLDER] [--adaptation-rivals FOLDER] [--plugin FOLDER] [--shared FOLDER]

--rival: a folder that transformer-ranker was installed in; without it, LogME's speed is left out.
--adaptation-rivals: likewise, for the side by side of adapters (`make bench` installs both).
--plugin: a folder that tests/example_plugin was installed in, for the networks that timm has no name for.
The reports on selection, adaptation and tuning read the tables in benchmarks/results, which take hours; their own commands
stand in benchmarks/ground_truth.py, adaptation.py, office_caltech.py and tuning.py.
Without photographs (--shared, default $TLCORE_SHARED or ../shared) the runs on real data are left out.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from benchmarks import logme_speed


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rival")
    parser.add_argument("--adaptation-rivals")
    parser.add_argument("--plugin")
    parser.add_argument("--shared", default=os.environ.get("TLCORE_SHARED", "../shared"))
    given = parser.parse_args()
    extraction = ["extraction", "--images", "500"]
    steps = [
        ["selection"], extraction, [*extraction, "--engine", "folded"], [*extraction, "--parts"],
        ["extraction", "--parts", "--images", "1000", "--models", "mobilenetv3_small_100"], ["scale"], ["listing"],
        ["rank_twice"], ["ten_candidates"], ["adaptation_tables", "--cells"], ["tuning_tables"], ["tuning_rivals"],
    ]  # fmt: skip
    if given.rival:
        steps = [["logme_speed", "--rival", given.rival, "--threads", n] for n in ("1", "2")] + steps
    else:
        print(f"the speed of LogME is left out: it takes --rival FOLDER, made by {logme_speed.INSTALL}")
    data = Path(given.shared) / "data"
    if data.is_dir():
        plugin = ["--plugin", given.plugin] if given.plugin else []
        steps.append(["real_data", "--data", str(data), *plugin])
        if given.adaptation_rivals:
            steps.append(["adaptation_rivals", "--rival", given.adaptation_rivals])
    else:
        print(f"no photographs under {data}: the runs on real data are left out")
    failed = []
    for module, *arguments in steps:
        print(f"\n== {' '.join([module, *arguments])}\n", flush=True)
        done = subprocess.run([sys.executable, "-m", f"benchmarks.{module}", *arguments], check=False)
        if done.returncode:
            failed.append(module)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()

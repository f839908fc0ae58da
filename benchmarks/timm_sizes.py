"""Makes tlcore/models/timm_sizes.csv: sizes of all pretrained architectures of the installed timm.

    python -m benchmarks.timm_sizes [--out FILE]

Every network is built on the meta device at the input sizes of its published weights; no weights are read. Takes
a quarter of an hour on two cores.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import timm
from timm.models import get_pretrained_cfg

import tlcore.models
from tlcore.errors import UserError
from tlcore.models.build import architecture_of, preprocess_of
from tlcore.models.cost import measured_size
from tlcore.models.sizes import Place, Size, table_text

TABLE = Path(tlcore.models.__file__).with_name("timm_sizes.csv")


def places() -> list[Place]:
    """Architecture and input size of every published model that takes an RGB image, once each."""
    found: set[Place] = set()
    for name in timm.list_pretrained():
        try:
            preprocess = preprocess_of(get_pretrained_cfg(name).to_dict(), where=name)
        except UserError as error:
            print(f"left out: {error}", file=sys.stderr)
            continue
        found.add((architecture_of(name), preprocess.height, preprocess.width))
    return sorted(found)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=TABLE)
    out: Path = parser.parse_args().out
    sizes: dict[Place, Size] = {}
    wanted = places()
    for number, place in enumerate(wanted, 1):
        try:
            sizes[place] = measured_size(*place)
        except UserError as error:
            print(f"left out: {error}", file=sys.stderr)
            continue
        if sizes[place].gmacs is None:
            print(f"cannot be followed: {place}", file=sys.stderr)
        if number % 50 == 0:
            print(f"{number} of {len(wanted)}", file=sys.stderr, flush=True)
    out.write_text(table_text(sizes, timm_version=timm.__version__), encoding="utf-8")
    print(f"{len(sizes)} sizes in {out}")


if __name__ == "__main__":
    main()

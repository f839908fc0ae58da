"""All benchmarks in turn: `python -m benchmarks [--rival FOLDER] [options of real_data]`."""

import argparse
import sys

from benchmarks import logme_speed, real_data

parser = argparse.ArgumentParser(description=__doc__, add_help=False)
parser.add_argument("--rival", help="folder that transformer-ranker was installed in")
given, sys.argv[1:] = parser.parse_known_args()
if given.rival:
    logme_speed.main(["--rival", given.rival])
else:
    print(f"the speed of LogME is left out: it takes --rival FOLDER, made by {logme_speed.INSTALL}")
real_data.main()

"""The kept results of benchmarks/tuning.py: accuracy, seconds and memory of every tuner, and `auto` beside the best of them.

    python -m benchmarks.tuning_tables [--write] [--results FILE]

`auto` is what it chooses now (tlcore.training.auto.TABLE) for the images that were counted then; no image or network is
needed. A place is a set, a candidate and a number of images a class. Accuracies are percent of the test images, means over
places and seeds, with the deviation over seeds of the mean over places; a star marks a tuner that lacks places of its
column. Seconds are means of processor time, wall time where a training had been interrupted; of networks those of training
and validation. MB: the most that the process held, and the most that it came to hold beyond what it held before.

The gap of a tuner to `auto` is its accuracy less that of `auto`, in points, on the same seeds. Rivals cost no more seconds
in that place; beside them stands the worst of those that cost at most a second more. With some hundred test images a point
is one image: the best of many tuners in one place is better than each of them deserves, with a single seed most of all.
"""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.tuning_rows import RESULTS, Row, Spec, chosen_by_auto, read, spec_of

AUTO = "auto"
COMMANDS = """python -m benchmarks.tuning --plugin .venv/example_plugin
python -m benchmarks.tuning --plugin .venv/example_plugin --part network --tuners linear-probe ridge gda
python -m benchmarks.tuning --plugin .venv/example_plugin --shots 20 --tuners 'lp-ft{"layer_decay":0.75,"ema":0.95}'
"""
"""What the kept table was made with: heads with all seeds too, and what `auto` was before it was measured."""
ON_AVERAGE, AT_WORST = 1.0, 3.0
"""Points of accuracy that `auto` may lose to the best tuner on average, and to any that costs no more in any place."""
SAME_COST = 1.0
"""Seconds that nobody waits for. Said beside the gap at no more seconds: heads in closed form differ by milliseconds."""

Place = tuple[str, str, str]


@dataclass(frozen=True)
class Seen:
    """A tuner in one place: accuracy in percent and seconds by seed. label: of `auto`, what it is."""

    label: str
    accuracy: dict[str, float]
    seconds: dict[str, float]

    def mean(self, seeds: Iterable[str]) -> float:
        return float(np.mean([self.accuracy[seed] for seed in seeds]))

    def cost(self, seeds: Iterable[str]) -> float:
        return float(np.mean([self.seconds[seed] for seed in seeds]))


Places = dict[Place, dict[str, Seen]]
"""By tuner's label, `auto` among them where what it chooses has a line."""


@dataclass(frozen=True)
class Gap:
    """One place: what `auto` was, the tuner with the largest gap, the one with the largest gap that costs no more,
    and that of those that cost at most a second more."""

    place: Place
    chosen: str
    accuracy: float
    best: str
    gap: float
    rival: str
    rival_gap: float
    near: str
    near_gap: float


def places_of(rows: Iterable[Row], choose: Callable[[int, int], Spec] = chosen_by_auto) -> Places:
    """Lines of one part by place and tuner."""
    found: Places = defaultdict(dict)
    for row in rows:
        place = row["set"], row["candidate"], row["shots"]
        spec = spec_of(row)
        names = [spec.label]
        if choose(int(row["classes"]), int(row["train_images"])) == spec:
            names.append(AUTO)
        for name in names:
            seen = found[place].setdefault(name, Seen(spec.label, {}, {}))
            seen.accuracy[row["seed"]] = 100 * float(row["accuracy"])
            seen.seconds[row["seed"]] = seconds_of(row)
    return dict(found)


def seconds_of(row: Row) -> float:
    return float(row["cpu_seconds"] or row["seconds"])


def gaps(places: Places, seeds: frozenset[str]) -> list[Gap]:
    """Of every place in which `auto` has these seeds, against the tuners that have them too."""
    found = []
    for place, tuners in sorted(places.items(), key=lambda item: _order(item[0])):
        if AUTO not in tuners or not seeds <= set(tuners[AUTO].accuracy):
            continue
        own = tuners[AUTO]
        others = {n: seen for n, seen in tuners.items() if n != AUTO and seeds <= set(seen.accuracy)}
        gap = {name: seen.mean(seeds) - own.mean(seeds) for name, seen in others.items()}
        more = {name: seen.cost(seeds) - own.cost(seeds) for name, seen in others.items()}
        first, rival, near = (
            max((name for name in gap if more[name] <= bound), key=lambda name: (gap[name], name))
            for bound in (float("inf"), 0.0, SAME_COST)
        )
        found.append(
            Gap(
                place, own.label, own.mean(seeds), first, gap[first], rival, gap[rival], near, gap[near]
            )
        )  # fmt: skip
    return found


def single_best(places: Places, seeds: frozenset[str]) -> tuple[str, float] | None:
    """The tuner with the largest mean gap to `auto` among those that have every place that `auto` has."""
    own = {p: t for p, t in places.items() if AUTO in t and seeds <= set(t[AUTO].accuracy)}
    names = (
        set.intersection(*({n for n, s in t.items() if seeds <= set(s.accuracy)} for t in own.values()))
        if own
        else set()
    )
    means = {
        name: float(np.mean([t[name].mean(seeds) - t[AUTO].mean(seeds) for t in own.values()]))
        for name in names - {AUTO}
    }  # fmt: skip
    return max(means.items(), key=lambda item: (item[1], item[0])) if means else None


def against_auto(places: Places, seeds: frozenset[str]) -> str:
    """Every place, the means, and whether the two claims hold."""
    found = gaps(places, seeds)
    if not found:
        return "auto: what it chooses now has no line"
    lines = [
        f"{'set':16}{'candidate':18}{'shots':>6}{'auto':>7}  {'what it is':40}{'best':40}{'gap':>6}  "
        f"{'best at no more seconds':40}{'gap':>6}"
    ]
    for gap in found:
        name, candidate, shots = gap.place
        lines.append(
            f"{name:16}{candidate:18}{shots:>6}{gap.accuracy:7.1f}  {gap.chosen:40}{gap.best:40}{gap.gap:+6.1f}  "
            f"{gap.rival:40}{gap.rival_gap:+6.1f}"
        )
    mean = float(np.mean([gap.gap for gap in found]))
    worst = max(found, key=lambda gap: gap.rival_gap)
    single = single_best(places, seeds)
    lines.append("")
    if single is not None:
        lines.append(
            f"best single tuner, mean over {len(found)} places: {single[0]}, {single[1]:+.2f} points to auto; "
            f"limit {ON_AVERAGE:g}: {_verdict(single[1], ON_AVERAGE)}"
        )
    lines.append(
        f"best tuner of each place, mean over {len(found)} places: {mean:+.2f} points to auto; limit {ON_AVERAGE:g}: "
        f"{_verdict(mean, ON_AVERAGE)}"
    )
    lines.append(
        f"worst gap at no more seconds: {worst.rival_gap:+.2f} points, {worst.rival} on {' '.join(worst.place)}; "
        f"limit {AT_WORST:g}: {_verdict(worst.rival_gap, AT_WORST)}"
    )
    worst = max(found, key=lambda gap: gap.near_gap)
    lines.append(
        f"worst gap at {SAME_COST:g} s more or less: {worst.near_gap:+.2f} points, {worst.near} on "
        f"{' '.join(worst.place)}; limit {AT_WORST:g}: {_verdict(worst.near_gap, AT_WORST)}"
    )
    return "\n".join(lines)


def _verdict(value: float, limit: float) -> str:
    return "holds" if value <= limit + 1e-9 else "does not hold"


def by_shots(rows: Sequence[Row], places: Places) -> str:
    """Mean accuracy ± deviation over seeds and mean seconds by tuner and images a class; memory at most."""
    shots = sorted({place[2] for place in places}, key=_number)
    memory: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for row in rows:
        if row["peak_mb"]:
            memory[spec_of(row).label].append((float(row["peak_mb"]), float(row["added_mb"])))
    lines = [
        f"{'':44}{'accuracy, %':^{15 * len(shots)}}  {'seconds':^{9 * len(shots)}}{'MB':>12}",
        f"{'tuner, by images a class':44}" + "".join(f"{count:>15}" for count in shots) + "  "
        + "".join(f"{count:>9}" for count in shots) + f"{'held':>8}{'more':>7}",
    ]  # fmt: skip
    for name in _names(places):
        columns = [[places[p] for p in places if p[2] == count] for count in shots]
        line = f"{name:44}" + "".join(f"{_mean(column, name):>15}" for column in columns) + "  "
        for column in columns:
            spent = [value for tuners in column if name in tuners for value in tuners[name].seconds.values()]
            line += f"{np.mean(spent):9.2f}" if spent else f"{'–':>9}"
        held = memory.get(name)
        line += f"{max(h for h, _ in held):8.0f}{max(m for _, m in held):7.0f}" if held else ""
        lines.append(line.rstrip())
    return "\n".join(lines)


def by_set(places: Places) -> str:
    """One table for every number of images a class: tuners by sets, means over candidates and seeds."""
    parts = []
    for count in sorted({place[2] for place in places}, key=_number):
        own = {place: tuners for place, tuners in places.items() if place[2] == count}
        sets = sorted({place[0] for place in own})
        said = f"{count} images a class" if count != "all" else "all images"
        lines = [f"{said:44}" + "".join(f"{name:>15}" for name in sets)]
        for name in _names(own):
            cells = (_mean([tuners for p, tuners in own.items() if p[0] == one], name) for one in sets)
            lines.append(f"{name:44}" + "".join(f"{cell:>15}" for cell in cells))
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _mean(column: Sequence[dict[str, Seen]], name: str) -> str:
    """Mean over places of the mean over seeds, ± the deviation over seeds of the mean over places."""
    seen = [tuners[name] for tuners in column if name in tuners]
    if not seen:
        return "–"
    value = np.mean([np.mean(list(one.accuracy.values())) for one in seen])
    seeds = set.intersection(*(set(one.accuracy) for one in seen))
    spread = [np.mean([one.accuracy[seed] for one in seen]) for seed in sorted(seeds)]
    shown = f"{value:.1f}" + (f" ± {np.std(spread, ddof=1):.1f}" if len(spread) > 1 else "")
    return shown + ("*" if len(seen) < len(column) else "")


def _names(places: Places) -> list[str]:
    """Tuners by the mean of what they have, `auto` first."""
    found: dict[str, list[float]] = defaultdict(list)
    for tuners in places.values():
        for name, seen in tuners.items():
            found[name].append(float(np.mean(list(seen.accuracy.values()))))
    return sorted(found, key=lambda name: (name != AUTO, -np.mean(found[name]), name))


def _number(shots: str) -> float:
    return float("inf") if shots == "all" else float(shots)


def _order(place: Place) -> tuple[str, str, float]:
    return place[0], place[1], _number(place[2])


def report(rows: Sequence[Row]) -> str:
    """Both parts."""
    parts = []
    for part, title in (("features", "Heads on cached features"), ("network", "Tuners of the network")):
        own, ways = of_one_way([row for row in rows if row["part"] == part])
        if not own:
            continue
        validated = ", ".join(f"{count} images a class: {way}" for count, way in ways.items() if way)
        places, seeds = places_of(own), frozenset(row["seed"] for row in own)
        parts.append(f"== {title}" + (f"; validation, {validated}" if validated else ""))
        parts += [by_shots(own, places), by_set(places)]
        turns = [seeds] if part == "features" or len(seeds) == 1 else [frozenset({"0"}), seeds]
        for turn in turns:
            parts += [f"auto against the others, seeds {', '.join(sorted(turn))}", against_auto(places, turn)]
    return "\n\n".join(parts)


def of_one_way(rows: Sequence[Row]) -> tuple[list[Row], dict[str, str]]:
    """For every number of images a class the lines of one way of validation, that with more of them; and which it is."""
    counts = Counter((row["shots"], row["validation"]) for row in rows)
    ways: dict[str, str] = {}
    for shots, way in sorted(counts, key=lambda key: (_number(key[0]), -counts[key], key[1])):
        ways.setdefault(shots, way)
    return [row for row in rows if row["validation"] == ways[row["shots"]]], ways


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--write", action="store_true", help="into a text file beside the results")
    given = parser.parse_args()
    text = report(list(read(given.results).values()))
    print(text or f"no results at {given.results}; make them with: python -m benchmarks.tuning")
    if text and given.write:
        legend = (__doc__ or "").split("\n\n", 2)[2].strip()
        commands = f"{COMMANDS}python -m benchmarks.tuning_tables --write\n"
        given.results.with_suffix(".txt").write_text(f"{commands}\n{legend}\n\n{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""Results as tables on stdout, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from tlcore.values import Adaptation, Comparison, Metrics, Parity, Ranking, RunRecord

__all__ = ["console", "print_ranking", "print_run", "ranking_table", "table"]


def console() -> Console:
    """stdout; wide enough for paths where it is no terminal."""
    made = Console(highlight=False)
    return made if made.is_terminal else Console(highlight=False, width=160)


def table(*columns: str, right: tuple[str, ...] = ()) -> Table:
    """A table without borders; columns in `right` are aligned to the right."""
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in columns:
        justify = "right" if column in right else "left"
        made.add_column(column, justify=justify, overflow="fold")  # type: ignore[arg-type]
    return made


def percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def ranking_table(ranking: Ranking) -> Table:
    """Candidates from best to worst: scores with their intervals, parameters, what fine-tuning achieved."""
    achieved = any(entry.achieved is not None for entry in ranking.entries)
    columns = ["rank", "candidate", *ranking.scorers, "parameters", *(["fine-tuned"] if achieved else []), ""]
    made = table(*columns, right=("rank", *ranking.scorers, "parameters", "fine-tuned"))
    for entry in ranking.entries:
        scores = []
        for name in ranking.scorers:
            value = entry.scores.get(name)
            interval = entry.spread.get(name)
            text = "–" if value is None else f"{value:.3f}"
            scores.append(text + (f" [{interval.low:.3f}, {interval.high:.3f}]" if interval else ""))
        params = "–" if entry.params is None else f"{entry.params / 1e6:.1f} M"
        cells = [str(entry.rank or "–"), entry.candidate, *scores, params]
        if achieved:
            cells.append(percent(entry.achieved))
        cells.append(f"skipped: {entry.skipped}" if entry.skipped else "; ".join(entry.notes))
        # A Text is shown as it is: names come from strangers and brackets are no markup.
        made.add_row(*(Text(cell) for cell in cells), style="dim" if entry.rank is None else None)
    return made


def print_ranking(ranking: Ranking) -> None:
    out = console()
    out.print(ranking_table(ranking))
    out.print(Text(f"scores on {ranking.images} labelled images, higher is better", style="dim"))


def print_run(record: RunRecord) -> None:
    """What a run found: ranking, result against the baselines, adaptation, parity, files, time."""
    out = console()
    out.print()
    out.print(ranking_table(record.ranking))
    _print_result(out, record)
    if record.adaptation is not None:
        _print_adaptation(out, record.adaptation)
    out.print()
    out.print(Text(_parity(record.parity)))
    for warning in record.warnings:
        out.print(Text(f"warning: {warning}", style="yellow"))
    out.print()
    out.print(Text(f"model  {record.onnx}"), soft_wrap=True)
    out.print(Text(f"card   {record.card}"), soft_wrap=True)
    out.print(Text(f"run    {record.run_id}; {_time(record)}"), soft_wrap=True)


def _print_result(out: Console, record: RunRecord) -> None:
    out.print()
    chosen = f"{record.chosen.candidate}, {record.chosen.strategy}"
    out.print(Text(f"chosen: {chosen}", style="bold"))
    made = table(
        f"on {record.metrics.images} test images", "accuracy", "95 % interval", "result minus baseline"
    )
    metrics: Metrics = record.metrics
    made.add_row(
        Text("result", style="bold"),
        percent(metrics.accuracy),
        f"{percent(metrics.accuracy_ci.low)} to {percent(metrics.accuracy_ci.high)}",
        "",
    )
    for entry in record.baselines:
        made.add_row(Text(entry.baseline), percent(entry.accuracy), "", _difference(entry))
    out.print(made)


def _difference(entry: Comparison) -> str:
    low, high = 100 * entry.difference_ci.low, 100 * entry.difference_ci.high
    verdict = "better" if entry.better else "not shown to be better"
    return f"{100 * entry.difference:+.1f} points [{low:+.1f}, {high:+.1f}], {verdict}"


def _print_adaptation(out: Console, adaptation: Adaptation) -> None:
    out.print()
    out.print(Text(f"adaptation to {adaptation.target_images} unlabelled target images", style="bold"))
    validator = f"{adaptation.validator} (label-free)"
    made = table("", validator, "target accuracy", "95 % interval", "last epoch", "oracle")
    for entry in (adaptation.source_only, *adaptation.tried):
        name = f"{entry.strategy} (kept)" if entry.strategy == adaptation.kept else entry.strategy
        if entry.failed is not None:
            made.add_row(Text(name), Text(f"failed: {entry.failed}"))
            continue
        interval = entry.accuracy_ci
        between = f"{percent(interval.low)} to {percent(interval.high)}" if interval is not None else ""
        made.add_row(
            Text(name),
            f"{entry.validator_score:.3f}",
            percent(entry.accuracy),
            between,
            percent(entry.accuracy_last),
            percent(entry.accuracy_oracle),
        )
    out.print(made)
    out.print(Text(adaptation.reason))


def _parity(parity: Parity) -> str:
    verdict = "passed" if parity.passed else "FAILED"
    ties = f", {parity.ties} near-ties left out" if parity.ties else ""
    return (
        f"parity {verdict}: file against model on {parity.images} images: largest probability difference "
        f"{parity.max_probability_difference:.1e} (tolerance {parity.tolerance:.0e}), "
        f"same first class {percent(parity.top1_agreement)}{ties}"
    )


def _time(record: RunRecord) -> str:
    total = sum(record.seconds.values())
    stages = len(record.seconds)
    cached = len(record.cached)
    slowest = sorted(record.seconds.items(), key=lambda item: -item[1])[:3]
    text = f"{stages} stages in {total:.1f} s"
    if cached:
        text += f", {'all' if cached == stages else cached} cached"
    shown = [f"{name} {seconds:.1f} s" for name, seconds in slowest if seconds >= 1]
    return text + (f" ({', '.join(shown)})" if shown else "")

"""Results as tables on stdout, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from tlcore.report.formatting import options, started
from tlcore.report.measure import measure_of
from tlcore.values import Metrics
from tlcore_flows.cli_adaptation import print_adaptation
from tlcore_flows.cli_console import console, percent, table, value_of
from tlcore_flows.cli_ranking import print_ranked

if TYPE_CHECKING:
    from tlcore.report.measure import Measure
    from tlcore.values import Comparison, Halving, Interval, Parity, Ranking, RunRecord

__all__ = ["console", "percent", "print_ranking", "print_run", "table", "value_of"]


def print_ranking(ranking: Ranking) -> None:
    print_ranked(console(), ranking)


def print_run(record: RunRecord) -> None:
    """What a run found: ranking, result against the baselines, adaptation, parity, files, time."""
    from tlcore.evaluation.comparison import negative_transfer, transfer_sentence

    out = console()
    out.print()
    print_ranked(out, record.ranking)
    if record.halving is not None:
        _print_trial(out, record.halving, measure_of(record.metrics))
    _print_result(out, record)
    said = transfer_sentence(record.baselines, record.chosen.strategy)
    if said is not None:
        out.print(Text(said))
    _print_training(out, record)
    if record.adaptation is not None:
        print_adaptation(out, record.adaptation)
    out.print()
    out.print(Text(_parity(record.parity)))
    # said already, below the baselines
    negative = negative_transfer(record.baselines, record.chosen.strategy)
    for warning in (text for text in record.warnings if text != negative):
        out.print(Text(f"warning: {warning}", style="yellow"))
    out.print()
    out.print(Text(f"model  {record.onnx}"), soft_wrap=True)
    out.print(Text(f"card   {record.card}"), soft_wrap=True)
    out.print(Text(f"run    {record.run_id}; {_time(record)}"), soft_wrap=True)


def _print_trial(out: Console, trial: Halving, measure: Measure) -> None:
    """The short trainings that decided between the shortlisted candidates."""
    out.print()
    out.print(Text(f"trial of the shortlist, {trial.strategy}: {trial.winner} goes on", style="bold"))
    made = table(
        "rung",
        "epochs",
        "candidate",
        "validation",
        "loss",
        "seconds",
        "",
        right=("rung", "epochs", "seconds"),
    )
    for rung in trial.rungs:
        outcome = f"failed: {rung.failed}" if rung.failed else "goes on" if rung.survived else "drops out"
        made.add_row(
            str(rung.rung),
            str(rung.epochs),
            Text(rung.candidate),
            value_of(measure, rung.validation) + _around(measure, rung.validation_ci),
            "–" if rung.loss is None else f"{rung.loss:.3f}",
            f"{rung.seconds:.1f}",
            Text(outcome),
        )
    if trial.rungs:
        out.print(made)
    out.print(Text(f"{trial.reason}; {trial.seconds:.0f} s of the budget of {trial.budget_seconds:g} s"))


def _around(measure: Measure, found: Interval | None) -> str:
    """Its interval in brackets, behind a value."""
    return "" if found is None else f" ({value_of(measure, found.low)} to {value_of(measure, found.high)})"


def _print_training(out: Console, record: RunRecord) -> None:
    """What the training of the result was given, and what it decided by itself."""
    budget = record.config.get("finetune", {}).get("budget")
    if budget is not None:
        out.print(Text(f"each training: at most {budget:g} s", style="dim"))
    for trial in record.trials:
        if record.chosen.made_by(trial):
            for note in trial.notes:
                out.print(Text(f"training: {note}", style="dim"))


def _print_result(out: Console, record: RunRecord) -> None:
    out.print()
    words = started(record.chosen.strategy, record.chosen.kept_start)
    out.print(Text(f"chosen: {record.chosen.candidate}, {words}", style="bold"))
    if record.chosen.options:
        out.print(Text(f"options: {options(record.chosen.options)}", style="dim"))
    if not isinstance(record.metrics, Metrics):
        _print_outputs(out, record)
        return
    made = table(
        f"on {record.metrics.images} test images", "accuracy", "95 % interval", "result minus baseline"
    )
    metrics = record.metrics
    made.add_row(
        Text("result", style="bold"),
        percent(metrics.accuracy),
        f"{percent(metrics.accuracy_ci.low)} to {percent(metrics.accuracy_ci.high)}",
        "",
    )
    for entry in record.baselines:
        made.add_row(Text(entry.baseline), percent(entry.accuracy), "", _difference(entry))
    out.print(made)


def _print_outputs(out: Console, record: RunRecord) -> None:
    """The measures of numbers or tags, and the result against the baselines."""
    from tlcore.evaluation.comparison import sentence
    from tlcore.report.outputs import outputs_view

    view = outputs_view(record)
    assert view is not None
    made = table(f"on {record.metrics.images} test images", "value", "95 % interval", right=("value",))
    for fact in view.facts:
        made.add_row(Text(fact.name), Text(fact.value), Text(fact.interval))
    out.print(made)
    out.print()
    made = table("baseline", view.measure, "the result is", right=(view.measure,))
    said = {entry.baseline: sentence(entry) for entry in record.baselines}
    for row in view.rows:
        made.add_row(Text(row.name), Text(row.value), Text(said[row.name]))
    out.print(made)


def _difference(entry: Comparison) -> str:
    low, high = 100 * entry.difference_ci.low, 100 * entry.difference_ci.high
    verdict = "better" if entry.better else "not shown to be better"
    return f"{100 * entry.difference:+.1f} points [{low:+.1f}, {high:+.1f}], {verdict}"


def _parity(parity: Parity) -> str:
    verdict = "passed" if parity.passed else "FAILED"
    ties = f", {parity.ties} near-ties left out" if parity.ties else ""
    if parity.task != "classification":
        unit = " deviations of the answers" if parity.task == "regression" else ""
        return (
            f"parity {verdict}: file against model on {parity.images} images: largest difference "
            f"{parity.max_probability_difference:.1e}{unit} (tolerance {parity.tolerance:.0e})"
        )
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

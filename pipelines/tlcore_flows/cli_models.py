"""`tlcore models`: source models with what they cost, from tables alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.text import Text

from tlcore.config import ListingConfig, SelectionConfig, parse_listing
from tlcore.protocols import ModelSource
from tlcore.registry import Registry
from tlcore.report import formatting
from tlcore.store import Store
from tlcore_flows import cli_flags, strategies
from tlcore_flows.cli_console import console, table
from tlcore_flows.cli_errors import print_json

if TYPE_CHECKING:
    from tlcore.values import Candidate

__all__ = ["apps"]

EVERYTHING = "timm:*"
TOP = 50
LIMITS = {"max_params": "--max-params", "max_gmacs": "--max-gmacs", "licences": "--licence"}
"""Limits that can be told without running a network, by their option of SelectionConfig."""

_flags = cli_flags.parameters(rank=True)
_MaxParams, _MaxGmacs, _Licence, _Results = (
    _flags[name] for name in ("max_params", "max_gmacs", "licence", "results")
)


def models(
    specs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SPEC",
            help=f"As for --models: timm:NAME, timm:GLOB, local:FOLDER, … Default: {EVERYTHING}",
            show_default=False,
        ),
    ] = None,
    max_params: _MaxParams = None,  # type: ignore[valid-type]
    max_gmacs: _MaxGmacs = None,  # type: ignore[valid-type]
    licence: _Licence = None,  # type: ignore[valid-type]
    results: _Results = None,  # type: ignore[valid-type]
    top: Annotated[int, typer.Option("--top", metavar="N", min=0, help="Rows to print; 0: all.")] = TOP,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """List source models with their cost, licence and static prior, the most promising by it first.

    No image is needed and nothing is fetched; of timm's models no file is read either.
    """
    given = {
        "models": specs or [EVERYTHING], "max_params": max_params, "max_gmacs": max_gmacs, "licence": licence,
        "results": results,
    }  # fmt: skip
    made = cli_flags.document(None, given, (), allow_download=False, command="models")
    del made["name"]
    config = parse_listing(made, where="command line")
    root = Store.local_root()
    registry = Registry.discover(cache_folder=root if root.is_dir() else None)
    strategies.check_listing(config, registry)
    found = _found(config, registry)
    listed = _filtered(found, config.selection)
    if as_json:
        print_json(
            {
                "prior": listed.prior,
                "models": [_document(*row) for row in listed.rows],
                "left_out": [{"name": one.name, "reason": reason} for one, reason in listed.left_out],
            }
        )
        return
    _print_rows(listed, top)
    _print_reasons(listed, found, config.selection)


def _found(config: ListingConfig, registry: Registry) -> tuple[Candidate, ...]:
    from tlcore.models.listing import list_candidates
    from tlcore.models.results import read_results

    def found() -> Iterator[Candidate]:
        for choice in config.models:
            source = registry.build("model-source", choice.name, choice.options, where="models")
            yield from cast(ModelSource, source).listing()

    table = config.selection.results
    return list_candidates(found(), read_results(Path(table).expanduser()) if table else {})


@dataclass(frozen=True)
class _Listed:
    """`rows`: (candidate, place by the prior, why it cannot take part yet); `left_out`: (candidate, reason)."""

    prior: str
    rows: list[tuple[Candidate, int | None, str | None]]
    left_out: list[tuple[Candidate, str]]


def _filtered(found: Sequence[Candidate], limits: SelectionConfig) -> _Listed:
    """What is inside the limits, by the static prior. Weights that are not here leave none out of a list; what
    could not be built or prepared does."""
    from tlcore.selection.constraints import constrain
    from tlcore.selection.prior import static_prior

    known: list[Candidate] = []
    left_out: list[tuple[Candidate, str]] = []
    for one in found:
        if one.preprocess is not None and one.params is not None:
            known.append(one)
        else:
            left_out.append((one, one.skipped or "its size cannot be told"))
    reasons = {one.name: one.skipped for one in known}
    inside, removed = constrain([one.model_copy(update={"skipped": None}) for one in known], limits)
    prior, places = static_prior(inside, Path(limits.results).name if limits.results else "", partly=True)
    rows = [(one, place, reasons[one.name]) for one, place in zip(inside, places, strict=True)]
    rows.sort(key=lambda row: (row[1] is None, row[1] or 0, row[0].name))
    return _Listed(prior, rows, [*removed, *left_out])


def _document(one: Candidate, place: int | None, reason: str | None) -> dict[str, Any]:
    size = one.preprocess
    return {
        "name": one.name, "prior": one.prior, "prior_rank": place, "params": one.params, "gmacs": one.gmacs,
        "onnx_bytes": one.onnx_bytes, "input_size": None if size is None else [size.height, size.width],
        "licence": one.licence, "pretrained_on": one.pretrained_on, "ready": reason is None, "reason": reason,
    }  # fmt: skip


def _print_rows(listed: _Listed, top: int) -> None:
    """The table, without the columns that the terminal has no room for, and what it holds in a sentence."""
    out = console()
    rows, prior = listed.rows, listed.prior
    shown = rows[: top or None]
    columns = {
        "rank": [formatting.DASH if place is None else str(place) for _, place, _ in shown],
        "model": [one.name for one, _, _ in shown],
        "top-1 %": [formatting.DASH if one.prior is None else f"{one.prior:.1f}" for one, _, _ in shown],
        "params": [formatting.number(one.params) for one, _, _ in shown],
        "GMACs": [formatting.DASH if one.gmacs is None else f"{one.gmacs:.2f}" for one, _, _ in shown],
        "ONNX MB": [
            formatting.DASH if one.onnx_bytes is None else f"{one.onnx_bytes / 1e6:,.1f}"
            for one, _, _ in shown
        ],
        "input": [_side(one) for one, _, _ in shown],
        "licence": [one.licence for one, _, _ in shown],
        "weights": ["here" if reason is None else formatting.DASH for _, _, reason in shown],
    }
    if all(one.prior is None for one, _, _ in shown):
        del columns["top-1 %"]
    widths = {name: max(map(len, [name, *cells])) for name, cells in columns.items()}
    dropped = []
    for name in ("ONNX MB", "input", "licence", "GMACs", "weights"):
        if sum(widths[column] + 3 for column in columns) > out.width:
            del columns[name]
            dropped.append(name)
    made = table(right=("rank", "top-1 %", "params", "GMACs", "ONNX MB", "input"))
    for name in columns:
        right = name not in ("model", "licence", "weights")
        made.add_column(name, justify="right" if right else "left", no_wrap=name != "model", overflow="fold")
    for cells in zip(*columns.values(), strict=True):
        # A Text is shown as it is: names come from strangers and brackets are no markup.
        made.add_row(*map(Text, cells))
    if shown:
        out.print(made)
        out.print()
    here = sum(reason is None for _, _, reason in rows)
    said = [f"{len(rows):,} {'model' if len(rows) == 1 else 'models'}, the weights of {here:,} here."]
    if len(rows) > len(shown):
        said.append(f"{len(rows) - len(shown):,} not shown: --top 0 or --json.")
    if prior:
        said.append(f"Rank: by {prior}; it has looked at no image.")
    without = sum(place is None for _, place, _ in rows)
    if prior and without:
        said.append(f"{without:,} without one stand last.")
    if shown and dropped:
        said.append(f"No room for {', '.join(dropped)}.")
    out.print(Text(" ".join(said), style="bold"))


def _side(one: Candidate) -> str:
    size = one.preprocess
    return formatting.DASH if size is None else f"{size.height} x {size.width}"


def _print_reasons(listed: _Listed, found: Sequence[Candidate], limits: SelectionConfig) -> None:
    """How many each limit leaves out (one model may break several), who is left out otherwise, who is not ready."""
    from tlcore.selection.constraints import by_reason, reason_to_remove, way_on

    out = console()
    for name, flag in LIMITS.items():
        given = getattr(limits, name)
        if given:
            alone = SelectionConfig.model_validate({name: given})
            count = sum(reason_to_remove(one, alone) is not None for one in found)
            value = " ".join(given) if isinstance(given, tuple) else f"{given:g}"
            out.print(Text(f"{flag} {value} leaves out {count:,}.", style="dim"))
    if not listed.rows and (way := way_on([one for one, _ in listed.left_out], limits)):
        out.print(Text(f"Next: {way}."))
    other = [(one, reason) for one, reason in listed.left_out if reason_to_remove(one, limits) is None]
    if other:
        out.print(Text(f"Left out: {by_reason(other)}.", style="dim"))
    later = [(one, reason) for one, _, reason in listed.rows if reason is not None]
    if later:
        out.print(Text(f"Not here: {by_reason(later)}.", style="dim"))


_app = typer.Typer(add_completion=False)
_app.command()(models)
apps = {"models": _app}

"""`tlcore models`: source models with what they cost, from tables alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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
            metavar="[SPEC]...",
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

    No weight is loaded, nothing is fetched, and no image is needed.
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
    _tell(_listed(config, registry), config.selection, top=top, as_json=as_json)


def _listed(config: ListingConfig, registry: Registry) -> tuple[Candidate, ...]:
    from tlcore.models.listing import list_candidates
    from tlcore.models.results import read_results

    def found() -> Iterator[Candidate]:
        for choice in config.models:
            source = registry.build("model-source", choice.name, choice.options, where="models")
            yield from cast(ModelSource, source).listing()

    table = config.selection.results
    return list_candidates(found(), read_results(Path(table).expanduser()) if table else {})


def _tell(found: Sequence[Candidate], limits: SelectionConfig, *, top: int, as_json: bool) -> None:
    from tlcore.selection.constraints import constrain
    from tlcore.selection.prior import static_prior

    # Weights that are not here yet are no reason to leave a model out of a list.
    inside, removed = constrain([one.model_copy(update={"skipped": None}) for one in found], limits)
    why = {one.name: one.skipped for one in found}
    left_out = [(one, (one.preprocess is None and why[one.name]) or reason) for one, reason in removed]
    source = Path(limits.results).name if limits.results else ""
    prior, places = static_prior(inside, source, partly=True)
    rows = sorted(zip(inside, places, strict=True), key=lambda row: (row[1] is None, row[1], row[0].name))
    if as_json:
        print_json(
            {
                "prior": prior,
                "models": [_document(one, place, why[one.name]) for one, place in rows],
                "left_out": [{"name": one.name, "reason": reason} for one, reason in left_out],
            }
        )
        return
    _print(rows, why, prior, top)
    _print_left_out(found, left_out, limits)


def _document(one: Candidate, place: int | None, reason: str | None) -> dict[str, Any]:
    size = one.preprocess
    return {
        "name": one.name, "prior": one.prior, "prior_rank": place, "params": one.params, "gmacs": one.gmacs,
        "onnx_bytes": one.onnx_bytes, "input_size": None if size is None else [size.height, size.width],
        "licence": one.licence, "pretrained_on": one.pretrained_on, "ready": reason is None, "reason": reason,
    }  # fmt: skip


def _print(
    rows: Sequence[tuple[Candidate, int | None]], why: dict[str, str | None], prior: str, top: int
) -> None:
    out = console()
    shown = rows[: top or None]
    columns: dict[str, Callable[[Candidate, int | None], str]] = {
        "rank": lambda one, place: formatting.DASH if place is None else str(place),
        "model": lambda one, place: one.name,
        "top-1 %": lambda one, place: formatting.DASH if one.prior is None else f"{one.prior:.1f}",
        "params": lambda one, place: formatting.number(one.params),
        "GMACs": lambda one, place: formatting.DASH if one.gmacs is None else f"{one.gmacs:.2f}",
        "ONNX MB": lambda one, place: (
            formatting.DASH if one.onnx_bytes is None else f"{one.onnx_bytes / 1e6:,.1f}"
        ),
        "input": lambda one, place: _side(one),
        "licence": lambda one, place: one.licence,
        "weights": lambda one, place: "here" if why[one.name] is None else formatting.DASH,
    }
    if all(one.prior is None for one, _ in shown):
        del columns["top-1 %"]
    made = table(*columns, right=("rank", "top-1 %", "params", "GMACs", "ONNX MB", "input"))
    for one, place in shown:
        # A Text is shown as it is: names come from strangers and brackets are no markup.
        made.add_row(*(Text(cell(one, place)) for cell in columns.values()))
    if shown:
        out.print(made)
        out.print()
    here = sum(why[one.name] is None for one, _ in rows)
    counted = f"{len(rows):,} {'model' if len(rows) == 1 else 'models'}, the weights of {here:,} here."
    more = f" {len(rows) - len(shown):,} not shown: --top 0 or --json." if len(rows) > len(shown) else ""
    ranked = f" Rank: by {prior}; it has looked at no image." if prior else ""
    out.print(Text(counted + more + ranked, style="bold"))


def _side(one: Candidate) -> str:
    size = one.preprocess
    return formatting.DASH if size is None else f"{size.height} x {size.width}"


def _print_left_out(
    found: Sequence[Candidate], left_out: Sequence[tuple[Candidate, str]], limits: SelectionConfig
) -> None:
    """How many each limit leaves out (one model may break several), then those left out for other reasons."""
    from tlcore.selection.constraints import by_reason, reason_to_remove

    out = console()
    for name, flag in LIMITS.items():
        given = getattr(limits, name)
        if given:
            alone = SelectionConfig.model_validate({name: given})
            count = sum(reason_to_remove(one, alone) is not None for one in found)
            value = " ".join(given) if isinstance(given, tuple) else f"{given:g}"
            out.print(Text(f"{flag} {value} leaves out {count:,}.", style="dim"))
    other = [(one, reason) for one, reason in left_out if reason_to_remove(one, limits) is None]
    if other:
        out.print(Text(f"Left out: {by_reason(other)}.", style="dim"))


_app = typer.Typer(add_completion=False)
_app.command()(models)
apps = {"models": _app}

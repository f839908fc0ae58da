"""`tlcore predict MODEL.onnx IMAGE…`: needs the file alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from tlcore_flows.cli_errors import print_json
from tlcore_flows.cli_tables import console, percent, table

if TYPE_CHECKING:
    from tlcore.export.metadata import FileMetadata
    from tlcore.export.predictor import Prediction

__all__ = ["apps"]

_predict = typer.Typer(add_completion=False)
apps = {"predict": _predict}


@_predict.command()
def _command(
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="A file that `tlcore run` exported.")],
    images: Annotated[list[str], typer.Argument(metavar="IMAGE…", help="Image files, folders or patterns.")],
    top: Annotated[int, typer.Option("--top", min=1, metavar="K", help="Classes shown per image.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Labels and probabilities for images (or numbers, or tags), from an exported file alone.

    Exit code 1 if an image could not be read; its line says why, the others are answered.
    """
    from tlcore.export.predictor import Predictor, expand, prediction_document

    predictor = Predictor(model)
    predictions = predictor.predict(expand(images))
    failed = any(row.error is not None for row in predictions)
    if as_json:
        document = prediction_document(predictions, model=str(model), top=top, metadata=predictor.metadata)
        print_json(document)
    elif predictor.metadata.task != "classification":
        _print_answers(predictor.metadata, predictions, top)
    else:
        made = table("image", "label", "probability", "then", right=("probability",))
        for row in predictions:
            if row.error is not None:
                made.add_row(Text(row.uri), Text(row.error, style="red"), "", "")
                continue
            others = ", ".join(f"{one.label} {percent(one.probability)}" for one in row.top(top)[1:])
            made.add_row(Text(row.uri), Text(row.label or ""), percent(row.probability), Text(others))
        console().print(made)
    if failed:
        raise typer.Exit(1)


def _print_answers(metadata: FileMetadata, predictions: Sequence[Prediction], top: int) -> None:
    """A table of numbers, or of tags with the probabilities of the likeliest."""
    numbers = metadata.task == "regression"
    name = metadata.classes[0] if numbers else "tags"
    made = table("image", name, *(() if numbers else ("probabilities",)), right=(name,) if numbers else ())
    for row in predictions:
        cells = [Text(row.error, style="red")] if row.error is not None else []
        if not cells and numbers:
            cells = [Text(f"{row.value:.6g}")]
        elif not cells:
            likely = ", ".join(f"{one.label} {percent(one.probability)}" for one in row.top(top))
            cells = [Text(", ".join(row.tags or ()) or "none"), Text(likely)]
        made.add_row(Text(row.uri), *cells)
    console().print(made)

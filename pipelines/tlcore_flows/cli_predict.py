"""`tlcore predict MODEL.onnx IMAGE…`: needs the file alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from tlcore_flows.cli_errors import print_json
from tlcore_flows.cli_tables import console, percent, table

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
    """Labels and probabilities for images, from an exported file alone.

    Exit code 1 if an image could not be read; its line says why, the others are answered.
    """
    from tlcore.export.predictor import Predictor, expand, prediction_document

    predictor = Predictor(model)
    predictions = predictor.predict(expand(images))
    failed = any(row.error is not None for row in predictions)
    if as_json:
        print_json(prediction_document(predictions, model=str(model), top=top))
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

"""Published ImageNet accuracies as a static prior: a table in the format of timm's own results."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tlcore.errors import UserError
from tlcore.values import Candidate

__all__ = ["Results", "read_results", "with_priors"]

REQUIRED = ("model", "top1")
HINT = "give the CSV with columns model and top1 (and img_size) that timm publishes as results-imagenet.csv"

TIMM = "timm"
"""The model source whose candidates have the weights that timm publishes under their names."""

Results = Mapping[str, Sequence[tuple[int | None, float]]]
"""By model name: (input side in pixels or None, top-1 accuracy in percent), in the table's order."""


def read_results(path: Path) -> Results:
    """The table, whole and checked.

    Columns: model (with or without timm's tag), top1 in percent, and optionally img_size in pixels; others are not
    looked at.

    Raises:
        UserError: no such file, not text, a column missing, a value that is no accuracy (the line is named), no rows.
    """
    if not path.is_file():
        raise UserError("no such result table", where=str(path), hint=HINT)
    found: dict[str, list[tuple[int | None, float]]] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True, skipinitialspace=True)
            columns = [name.strip() for name in reader.fieldnames or ()]
            reader.fieldnames = columns
            missing = [name for name in REQUIRED if name not in columns]
            if missing:
                raise UserError(
                    f"the result table has no column {' and no column '.join(missing)}",
                    where=str(path),
                    choices=columns[:20],
                    hint=HINT,
                )
            for row in reader:
                where = f"{path}, line {reader.line_num}"
                name = (row["model"] or "").strip()
                if not name:
                    raise UserError("no model name", where=where, hint=HINT)
                found.setdefault(name, []).append(
                    (_side(row.get("img_size"), where), _percent(row["top1"], where))
                )
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"the result table cannot be read: {error}", where=str(path), hint=HINT) from error
    if not found:
        raise UserError("the result table has no rows", where=str(path), hint=HINT)
    return found


def with_priors(candidates: Iterable[Candidate], results: Results) -> tuple[Candidate, ...]:
    """`candidates` with the published accuracy where the table has their name; the others stay as they are.

    What timm's names stand for are timm's weights: only candidates of the model source `timm` are looked up by them.
    The file "resnet18.safetensors" may hold any weights; of other sources a name counts only if it is none of timm's,
    as in a table of one's own. A local index says a published accuracy itself ("prior").

    A name of timm is first looked up as it is. Failing that, "resnet18.a1_in1k" is also "resnet18" in a table without tags,
    and "resnet18" also "resnet18.a1_in1k" in one with them, where a1_in1k is the tag of timm's default weights: other
    tags name other weights. Of several rows the one of the candidate's input size counts, else that of the nearest.
    """
    return tuple(_with_prior(candidate, results) if results else candidate for candidate in candidates)


def _with_prior(candidate: Candidate, results: Results) -> Candidate:
    from tlcore.models.build import shipped_with_timm

    if candidate.source.get("name") == TIMM:
        rows = results.get(candidate.name) or results.get(_other_name(candidate))
    else:
        rows = None if shipped_with_timm(candidate.name.partition(".")[0]) else results.get(candidate.name)
    if not rows:
        return candidate
    side = candidate.preprocess.height if candidate.preprocess is not None else None

    def distance(row: tuple[int | None, float]) -> float:
        return math.inf if side is None or row[0] is None else abs(row[0] - side)

    return candidate.model_copy(update={"prior": min(rows, key=distance)[1]})


def _other_name(candidate: Candidate) -> str:
    """The same weights by timm's other way to name them; "" where there is none."""
    from timm.models import get_pretrained_cfg

    architecture, dot, tag = candidate.name.partition(".")
    if architecture != candidate.architecture:
        return ""
    config = get_pretrained_cfg(architecture, allow_unregistered=True)
    default = config.tag if config is not None else ""
    if not default:
        return ""
    if dot:
        return architecture if tag == default else ""
    return f"{architecture}.{default}"


def _side(text: str | None, where: str) -> int | None:
    if text is None or not text.strip():
        return None
    try:
        return int(text)
    except ValueError:
        raise UserError(f'img_size "{text}" is no number of pixels', where=where, hint=HINT) from None


def _percent(text: str | None, where: str) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not 0 <= value <= 100:
        raise UserError(f'top1 "{text or ""}" is no accuracy in percent', where=where, hint=HINT)
    return value

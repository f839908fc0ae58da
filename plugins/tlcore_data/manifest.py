"""A CSV or Parquet manifest: one row per image."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from tlcore.errors import UnknownName, UserError
from tlcore.hookspecs import hookimpl
from tlcore.protocols import Card, DataSource
from tlcore.values import SOURCE, Dataset

if TYPE_CHECKING:
    import polars as pl

COLUMNS = ("uri", "label", "split", "domain", "sample_id")
_SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_SHOWN = 5


class Manifest(DataSource):
    """Rows of uri (required), label, split, domain, sample_id; an empty cell is a missing value.

    A uri is a path relative to `root`, or an absolute one below it. Every cell is read as text ("007" stays
    "007"), and surrounding spaces are dropped. Rows are counted from 1, the header left out.

    Labels are classes, numbers or tags (`task`). A cell of tags that holds the separator alone has none of them; an
    empty cell is unlabelled.
    """

    card: ClassVar[Card] = Card(
        name="manifest",
        summary="a CSV or Parquet file with a row per image: uri, label, split, domain, sample_id",
        reference="CSV after RFC 4180, Apache Parquet; the columns of tlcore.values.Dataset",
    )

    path: str = Field(min_length=1, description="the .csv, .parquet or .pq file")
    root: str | None = Field(
        None, description="folder that relative paths start at and no path leaves; default: the file's own"
    )
    label: str = Field("label", min_length=1, description="the column that holds the labels")
    task: Literal["auto", "classification", "regression", "multi-label"] = Field(
        "auto",
        description="what labels are: one class of several, a number, or any number of tags. auto: numbers where they are "
        "written with a decimal point, tags where the column holds lists or a separator is given, else classes",
    )
    separator: str | None = Field(
        None,
        min_length=1,
        description='what stands between the tags of a cell; default: "|", as in "cat|dog"',
    )

    def depends_on(self) -> tuple[str, ...] | None:
        """The table and the images that it lists, and no other file beside them; None where it cannot be read."""
        try:
            path, root = self._places()
            uris = _read(path, self.label)["uri"].drop_nulls().to_list()
        except UserError:
            return None  # `load` says what is wrong
        # A joined path as it stands: to normalise it takes longer than to look at the file.
        return (str(path), *(f"{root}/{uri}" if uri[0] != "/" else uri for uri in uris))

    def _places(self) -> tuple[Path, Path]:
        from tlcore.data.paths import existing

        path = existing(self.path, "file")
        return path, existing(self.root if self.root is not None else path.parent, "folder")

    def load(self) -> Dataset:
        import polars as pl

        from tlcore.data.label_column import read_labels
        from tlcore.data.schema import image_table

        path, root = self._places()
        table = _read(path, self.label)
        cells = {name: table[name].to_list() for name in COLUMNS if name in table.columns and name != "label"}
        count = table.height
        if count == 0:
            raise UserError("the manifest has no rows", where=str(path))
        written = _filled(cells["uri"], "uri", path)
        uris = _resolve(written, root, path)
        if "sample_id" in cells:
            ids = _filled(cells["sample_id"], "sample_id", path)
        else:
            ids = [os.path.relpath(uri, root) for uri in uris]
        _refuse_repeats(uris, written, "image", path)
        _refuse_repeats(ids, ids, "sample_id", path)
        labels = table["label"] if "label" in table.columns else pl.Series("label", [None] * count, pl.String)
        task, found = read_labels(
            labels, task=self.task, separator=self.separator, column=self.label, where=str(path)
        )
        return image_table(
            path.stem,
            task=task,
            target=self.label,
            sample_ids=ids,
            uris=uris,
            labels=found,
            splits=_splits(cells.get("split", [None] * count), path),
            domains=[domain or SOURCE for domain in cells.get("domain", [None] * count)],
        )


def _read(path: Path, label: str = "label") -> pl.DataFrame:
    """All cells as stripped text, with empty ones null; the columns checked.

    The column `label` is called so in what is returned, and left as it is where it holds numbers with a fraction or
    lists.
    """
    import polars as pl

    try:
        if path.suffix.lower() == ".csv":
            table = pl.read_csv(path, infer_schema=False)
        elif path.suffix.lower() in {".parquet", ".pq"}:
            table = pl.read_parquet(path)
        else:
            raise UserError(
                f'a manifest ends in .csv, .parquet or .pq, not in "{path.suffix}"', where=str(path)
            )
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"not a readable {path.suffix.lower().removeprefix('.')} file: {reason}",
            where=str(path),
            hint=f"the first row names the columns ({', '.join(COLUMNS)}; uri is required); text is UTF-8",
        ) from None
    known = tuple(dict.fromkeys((*COLUMNS, label)))
    for name in table.columns:
        if name not in known:
            raise UnknownName(
                "column",
                name,
                known,
                where=str(path),
                hint="rename the column or leave it out; labels in a column of another name: label = NAME",
            )
    if "uri" not in table.columns:
        raise UserError('the column "uri" is missing', where=str(path), choices=COLUMNS)
    if label != "label":
        if label not in table.columns:
            raise UnknownName("column", label, table.columns, where=str(path), hint="name the labels' column")
        table = table.drop("label", strict=False).rename({label: "label"})
    typed = [name for name in table.columns if name == "label" and _keeps_type(table[name].dtype)]
    try:
        table = table.select(
            *(pl.col(n) if n in typed else pl.col(n).cast(pl.String).str.strip_chars() for n in table.columns)
        )
    except pl.exceptions.PolarsError as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"a column does not hold plain values: {reason}", where=str(path)) from None
    return table.select(
        *(pl.col(n) if n in typed else pl.when(pl.col(n) != "").then(pl.col(n)) for n in table.columns)
    )


def _keeps_type(kind: pl.DataType) -> bool:
    import polars as pl

    return kind.is_float() or isinstance(kind, pl.List)


def _filled(cells: Sequence[str | None], column: str, path: Path) -> list[str]:
    empty = [(row, "") for row, cell in enumerate(cells, 1) if cell is None]
    if empty:
        raise UserError(
            f'the column "{column}" is empty in {len(empty)} rows: {_rows(empty)}', where=str(path)
        )
    return [cell for cell in cells if cell is not None]


def _resolve(written: Sequence[str], root: Path, path: Path) -> list[str]:
    """Absolute paths below `root` of files that are there."""
    from tlcore.data.paths import is_inside

    remote, outside, missing, uris = [], [], [], []
    for row, uri in enumerate(written, 1):
        found = os.path.normpath(root / uri)
        uris.append(found)
        if "://" in uri or not uri.isprintable():
            remote.append((row, repr(uri)))
        elif not is_inside(found, root):
            outside.append((row, uri))
        elif not os.path.isfile(found):  # noqa: PTH113 - Path.is_file raises for names that are too long
            missing.append((row, uri))
    for wrong, text, hint in (
        (remote, "hold no path of a local file", "copy the images to this machine first"),
        (outside, f"leave the root {root}", 'move the images below it, or name their folder with "root"'),
        (missing, f"name a missing file below {root}", "mend the paths, or leave these rows out"),
    ):
        if wrong:
            raise UserError(f"{len(wrong)} rows {text}: {_rows(wrong)}", where=str(path), hint=hint)
    return uris


def _refuse_repeats(keys: Sequence[str], shown: Sequence[str], what: str, path: Path) -> None:
    places = defaultdict(list)
    for row, key in enumerate(keys, 1):
        places[key].append(row)
    repeated = [(rows, shown[rows[0] - 1]) for rows in places.values() if len(rows) > 1]
    if repeated:
        examples = "; ".join(f"{name} in rows {_numbers(rows)}" for rows, name in repeated[:_SHOWN])
        more = "; …" if len(repeated) > _SHOWN else ""
        raise UserError(
            f"the same {what} occurs more than once: {examples}{more}",
            where=str(path),
            hint="one row per image",
        )


def _splits(cells: Sequence[str | None], path: Path) -> list[str | None]:
    known = [None if cell is None else _SPLITS.get(cell.lower()) for cell in cells]
    wrong = [
        (row, cell)
        for row, (cell, split) in enumerate(zip(cells, known, strict=True), 1)
        if cell is not None and split is None
    ]
    if wrong:
        raise UserError(
            f"{len(wrong)} rows have an unknown split: {_rows(wrong)}",
            where=str(path),
            choices=_SPLITS,
            hint="an empty cell has its split made",
        )
    return known


def _rows(found: Sequence[tuple[int, str]]) -> str:
    shown = ", ".join(f"row {row} ({cell})" if cell else f"row {row}" for row, cell in found[:_SHOWN])
    return shown + (", …" if len(found) > _SHOWN else "")


def _numbers(rows: Iterable[int]) -> str:
    listed = list(rows)
    return ", ".join(map(str, listed[:_SHOWN])) + (", …" if len(listed) > _SHOWN else "")


@hookimpl
def tlcore_data_sources() -> list[type[DataSource]]:
    return [Manifest]

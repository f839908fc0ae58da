"""Tables of images and what is said of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from tlcore.errors import PluginError
from tlcore.values.base import SOURCE, TARGET, UNLABELLED, Task, Value

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from numpy.typing import NDArray


class Problem(Value):
    """One finding of a data check: how often, and a few examples by name."""

    code: str
    severity: Literal["error", "warning", "info"]
    message: str
    count: int = 1
    examples: tuple[str, ...] = ()
    rows: tuple[str, ...] = Field((), description="sample_ids that cannot be used; the host drops them")


class DataReport(Value):
    """What a data check found, and what is left after unusable rows are gone."""

    problems: tuple[Problem, ...] = ()
    rows: int = 0
    dropped: int = 0
    classes: tuple[str, ...] = ()
    counts: dict[str, dict[str, int]] = Field({}, description='rows per "domain/split" and class')
    images: dict[str, int] = Field(
        {}, description='rows with a label per "domain/split", where counts do not add up to them: tags'
    )
    task: Task = "classification"
    sizes: dict[str, float] = Field({}, description="pixels: min/median/max of width and height")
    modes: dict[str, int] = Field({}, description="images per Pillow mode")

    def source_images(self, split: str) -> int:
        """Images of a split in all source domains together."""
        totals = self.images or {place: sum(found.values()) for place, found in self.counts.items()}
        here = {
            place.rpartition("/")[0]: images
            for place, images in totals.items()
            if place.endswith(f"/{split}")
        }
        return sum(images for domain, images in here.items() if domain != TARGET)


@dataclass(frozen=True)
class Dataset:
    """A table of images with its classes.

    `table` columns: sample_id (str, unique), uri (str, absolute path), label (null: unlabelled),
    split ("train" | "val" | "test" or null), domain (str), sha256 (str, of the file's bytes).

    task "classification": label is a str; `classes` are the sorted class names, the position is the encoded label.
    "regression": label is a Float64; `classes` holds the one name of the number. "multi-label": label is a
    List[str], empty where the image has no tag; `classes` are the sorted tags, the position is the column.
    """

    name: str
    table: pl.DataFrame
    classes: tuple[str, ...]
    task: Task = "classification"

    COLUMNS = ("sample_id", "uri", "label", "split", "domain", "sha256")

    @property
    def fingerprint(self) -> str:
        """Content address: classes and every row (bytes, label, split, domain); paths do not count."""
        import hashlib

        digest = hashlib.sha256("\x1f".join(self.classes).encode())
        if self.task != "classification":
            digest.update(f"\x1e{self.task}\x1e".encode())
        rows = self.table.select("sample_id", "label", "split", "domain", "sha256").sort("sample_id").rows()
        for row in rows:
            digest.update("\x1f".join("" if cell is None else str(cell) for cell in row).encode())
            digest.update(b"\x1e")
        return digest.hexdigest()

    def rows(self, *, split: str | None = None, domain: str | None = None) -> pl.DataFrame:
        """The rows of one split and domain, in table order. SOURCE stands for all source domains together."""
        import polars as pl

        table = self.table
        if split is not None:
            table = table.filter(pl.col("split") == split)
        if domain is not None:
            is_target = pl.col("domain") == TARGET
            table = table.filter(
                is_target
                if domain == TARGET
                else ~is_target
                if domain == SOURCE
                else pl.col("domain") == domain
            )
        return table

    def labelled(self, table: pl.DataFrame | None = None) -> NDArray[np.bool_]:
        """Which rows of `table` (default: all) have a label. An empty list of tags is one, a NaN is none."""
        column = (self.table if table is None else table)["label"]
        known = column.is_not_null()
        if self.task == "regression":
            known &= column.is_not_nan().fill_null(value=False)
        return known.to_numpy()

    def targets(self, table: pl.DataFrame | None = None) -> NDArray[Any]:
        """What a network learns of `table` (default: all rows), in row order.

        Classes: int64 [n], UNLABELLED where there is none. Numbers: float64 [n], NaN where there is none.
        Tags: float32 [n, K] of 0 and 1, a row of NaN where there is none.
        """
        import numpy as np

        if self.task == "classification":
            return np.asarray(self.labels(table), dtype=np.int64)
        column = (self.table if table is None else table)["label"]
        if self.task == "regression":
            return np.array([math.nan if value is None else value for value in column], dtype=np.float64)
        code = {name: index for index, name in enumerate(self.classes)}
        found = np.zeros((len(column), len(self.classes)), dtype=np.float32)
        for row, tags in enumerate(column.to_list()):
            if tags is None:
                found[row] = np.nan
            else:
                found[row, [code[tag] for tag in tags]] = 1
        return found

    def labels(self, table: pl.DataFrame | None = None) -> list[int]:
        """Encoded labels of `table` (default: all rows); UNLABELLED where there is none.

        Raises:
            PluginError: labels are numbers or tags; `targets` has them.
        """
        if self.task != "classification":
            raise PluginError(f"the labels of {self.name} are no classes", hint="ask for Dataset.targets")
        code = {name: index for index, name in enumerate(self.classes)}
        column = (self.table if table is None else table)["label"].to_list()
        return [UNLABELLED if name is None else code[name] for name in column]

    def without_target_labels(self) -> Dataset:
        """The same rows as training may see them: every label of the target domain is null."""
        import polars as pl

        hidden = pl.when(pl.col("domain") == TARGET).then(None).otherwise(pl.col("label")).alias("label")
        return replace(self, table=self.table.with_columns(hidden))

    @property
    def source_domains(self) -> tuple[str, ...]:
        """Names of the labelled domains, sorted; SOURCE where there is one."""
        return tuple(sorted({name for name in self.table["domain"].unique() if name != TARGET}))

    @property
    def has_target(self) -> bool:
        return bool((self.table["domain"] == TARGET).any())

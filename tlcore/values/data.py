"""Tables of images and what is said of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from tlcore.values.base import SOURCE, TARGET, UNLABELLED, Task, Value

if TYPE_CHECKING:
    import polars as pl


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
    sizes: dict[str, float] = Field({}, description="pixels: min/median/max of width and height")
    modes: dict[str, int] = Field({}, description="images per Pillow mode")

    def source_images(self, split: str) -> int:
        """Images of a split in all source domains together."""
        here = {
            place.rpartition("/")[0]: sum(n.values())
            for place, n in self.counts.items()
            if place.endswith(f"/{split}")
        }
        return sum(images for domain, images in here.items() if domain != TARGET)


@dataclass(frozen=True)
class Dataset:
    """A table of images with its classes.

    `table` columns: sample_id (str, unique), uri (str, absolute path), label (str or null),
    split ("train" | "val" | "test" or null), domain (str), sha256 (str, of the file's bytes).
    `classes` are the sorted class names; the position is the encoded label.
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

    def labels(self, table: pl.DataFrame | None = None) -> list[int]:
        """Encoded labels of `table` (default: all rows); UNLABELLED where there is none."""
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

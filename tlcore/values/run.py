"""What a whole run has to say."""

from __future__ import annotations

from pydantic import Field

from tlcore.values.adaptation import Adaptation
from tlcore.values.base import Json, Value
from tlcore.values.data import DataReport
from tlcore.values.evaluation import (
    Calibration,
    Comparison,
    DomainRow,
    LabelErrors,
    Metrics,
    Parity,
    Reliability,
)
from tlcore.values.evaluation_outputs import NumberMetrics, TagMetrics
from tlcore.values.models import Exported
from tlcore.values.search import SearchResult
from tlcore.values.selection import Chosen, Halving, Ranking, Trial


class RunRecord(Value):
    """Everything a run has to say: what the run card shows and `tlcore run --json` prints (a part of)."""

    run_id: str
    name: str
    created: str = Field(description="UTC, ISO 8601")
    data: DataReport
    thumbnails: dict[str, str] = Field({}, description="uri by sample_id, of the images that the card shows")
    ranking: Ranking
    chosen: Chosen
    metrics: Metrics | NumberMetrics | TagMetrics
    baselines: tuple[Comparison, ...]
    trials: tuple[Trial, ...]
    halving: Halving | None = None
    adaptation: Adaptation | None
    parity: Parity
    exported: Exported
    onnx: str
    card: str
    seconds: dict[str, float]
    cached: tuple[str, ...]
    config: dict[str, Json]
    versions: dict[str, str]
    warnings: tuple[str, ...] = ()
    decisions: tuple[str, ...] = Field((), description="what the run decided by itself, for people")
    searches: tuple[SearchResult, ...] = Field((), description="searches over a strategy's options")
    calibration: Calibration | None = Field(None, description="of the trained network, on validation images")
    uncalibrated: Reliability | None = Field(
        None, description="of the test images without the temperature, where the file has one"
    )
    label_errors: LabelErrors | None = None
    domains: tuple[DomainRow, ...] = Field(
        (), description="labelled test images by domain, where there are several"
    )

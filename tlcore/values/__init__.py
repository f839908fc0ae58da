"""The frozen values that cross from one stage to the next.

Small values are pydantic models and travel as JSON. Tables and arrays stay in files of the run
store; what travels for them is a `Ref`. Importing this module costs no torch, no polars, no timm.
"""

from __future__ import annotations

from tlcore.values.adaptation import AccuracyEstimates, Adaptation, Adapted, DomainGap, Point, Scatter
from tlcore.values.base import (
    SOURCE,
    SOURCE_ONLY,
    TARGET,
    UNLABELLED,
    Interval,
    Json,
    Ref,
    Split,
    Task,
    Value,
)
from tlcore.values.data import DataReport, Dataset, Problem
from tlcore.values.evaluation import (
    Calibration,
    ClassRow,
    Comparison,
    DomainRow,
    LabelErrors,
    Metrics,
    Mistake,
    Parity,
    Reliability,
    ReliabilityBin,
    Suspect,
    TopLoss,
)
from tlcore.values.evaluation_outputs import NumberMetrics, NumberMistake, TagMetrics
from tlcore.values.models import Bottleneck, Candidate, Checkpoint, Epoch, Exported, Head, Preprocess
from tlcore.values.run import RunRecord
from tlcore.values.search import SearchResult, SearchTrial, SoupResult
from tlcore.values.selection import Chosen, Halving, Ranked, Ranking, Rung, Trial

__all__ = [
    "SOURCE", "SOURCE_ONLY", "TARGET", "UNLABELLED", "AccuracyEstimates", "Adaptation", "Adapted", "Bottleneck",
    "Calibration", "Candidate", "Checkpoint", "Chosen", "ClassRow", "Comparison", "DataReport", "Dataset", "DomainGap",
    "DomainRow", "Epoch", "Exported", "Halving", "Head", "Interval", "Json", "LabelErrors", "Metrics", "Mistake",
    "NumberMetrics", "NumberMistake", "Parity", "Point", "Preprocess", "Problem", "Ranked", "Ranking", "Ref",
    "Reliability", "ReliabilityBin", "RunRecord", "Rung", "Scatter", "SearchResult", "SearchTrial", "SoupResult", "Split",
    "Suspect", "TagMetrics", "Task", "TopLoss", "Trial", "Value",
]  # fmt: skip

"""RunConfig: the one boundary where text becomes types.

A run file is TOML with the sections below; relative paths in it are relative to the file. Flags of
the command line override it. Unknown keys are refused with the nearest name.
"""

from __future__ import annotations

from tlcore.config.choices import StrategyChoice, data_choice, model_choice
from tlcore.config.parsing import parse_config, parse_listing
from tlcore.config.run_file import load_run_file
from tlcore.config.sections import (
    AdaptConfig,
    ComputeConfig,
    DataConfig,
    EvaluationConfig,
    ExportConfig,
    FinetuneConfig,
    ListingConfig,
    RunConfig,
    SearchConfig,
    SelectionConfig,
)

__all__ = [
    "AdaptConfig", "ComputeConfig", "DataConfig", "EvaluationConfig", "ExportConfig", "FinetuneConfig", "ListingConfig",
    "RunConfig", "SearchConfig", "SelectionConfig", "StrategyChoice", "data_choice", "load_run_file", "model_choice",
    "parse_config", "parse_listing",
]  # fmt: skip

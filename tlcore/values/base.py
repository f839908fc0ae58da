"""What all values have in common."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

SOURCE = "source"
"""Domain of the rows that a run learns from."""
TARGET = "target"
"""Domain of the rows whose labels, where there are any, are used for the final test alone."""
SOURCE_ONLY = "source-only"
"""The chosen model before it was adapted to the target."""
UNLABELLED = -1
"""Encoded label of a row without one."""

Split = Literal["train", "val", "test"]
Task = Literal["classification", "regression", "multi-label"]
"""What a label is: one class of several; a number; any number of tags."""
Json = Any


class Value(BaseModel):
    """Base of all JSON values: frozen, and unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=False)


class Ref(Value):
    """A finished stage result in the run store.

    `path` is relative to the store, so that a store can be moved; `key` is the content-address of
    everything that went into the stage.
    """

    stage: str
    key: str
    path: str


class Interval(Value):
    """A two-sided interval, inclusive."""

    low: float
    high: float

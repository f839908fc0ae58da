"""The stages of a run: plain functions from refs to values, without Prefect, so that they are tested bare.

A stage is described by a `StageJob`, which is JSON; `run_stage` looks its key up in the store and does
the work only when nobody did it before.
"""

from tlcore.stages.base import Progress, StageContext, StageJob, StageResult, job_key, no_progress, run_stage

__all__ = ["Progress", "StageContext", "StageJob", "StageResult", "job_key", "no_progress", "run_stage"]

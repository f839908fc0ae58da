"""Stages for tests of the task: they count their calls and fail on request."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

from tlcore.errors import GateError, RetryableError, UserError
from tlcore.registry import Registry
from tlcore.stages.base import Progress, StageContext, StageJob
from tlcore.store import Store, Work, content_key
from tlcore.values import Value

STAGES = {
    "load": "tests.flows.tiny_stages:load",
    "square": "tests.flows.tiny_stages:square",
    "total": "tests.flows.tiny_stages:total",
    "named": "tests.flows.tiny_stages:named",
    "fails": "tests.flows.tiny_stages:fails",
    "sleeps": "tests.flows.tiny_stages:sleeps",
}

CALLS: Counter[str] = Counter()
"""How often each body ran, by the job's label."""


class Number(Value):
    number: int
    text: str = ""


def load(
    store: Store, registry: Registry, job: StageJob, progress: Progress
) -> tuple[str, Callable[[Work], None]]:
    CALLS[job.label] += 1
    number = int(job.options["number"])
    return content_key({"number": number}), lambda work: work.write(Number(number=number))


def square(context: StageContext) -> Number:
    CALLS[context.job.label] += 1
    number = context.read("number", Number).number
    for step in range(3):
        context.progress(step + 1, 3, f"step {step + 1}")
    return Number(number=number * number)


def total(context: StageContext) -> Number:
    CALLS[context.job.label] += 1
    return Number(number=sum(context.store.read(ref, Number).number for ref in context.refs("numbers")))


def named(context: StageContext) -> Number:
    CALLS[context.job.label] += 1
    return Number(number=0, text=context.job.strategies["scorer"].name)


def fails(context: StageContext) -> Number:
    """Fails as `options` say, for the first `times` calls."""
    CALLS[context.job.label] += 1
    if CALLS[context.job.label] <= context.option("times"):
        raise {
            "user": UserError("the input is wrong", where="here", hint="mend it", choices=("a", "b")),
            "retryable": RetryableError("the network is gone"),
            "gate": GateError("the proof failed"),
            "bug": ZeroDivisionError("a bug"),
        }[context.option("kind")]
    return Number(number=CALLS[context.job.label])


def sleeps(context: StageContext) -> Number:
    time.sleep(30)
    return Number(number=0)

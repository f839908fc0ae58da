"""Rankings of source models, and the trials of the first among them."""

from __future__ import annotations

from pydantic import Field

from tlcore.values.base import Interval, Json, Value
from tlcore.values.models import Epoch


class Ranked(Value):
    """One candidate's place. Equal `rank` means that the scores cannot tell them apart."""

    candidate: str
    rank: int | None = Field(description="1 is best; None when skipped or failed")
    scores: dict[str, float] = {}
    spread: dict[str, Interval] = Field({}, description="95 % interval over images, per scorer")
    draws: dict[str, tuple[float | None, ...]] = Field(
        {},
        description="the score on each subset of the images, per scorer; the same subsets for all candidates",
    )
    draw_scale: dict[str, float] = Field(
        {},
        description="from the deviations of `draws` to those over new images of the same number, per scorer",
    )
    panel: float | None = Field(
        None, description="mean over the scorers of rank / (candidates + 1); lower is better"
    )
    rank_interval: Interval | None = Field(None, description="95 % interval of the rank over images")
    tied_with_best: bool = Field(False, description="the images cannot tell it from the best one")
    notes: tuple[str, ...] = ()
    params: int | None = None
    gmacs: float | None = None
    prior: float | None = None
    prior_rank: int | None = Field(
        None, description="place by the static prior alone: a baseline, never mixed in"
    )
    images_per_second: float | None = None
    engine: str = Field(
        "", description='that computed the features; several, where shards took different ones: "bf16+folded"'
    )
    latency_ms: float | None = Field(None, description="one image by onnxruntime, where it was measured")
    onnx_bytes: int | None = Field(None, description="estimated size of the exported file")
    licence: str = "unknown"
    achieved: float | None = Field(
        None, description="after fine-tuning, where it was measured: see Ranking.achieved_measure"
    )
    skipped: str | None = None


class Ranking(Value):
    """Candidates from best to worst, the skipped ones last."""

    entries: tuple[Ranked, ...]
    scorers: tuple[str, ...]
    images: int
    shortlist: tuple[str, ...] = Field((), description="best first: those that cannot be told from the best")
    prior: str = Field("", description='what the static prior is: "ImageNet top-1 from FILE", "parameters"')
    achieved_measure: str = Field(
        "", description='what `achieved` of the entries is: "test accuracy after lp-ft"; empty without any'
    )

    @property
    def best(self) -> str:
        return next(entry.candidate for entry in self.entries if entry.rank is not None)


class Trial(Value):
    """One trained network that could have been chosen. `measures` are on validation data."""

    candidate: str
    strategy: str
    validation: float = Field(description="the number that choices are made by: accuracy, R^2 or mean AP")
    test: float | None = Field(None, description="the same on test images; shown, never chosen by")
    test_ci: Interval | None = None
    seconds: float = 0.0
    history: tuple[Epoch, ...] = ()
    validation_ci: Interval | None = None
    validated_on: str = Field("", description='"5-fold cross-validation, 50 images", "held-out, 120 images"')
    notes: tuple[str, ...] = Field((), description="what training decided by itself")
    options: dict[str, Json] = Field({}, description="of the strategy, those that differ from its defaults")
    kept_start: str = Field(
        "",
        description='where no epoch was better than the start: what that is, "the linear probe" or "its start"',
    )


class Rung(Value):
    """One short fine-tune of the trial that decides between candidates which scores cannot tell apart.

    `seconds` is what the training took when it was computed, also where it came from the store this time.
    """

    candidate: str
    rung: int = Field(ge=1, description="1 is the shortest")
    epochs: int = Field(ge=1)
    validation: float | None = Field(None, description="as in Trial; None where the training failed")
    validation_ci: Interval | None = None
    images: int | None = Field(None, description="validation images; None: unknown")
    loss: float | None = Field(None, description="validation loss")
    seconds: float = 0.0
    survived: bool = Field(False, description="it went on to the next rung, or was chosen")
    failed: str | None = None


class Halving(Value):
    """A trial by successive halving: what was tried, what survived, and why it ended."""

    strategy: str
    budget_seconds: float
    shortlist: tuple[str, ...] = Field(description="in the order of the ranking")
    rungs: tuple[Rung, ...] = Field(description="in the order of trying")
    winner: str
    reason: str = Field(description="why it ended there")

    @property
    def seconds(self) -> float:
        """What the short fine-tunes took together."""
        return sum(rung.seconds for rung in self.rungs)


class Chosen(Value):
    """strategy: of the result, "lp-ft+dann" where it was adapted. options, kept_start: as in Trial; nothing was kept
    of a start that was adapted afterwards."""

    candidate: str
    strategy: str
    options: dict[str, Json] = {}
    kept_start: str = ""

    def made_by(self, trial: Trial) -> bool:
        """Whether this trial made the result, or what was adapted to it."""
        name = self.strategy.partition("+")[0]
        return (trial.candidate, trial.strategy, trial.options) == (self.candidate, name, self.options)

"""What a search over a strategy's options tried and found."""

from __future__ import annotations

from pydantic import Field

from tlcore.values.base import Json, Value


class SearchTrial(Value):
    """One training of a search. Trial 0 has the options that were configured.

    `seconds` is what the training took when it was computed, in all the processes that worked on it.
    """

    number: int = Field(ge=0)
    options: dict[str, Json] = Field({}, description="the options that the search varies")
    validation: float | None = Field(
        None,
        description="the number that choices are made by, larger is better; of a pruned one the best so far",
    )
    loss: float | None = Field(None, description="validation loss, which decides between equals")
    seconds: float = 0.0
    epochs: int = Field(0, ge=0, description="looks at the network")
    pruned: bool = Field(False, description="ended early: worse than the median of the trials before it")
    failed: str | None = None
    curve: tuple[float, ...] = Field((), description="validation by epoch")

    @property
    def finished(self) -> bool:
        """Whether it may be chosen."""
        return self.validation is not None and not self.pruned and self.failed is None


class SoupResult(Value):
    """A greedy soup of the weights of trials, beside the best single one.

    `validation` and `single` are measured in the same way on the same images. `kept`: the soup is the result.
    """

    members: tuple[int, ...] = Field(description="numbers of the trials, in the order of adding")
    offered: tuple[int, ...] = Field(description="numbers of the trials that were looked at, best first")
    validation: float
    single: float
    kept: bool


class SearchResult(Value):
    """A search over the options of one strategy on one candidate."""

    candidate: str
    strategy: str
    space: dict[str, str] = Field({}, description='searched options: "lr": "1e-06 to 0.1, log"')
    trials: tuple[SearchTrial, ...] = Field((), description="in the order of trying")
    best: int = Field(0, description="number of the best trial")
    wanted: int = Field(0, description="trials that were asked for")
    budget: float | None = Field(None, description="seconds")
    reason: str = Field("", description="why it ended")
    soup: SoupResult | None = None

    @property
    def seconds(self) -> float:
        """What the trials took together."""
        return sum(trial.seconds for trial in self.trials)

"""Limits on cost and licence in the rank flow: who is removed, before which work, and what is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.stages.conftest import write_images, write_zoo
from tlcore.config import parse_config
from tlcore.errors import UserError
from tlcore.values import Ranking

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_server")]


@pytest.fixture
def places(tmp_path: Path) -> dict[str, Any]:
    photos, zoo = write_images(tmp_path / "photos", 8, seed=0), write_zoo(tmp_path / "zoo")
    return {"data": {"source": str(photos)}, "models": [f"local:{zoo}"], "threads": 1}


def ranked(places: dict[str, Any], store: Path, **selection: Any) -> Ranking:
    from tlcore_flows.rank import rank

    config = parse_config({**places, "selection": {"replicates": 0, **selection}})
    return Ranking.model_validate(rank(config, store=str(store)))


def test_a_model_over_a_limit_is_shown_with_the_reason_and_the_other_is_ranked(
    places: dict[str, Any], store: Path
) -> None:
    ranking = ranked(places, store, max_params=0.37)
    first, last = ranking.entries
    assert (first.candidate, first.rank) == ("test_efficientnet", 1)
    assert last.candidate == "test_resnet" and "over the limit of 0.37 M" in (last.skipped or "")
    assert last.params and last.gmacs and last.onnx_bytes and first.onnx_bytes
    worked_on = {path.name for path in (store / "stages").iterdir()}
    assert "features" in worked_on and len(list((store / "stages" / "features").iterdir())) == 1


def test_where_all_are_removed_nothing_is_decoded_and_each_reason_is_named(
    places: dict[str, Any], store: Path
) -> None:
    with pytest.raises(UserError) as caught:
        ranked(places, store, max_params=0.001, licences=["MIT"])
    assert "test_resnet" in str(caught.value) and "its licence Apache-2.0 is not among" in str(caught.value)
    assert "--max-params" in caught.value.hint and "licences here: Apache-2.0" in caught.value.hint
    assert {path.name for path in (store / "stages").iterdir()} == {"candidates"}


def test_a_latency_limit_is_measured_for_those_that_passed_the_others(
    places: dict[str, Any], store: Path
) -> None:
    ranking = ranked(places, store, max_params=0.37, max_latency_ms=10_000)
    first, last = ranking.entries
    assert first.latency_ms is not None and first.latency_ms > 0 and last.latency_ms is None
    with pytest.raises(UserError, match=r"ms for one image, over the limit of 0\.0001 ms"):
        ranked(places, store, max_params=0.37, max_latency_ms=0.0001)

"""Which pixels the flows ask for: a ranking never decodes exactly, and a run does so only for what it trains."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.stages.conftest import write_images, write_zoo
from tlcore.config import parse_config
from tlcore.stages.values import PixelFiles

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_server")]


def decoded(store: Path) -> dict[str, set[str]]:
    """Decode rules by purpose of all pixels in the store."""
    found: dict[str, set[str]] = {"exact": set(), "scoring": set()}
    for path in (store / "stages" / "pixels").glob("*/value.json"):
        files = PixelFiles.model_validate_json(path.read_text(encoding="utf-8"))
        found[files.purpose].add(files.rule)
    return found


@pytest.fixture
def configuration(tmp_path: Path) -> dict[str, Any]:
    """Two networks of two input sizes; the shortlist has one place."""
    zoo = write_zoo(tmp_path / "zoo")
    index = json.loads((zoo / "index.json").read_text())
    index["test_efficientnet"]["input_size"] = [3, 40, 40]
    (zoo / "index.json").write_text(json.dumps(index))
    return {
        "data": {"source": str(write_images(tmp_path / "photos", 10, seed=0))},
        "models": [f"local:{zoo}"],
        "selection": {"shortlist": 1, "trial": "none", "replicates": 0, "engine": "eager"},
        "finetune": {"try": ["linear-probe"]},
        "evaluation": {"replicates": 100, "scratch": {"name": "full", "options": {"epochs": 1}}},
    }


def test_a_ranking_decodes_for_scoring_alone_and_a_run_exactly_only_what_it_trains(
    configuration: dict[str, Any], store: Path
) -> None:
    from tlcore_flows.rank import rank
    from tlcore_flows.transfer import transfer

    config = parse_config(configuration)
    rank(config, store=str(store))
    ranked = decoded(store)
    assert ranked["exact"] == set()
    assert len(ranked["scoring"]) == 2
    record = transfer(config, store=str(store))
    side = {"test_resnet": "32x32", "test_efficientnet": "40x40"}[record["chosen"]["candidate"]]
    after = decoded(store)
    assert after["scoring"] == ranked["scoring"]
    assert [rule.split("-")[0] for rule in after["exact"]] == [side]
    assert record["parity"]["passed"]


def test_verify_decodes_exactly_for_every_candidate(configuration: dict[str, Any], store: Path) -> None:
    from tlcore_flows.transfer import transfer

    configuration["selection"] |= {"verify": True, "verify_with": "linear-probe"}
    transfer(parse_config(configuration), store=str(store))
    assert {rule.split("-")[0] for rule in decoded(store)["exact"]} == {"32x32", "40x40"}

"""The flows as Prefect runs them; what they compute is tested in tests/end_to_end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.stages.conftest import write_images, write_zoo
from tlcore.config import parse_config
from tlcore.errors import UserError

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_server")]


@pytest.mark.parametrize("flow_name", ["transfer", "rank"])
def test_not_even_the_error_of_a_flow_is_pickled(flow_name: str, store: Path, prefect_home: Path) -> None:
    from tlcore_flows.rank import rank
    from tlcore_flows.transfer import transfer

    before = set(prefect_home.rglob("*"))
    config = parse_config({"data": {"source": str(store / "nothing")}, "models": ["local:zoo"]})
    with pytest.raises(UserError):
        {"transfer": transfer, "rank": rank}[flow_name](config, store=str(store))
    written = [path for path in set(prefect_home.rglob("*")) - before if path.parent.name == "storage"]
    assert written
    for path in written:
        document = json.loads(path.read_text(encoding="utf-8"))
        assert document["__exc_type__"] == "tlcore.errors.UserError"


def test_what_is_said_of_the_target_is_checked_before_anything_is_decoded(
    tmp_path: Path, store: Path
) -> None:
    from tlcore_flows.rank import rank

    photos, target = (write_images(tmp_path / name, 4, seed=n) for n, name in enumerate(("photos", "target")))
    config = parse_config(
        {
            "data": {"source": str(photos), "target": str(target), "target_classes": ["unicorn"]},
            "models": [f"local:{write_zoo(tmp_path / 'zoo')}"],
        }
    )
    with pytest.raises(UserError, match="shares no class with the source"):
        rank(config, store=str(store))
    assert {path.name for path in (store / "stages").iterdir()} <= {"load", "check", "candidates"}

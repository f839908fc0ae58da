"""The deployments on a real Prefect server: its scheduler is silently dead with some versions of its dependencies."""

from __future__ import annotations

import json
import socket
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deployments import ui
from tlcore.config import load_run_file, parse_config


def _post(url: str, document: dict[str, Any]) -> Any:
    request = urllib.request.Request(
        url, json.dumps(document).encode(), {"Content-Type": "application/json"}, method="POST"
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    home = tmp_path_factory.mktemp("prefect")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = ui.environment(home, port)
    with ui.serve(settings, port, home / "server.log"):
        ui.deploy(settings)
        yield settings["PREFECT_API_URL"]


@pytest.mark.slow
def test_a_cron_deployment_gets_scheduled_runs(api: str) -> None:
    deadline = time.monotonic() + 60
    found: list[dict[str, Any]] = []
    while not found and time.monotonic() < deadline:
        time.sleep(1)
        found = _post(f"{api}/flow_runs/filter", {"deployments": {"name": {"any_": ["nightly"]}}})
    assert {run["state"]["type"] for run in found} == {"SCHEDULED"}
    assert {run["expected_start_time"][11:16] for run in found} == {"03:00"}


@pytest.mark.slow
def test_the_parameter_form_knows_the_options_and_refuses_unknown_ones(api: str) -> None:
    (nightly,) = _post(f"{api}/deployments/filter", {"deployments": {"name": {"any_": ["nightly"]}}})
    schema = nightly["parameter_openapi_schema"]
    assert "selection" in schema["definitions"]["RunConfig"]["properties"]
    config = nightly["parameters"]["config"]
    with pytest.raises(urllib.error.HTTPError) as refused:
        bad = {"parameters": {"config": {**config, "seeed": 1}}}
        _post(f"{api}/deployments/{nightly['id']}/create_flow_run", bad)
    assert refused.value.code == 409


def test_the_run_file_of_the_demo_is_valid() -> None:
    path = Path(ui.ROOT) / "deployments" / "runs" / "demo.toml"
    config = parse_config(load_run_file(path), where=str(path))
    assert config.data.source.name == "digits"
    assert Path(config.data.source.options["path"]).is_absolute()


def test_the_deployed_configuration_is_valid() -> None:
    import yaml

    document = yaml.safe_load((Path(ui.ROOT) / "deployments" / "prefect.yaml").read_text(encoding="utf-8"))
    configs = [entry["parameters"]["config"] for entry in document["deployments"] if "parameters" in entry]
    assert [parse_config(config).name for config in configs] == ["nightly"]

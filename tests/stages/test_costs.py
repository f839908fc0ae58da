"""Cost, prior and latency on their way through the stages."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tlcore.errors import UserError
from tlcore.models.latency import Latency, processor
from tlcore.stages.values import CandidateList
from tlcore.values import Candidate, Ref

from .conftest import Chain, source, write_zoo


def own_zoo(folder: Path) -> Path:
    """Two networks, of which one has a name of its own."""
    write_zoo(folder)
    index = json.loads((folder / "index.json").read_text())
    named = {"mine" if name == "test_resnet" else name: entry for name, entry in index.items()}
    (folder / "index.json").write_text(json.dumps(named))
    return folder


def listed(chain: Chain, zoo: Path, results: Path | None = None) -> tuple[Ref, dict[str, Candidate]]:
    ref = chain(
        "candidates",
        strategies={"model-0": ("model-source", "local", {"spec": str(zoo)})},
        options={"results": str(results) if results else None},
    )
    return ref, {one.name: one for one in chain.store.read(ref, CandidateList).entries}


def test_candidates_say_their_cost_and_the_table_their_prior(chain: Chain, tmp_path: Path) -> None:
    zoo, table = own_zoo(tmp_path / "zoo"), tmp_path / "results.csv"
    table.write_text("model,top1\nmine,41.5\n")
    _, found = listed(chain, zoo, table)
    assert [found[name].prior for name in ("mine", "test_efficientnet")] == [41.5, None]
    for one in found.values():
        assert one.params and one.gmacs and one.onnx_bytes and one.onnx_bytes > 4 * one.params * 0.9


def test_another_content_of_the_table_is_another_address_and_another_place_is_not(
    chain: Chain, tmp_path: Path
) -> None:
    zoo, first, moved = own_zoo(tmp_path / "zoo"), tmp_path / "a.csv", tmp_path / "b.csv"
    for table in (first, moved):
        table.write_text("model,top1\nmine,41.5\n")
    before, _ = listed(chain, zoo, first)
    assert listed(chain, zoo, moved)[0] == before
    first.write_text("model,top1\nmine,42\n")
    assert listed(chain, zoo, first)[0] != before != listed(chain, zoo)[0]


def test_features_and_trainings_are_found_again_whatever_the_prior_is(chain: Chain, tmp_path: Path) -> None:
    zoo, table = own_zoo(tmp_path / "zoo"), tmp_path / "results.csv"
    table.write_text("model,top1\nmine,41.5\n")
    plain, priced = listed(chain, zoo)[1], listed(chain, zoo, table)[1]
    assert plain["mine"] != priced["mine"]
    assert plain["mine"].recipe() == priced["mine"].recipe()
    again = Candidate.model_validate(priced["mine"].recipe())
    assert (again.weights_sha256, again.preprocess) == (
        plain["mine"].weights_sha256, plain["mine"].preprocess,
    )  # fmt: skip


def test_a_broken_table_ends_the_listing(chain: Chain, tmp_path: Path) -> None:
    table = tmp_path / "results.csv"
    table.write_text("name,accuracy\nmine,41.5\n")
    with pytest.raises(UserError, match=r"no column model and no column top1"):
        listed(chain, write_zoo(tmp_path / "zoo"), table)


def test_where_no_model_can_take_part_equal_reasons_are_said_once(chain: Chain, tmp_path: Path) -> None:
    zoo = write_zoo(tmp_path / "zoo", ("test_resnet",))
    entry = json.loads((zoo / "index.json").read_text())["test_resnet"]
    index = {f"m{number}": {**entry, "modality": "audio"} for number in range(40)}
    (zoo / "index.json").write_text(json.dumps(index))
    with pytest.raises(UserError) as caught:
        listed(chain, zoo)
    assert "m0, m1, m2, m3, m4 and 35 more: made for audio" in caught.value.what
    assert caught.value.what.count("made for audio") == 1


@pytest.mark.slow
def test_latency_is_measured_once_on_a_machine_and_needs_no_weights(chain: Chain, tmp_path: Path) -> None:
    zoo = write_zoo(tmp_path / "zoo", ("test_resnet",))
    one = listed(chain, zoo)[1]["test_resnet"]
    (zoo / "test_resnet.safetensors").unlink()

    def measure(machine: str) -> bool:
        options = {"candidate": one.recipe(), "threads": 1, "processor": machine}
        ref = chain("latency", one.name, options=options, strategies={"source": source(one)})
        found = chain.store.read(ref, Latency)
        assert (
            found.milliseconds > 0 and found.threads == 1 and found.file_bytes > 4 * (one.params or 0) * 0.9
        )
        return chain.done[f"latency-{one.name}"].cached

    assert [measure(processor()), measure(processor()), measure("another")] == [False, True, False]

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax as scipy_log_softmax

from tests.plugins.clip_problems import problem_of
from tlcore.errors import PluginError, UnknownName, UserError
from tlcore.protocols import TrainTask
from tlcore.registry import Registry
from tlcore.training.text_tuner import TEMPLATES, in_shot_parts, log_softmax, prompts_of, text_classifier
from tlcore_tuners.zero_shot import ZeroShot

REGISTRY = Registry.discover(block=())


def test_every_template_takes_every_name_and_underscores_are_spaces() -> None:
    found = prompts_of(("golden_retriever", "owl"), ("a photo of a {}.", "{} {}"))
    assert found == (
        ("a photo of a golden retriever.", "golden retriever golden retriever"), ("a photo of a owl.", "owl owl")
    )  # fmt: skip


def test_descriptions_stand_in_the_place_of_the_templates_of_their_class_alone() -> None:
    found = prompts_of(("a", "b"), TEMPLATES, {"b": ("a {} with wings", "it flies")})
    assert found[1] == ("a b with wings", "it flies") and len(found[0]) == len(TEMPLATES)


def test_braces_in_a_class_name_are_left_alone() -> None:
    assert prompts_of(("{0}{}x",), ("a {}",)) == (("a {0}{}x",),)


def test_a_description_of_no_class_offers_the_nearest() -> None:
    with pytest.raises(UnknownName, match='did you mean "owl"'):
        prompts_of(("cat", "owl"), TEMPLATES, {"owll": ("wings",)})


@pytest.mark.parametrize("texts", [(), ("  ",)])
def test_an_empty_description_is_refused(texts: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match="empty description"):
        prompts_of(("owl",), TEMPLATES, {"owl": texts})


def test_a_template_without_a_place_for_the_name_is_refused() -> None:
    with pytest.raises(UserError, match='no "{}" in the place'):
        REGISTRY.build("tuner", "zero-shot", {"templates": ["a photo"]})


@pytest.mark.parametrize("suffix", ["json", "toml"])
def test_descriptions_come_from_a_file_and_its_text_is_what_a_result_depends_on(
    tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"texts.{suffix}"
    table = {"owl": ["wings", "big eyes"], "cat": "whiskers"}
    lines = [f"{name} = {json.dumps(texts)}" for name, texts in table.items()]
    path.write_text(json.dumps(table) if suffix == "json" else "\n".join(lines))
    options = {"descriptions": str(path)}
    before = REGISTRY.identity("tuner", "zero-shot", options)
    assert before["options"]["descriptions"] == {"owl": ["wings", "big eyes"], "cat": ["whiskers"]}
    path.write_text(path.read_text().replace("wings", "feathers"))
    assert REGISTRY.identity("tuner", "zero-shot", options) != before
    path.write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        REGISTRY.build("tuner", "zero-shot", options)


def test_a_table_that_is_none_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('["owl"]')
    for given_ in (str(tmp_path / "x.json"), 3, {"owl": 3}):
        with pytest.raises(UserError, match="descriptions"):
            REGISTRY.build("tuner", "zero-shot", {"descriptions": given_})


def test_labels_that_are_no_classes_are_refused_when_the_plan_is_made() -> None:
    with pytest.raises(UserError, match="regression"):
        ZeroShot().plan(TrainTask(("y",), 6, 10, task="regression"))


def test_a_model_without_text_is_refused() -> None:
    bare = dataclasses.replace(problem_of([0, 1, 2]), text=None)
    with pytest.raises(UserError, match="no text tower"):
        text_classifier(bare, prompts_of(bare.classes, TEMPLATES), 100)


@pytest.mark.parametrize("found", [np.zeros((21, 5)), np.full((21, 6), np.nan), np.zeros(6)])
def test_a_text_tower_that_answers_wrongly_is_told(found: np.ndarray) -> None:
    wrong = dataclasses.replace(problem_of([0, 1, 2]), text=lambda texts: found)
    with pytest.raises(PluginError, match="text tower gave"):
        text_classifier(wrong, prompts_of(wrong.classes, TEMPLATES), 100)


def test_texts_that_cancel_are_told_by_class() -> None:
    rows = np.array([[1.0, 0, 0, 0, 0, 0], [-1.0, 0, 0, 0, 0, 0]])
    silent = dataclasses.replace(problem_of([0]), classes=("cat",), text=lambda texts: rows)
    with pytest.raises(UserError, match='"cat" cancel'):
        text_classifier(silent, (("a", "b"),), 100)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=30), st.integers(2, 6), st.integers(0, 9))
def test_held_out_parts_are_disjoint_and_leave_every_class_an_image(
    labels: list[int], folds: int, seed: int
) -> None:
    found = np.array(labels)
    parts = in_shot_parts(found, folds, seed)
    several = [row for row, label in enumerate(labels) if labels.count(label) > 1]
    assert sorted(row for _, held in parts for row in held) == (several if parts else [])
    assert bool(parts) == bool(several)
    for train, held in parts:
        assert not set(train) & set(held) and len(train) + len(held) == len(labels)
        assert set(found[train]) == set(labels)


def test_log_softmax_is_scipys() -> None:
    rows = np.random.default_rng(0).normal(0, 300, (3, 4, 5))
    np.testing.assert_allclose(log_softmax(rows), scipy_log_softmax(rows, axis=-1))

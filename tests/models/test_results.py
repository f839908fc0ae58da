from __future__ import annotations

from pathlib import Path

import pytest

from tlcore.errors import UserError
from tlcore.models.results import read_results, with_priors
from tlcore.values import Candidate, Preprocess

TIMM = """model,img_size,top1,top1_err,top5,top5_err,param_count,crop_pct,interpolation
resnet50.a1_in1k,288,81.216,18.784,95.342,4.658,25.56,1.000,bicubic
resnet50.a1_in1k,224,80.386,19.614,94.602,5.398,25.56,0.950,bicubic
resnet50.tv_in1k,224,76.128,23.872,92.858,7.142,25.56,0.875,bilinear
resnet18.a1_in1k,288,73.158,26.842,91.026,8.974,11.69,1.000,bicubic
"""


def table(folder: Path, text: str) -> Path:
    path = folder / "results.csv"
    path.write_text(text, encoding="utf-8")
    return path


def candidate(name: str, side: int = 224, **fields: object) -> Candidate:
    how = Preprocess(height=side, width=side)
    source = {"name": "timm", "options": {"spec": name}}
    return Candidate(name=name, source=source, architecture=name.split(".")[0], preprocess=how).model_copy(
        update=fields
    )


def priors(path: Path, *candidates: Candidate) -> list[float | None]:
    return [one.prior for one in with_priors(candidates, read_results(path))]


def test_names_with_tags_are_matched_and_the_row_of_the_input_size_counts(tmp_path: Path) -> None:
    path = table(tmp_path, TIMM)
    assert priors(path, candidate("resnet50.a1_in1k"), candidate("resnet50.a1_in1k", 288)) == [80.386, 81.216]
    assert priors(path, candidate("resnet50.tv_in1k"), candidate("resnet18.a1_in1k", 224)) == [76.128, 73.158]


def test_a_name_without_a_tag_stands_for_timms_default_weights_on_either_side(tmp_path: Path) -> None:
    path = table(tmp_path, TIMM)
    assert priors(path, candidate("resnet18"), candidate("resnet18.tv_in1k")) == [73.158, None]
    bare = table(tmp_path, "model,top1\nresnet18,71.5\n")
    assert priors(bare, candidate("resnet18.a1_in1k"), candidate("resnet18"), candidate("resnet18.tv_in1k")) == [
        71.5, 71.5, None,
    ]  # fmt: skip


def test_other_weights_of_a_listed_architecture_are_not_given_its_accuracy(tmp_path: Path) -> None:
    path = table(tmp_path, TIMM)
    mine = candidate("my_best", architecture="resnet18")
    assert priors(path, candidate("resnet18.birds"), mine, candidate("resnet18#2")) == [None] * 3


def test_local_weights_under_a_name_of_timm_are_not_given_its_accuracy(tmp_path: Path) -> None:
    local = {"name": "local", "options": {"spec": "zoo"}}
    path = table(tmp_path, TIMM + "resnet18,,70.0\nmy_best,,55.5\n")
    names = ("resnet18.a1_in1k", "resnet18", "resnet50", "my_best")
    found = priors(path, *(candidate(name, source=local, architecture="resnet18") for name in names))
    assert found == [None, None, None, 55.5]
    assert priors(path, candidate("resnet18", source=local, prior=12.0)) == [12.0]


def test_what_a_source_knows_itself_stays_where_the_table_has_no_name(tmp_path: Path) -> None:
    path = table(tmp_path, TIMM)
    assert priors(path, candidate("mine", prior=70.0), candidate("resnet18.a1_in1k", prior=1.0)) == [
        70.0,
        73.158,
    ]


def test_columns_may_stand_in_any_order_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = table(tmp_path, "\ufefftop1, model\n71.5,resnet18.a1_in1k\n")
    assert priors(path, candidate("resnet18.a1_in1k")) == [71.5]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name,top1\nresnet18,70\n", r"no column model"),
        ("model,accuracy\nresnet18,70\n", r"no column top1"),
        ("", r"no column model and no column top1"),
        ("model,top1\n", r"no rows"),
        ("model,top1\nresnet18,70\nresnet50,good\n", r'line 3: top1 "good" is no accuracy'),
        ("model,top1\nresnet18,0x1p3\n", r"is no accuracy"),
        ("model,top1\nresnet18,nan\n", r"is no accuracy"),
        ("model,top1\nresnet18,7000\n", r"is no accuracy"),
        ("model,top1\nresnet18\n", r'line 2: top1 "" is no accuracy'),
        ("model,top1\n,70\n", r"line 2: no model name"),
        ("model,top1,img_size\nresnet18,70,big\n", r'img_size "big"'),
        ('model,top1\n"resnet18,70\n', r"cannot be read"),
    ],
)
def test_a_broken_table_is_an_error_that_names_the_line_and_the_format(
    tmp_path: Path, text: str, said: str
) -> None:
    with pytest.raises(UserError, match=said) as caught:
        read_results(table(tmp_path, text))
    assert "results.csv" in caught.value.where and "results-imagenet.csv" in caught.value.hint


def test_a_table_that_is_not_there_or_not_text_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such result table"):
        read_results(tmp_path / "gone.csv")
    path = tmp_path / "image.csv"
    path.write_bytes(b"\x89PNG\xff\xfe\x00model,top1\n")
    with pytest.raises(UserError, match="cannot be read"):
        read_results(path)

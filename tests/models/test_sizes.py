from __future__ import annotations

import random
from importlib import resources

import pytest
import timm

from tlcore.models.cost import measured_size
from tlcore.models.sizes import Size, read_table, size_in_table, table_text, timm_version_of_table


def test_the_table_holds_every_pretrained_architecture_of_the_timm_it_was_made_with() -> None:
    if timm.__version__ != timm_version_of_table():
        pytest.skip(f"made with timm {timm_version_of_table()}, installed is {timm.__version__}")
    listed = {name.split(".")[0] for name in timm.list_pretrained()}
    held = {architecture for architecture, _, _ in read_table()}
    missing = listed - held
    assert held <= listed and len(held) > 1000
    # those that take images that tlcore cannot prepare
    assert all(name.startswith(("deepseek_vit_412m", "volo_d")) for name in missing), missing


SAMPLE = random.Random(0).sample(sorted(read_table()), 20)


@pytest.mark.parametrize(
    "place",
    [*SAMPLE[:2], *(pytest.param(place, marks=pytest.mark.slow) for place in SAMPLE[2:])],
    ids=lambda place: f"{place[0]}-{place[1]}",
)
def test_a_row_is_what_measuring_gives_again(place: tuple[str, int, int]) -> None:
    if not timm.is_model(place[0]):
        pytest.skip(f"timm {timm.__version__} has no {place[0]}")
    row, measured = read_table()[place], measured_size(*place)
    assert row.params == measured.params and row.onnx_bytes == measured.onnx_bytes
    assert row.gmacs == pytest.approx(measured.gmacs, rel=1e-5)


def test_a_place_is_an_architecture_and_its_input_size() -> None:
    small, large = size_in_table("efficientnet_b0", 224, 224), size_in_table("resnet50", 224, 224)
    assert small is not None and large is not None and small.params < large.params
    assert size_in_table("efficientnet_b0", 223, 224) is None
    assert size_in_table("mobilenetv1_999", 224, 224) is None


def test_the_table_is_small_and_lies_in_the_package() -> None:
    assert len(resources.files("tlcore.models").joinpath("timm_sizes.csv").read_bytes()) < 250_000


def test_text_is_sorted_and_says_its_version_and_an_unknown_is_empty() -> None:
    text = table_text({("b", 8, 9): Size(5, None, None), ("a", 8, 9): Size(7, 1 / 3, 30)}, timm_version="1.2")
    assert text.splitlines() == [
        "# made by python -m benchmarks.timm_sizes with timm 1.2",
        "architecture,height,width,params,gmacs,onnx_bytes",
        "a,8,9,7,0.333333,30",
        "b,8,9,5,,",
    ]

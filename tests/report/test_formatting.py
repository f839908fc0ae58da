from __future__ import annotations

import math
import tomllib

import pytest

from tlcore.report import formatting
from tlcore.values import Interval


def spaced(text: str) -> str:
    return text.replace("\u202f", " ")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (formatting.percent(0.9512), "95.1 %"),
        (formatting.percent(1.0, 2), "100.00 %"),
        (formatting.percent(None), "–"),
        (formatting.percent(math.nan), "–"),
        (formatting.interval(Interval(low=0.92, high=0.974)), "92.0 – 97.4 %"),
        (formatting.interval(None), ""),
        (formatting.signed_points(-0.034), "−3.4"),
        (formatting.signed_points(0.12), "+12.0"),
        (formatting.score(-0.0341), "−0.034"),
        (formatting.score(12345.6), "1.235e+04"),
        (formatting.score(None), "–"),
        (formatting.count(11_689_512), "11,689,512"),
        (formatting.number(11_689_512), "11.7 M"),
        (formatting.number(950), "950"),
        (formatting.number(None), "–"),
        (formatting.rate(1604.2), "1,604"),
        (formatting.rate(7.31), "7.3"),
        (formatting.rate(None), "–"),
        (formatting.scientific(3.4e-6), "3.4 × 10⁻⁶"),
        (formatting.scientific(0), "0"),
        (formatting.seconds(0.012), "12 ms"),
        (formatting.seconds(11.84), "11.8 s"),
        (formatting.seconds(125.2), "2 min 05 s"),
        (formatting.seconds(8000), "2 h 13 min"),
        (formatting.seconds(None), "–"),
        (formatting.size(19_712_334), "19.7 MB"),
        (formatting.size(12), "12 B"),
        (formatting.moment("2026-11-21T09:45:12Z"), "21 November 2026, 09:45 UTC"),
        (formatting.moment("yesterday"), "yesterday"),
    ],
)
def test_numbers_read_as_a_person_writes_them(text: str, expected: str) -> None:
    assert spaced(text) == expected


def test_a_configuration_becomes_toml_that_reads_back_equal() -> None:
    config = {
        "name": 'a "run"',
        "seed": 0,
        "on": True,
        "rate": 1e-3,
        "models": [{"name": "local", "options": {"path": "zoo"}}],
        "data": {"source": "digits", "target": None, "deep": {"er": [1, 2]}},
        "empty": {},
        "odd key": 1,
    }
    expected = {**config, "data": {"source": "digits", "deep": {"er": [1, 2]}}}
    assert tomllib.loads(formatting.toml(config)) == expected
    assert formatting.toml({}) == ""

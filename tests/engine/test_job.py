"""Settings are looked up by name, typed by their field, and decide the fingerprint."""

from dataclasses import dataclass
from typing import Literal

import pytest

from same.engine.job import TrainConfig, coerce, make_config, place_settings
from same.errors import InputError


@dataclass
class Other:
    rank: int = 4
    note: str | None = None


OWNERS = {"train": TrainConfig, "method": Other}


def test_a_setting_goes_to_the_dataclass_that_has_it():
    placed = place_settings({"learning_rate": "1e-3", "rank": "8"}, OWNERS)
    assert placed == {"train": {"learning_rate": 1e-3}, "method": {"rank": 8}}


def test_an_unknown_setting_is_answered_with_the_choices():
    with pytest.raises(InputError, match=r"Unknown setting 'ranke'\. Did you mean 'rank'\?.*learning_rate"):
        place_settings({"ranke": "4"}, OWNERS)


@pytest.mark.parametrize(
    ("value", "annotation", "expected"),
    [
        ("3", int, 3),
        ("1e-3", float, 1e-3),
        (2, float, 2.0),
        ("False", bool, False),
        (True, bool, True),
        ("none", int | None, None),
        ("5", int | None, 5),
        ("bf16", Literal["fp32", "bf16"], "bf16"),
        ("x", str, "x"),
        ("3,4", tuple[int, ...], (3, 4)),
        ([3, 4], tuple[int, ...], (3, 4)),
    ],
)
def test_texts_become_what_the_field_asks_for(value, annotation, expected):
    found = coerce("name", value, annotation)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(("value", "annotation"), [("x", int), ("2.5", int), ("maybe", bool), ("x", Literal["a"])])
def test_a_value_of_another_type_is_named(value, annotation):
    with pytest.raises(InputError, match="some_name"):
        coerce("some_name", value, annotation)


@pytest.mark.parametrize(
    "values", [{"batch_size": 0}, {"learning_rate": -1.0}, {"warmup_ratio": 1.5}, {"learning_rate": float("nan")}]
)
def test_impossible_training_settings_are_refused(values):
    with pytest.raises(InputError, match=next(iter(values))):
        make_config(TrainConfig, values)

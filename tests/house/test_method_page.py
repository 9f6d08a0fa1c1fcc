"""The page on the method names every setting of `same` and `same_plus`, with the defaults that the code has."""

import dataclasses
import re
from pathlib import Path

import pytest

from same.methods.same import Same
from same.methods.same_plus import SamePlus

PAGE = (Path(__file__).parents[2] / "docs" / "method.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| `(\w+)` \| ([^|]+) \| ([^|]+) \| ([^|]+) \| (.+) \|$", re.MULTILINE)
PRESETS = {"paper": Same.Config(), "plus": SamePlus.Config(), "reference": Same.Config(preset="reference")}


@pytest.mark.parametrize("preset", PRESETS)
def test_the_page_lists_the_settings_in_force(preset: str) -> None:
    column = list(PRESETS).index(preset)
    listed = {name: values[column] for name, *values in ROW.findall(PAGE)}
    found = {name: str(value) for name, value in dataclasses.asdict(PRESETS[preset]).items() if name != "preset"}
    assert {name: value for name, value in listed.items() if value != "–"} == found

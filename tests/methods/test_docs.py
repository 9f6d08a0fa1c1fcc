"""docs/methods.md says what is there."""

from pathlib import Path

import pytest

from tests.methods.checks import KINDS, matrix

PAGE = (Path(__file__).parents[2] / "docs" / "methods.md").read_text()


def test_the_page_shows_the_matrix_as_it_is():
    assert matrix() in PAGE, "run python -m tests.methods.checks and put its table into docs/methods.md"


@pytest.mark.parametrize("name", KINDS)
def test_a_method_has_its_row(name):
    assert PAGE.count(f"\n| `{name}` |") == 1

"""What a notebook of this project looks like, checked without running it."""

import ast

import nbformat
import pytest

from tests.notebooks.small import NOTEBOOKS, UNCOMPARED, names, parameters
from workbench.plan import declared_parameters

FIGURE = "figures."


@pytest.mark.parametrize("name", names())
def test_every_parameter_has_a_type_and_says_what_it_is(name: str) -> None:
    declared = declared_parameters(NOTEBOOKS / f"{name}.ipynb")
    assert declared
    assert [key for key, about in declared.items() if about["inferred_type_name"] == "None" or not about["help"]] == []


@pytest.mark.parametrize("name", names())
def test_parameters_come_first_and_functions_stay_small(name: str) -> None:
    cells = [
        cell for cell in nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4).cells if cell.cell_type == "code"
    ]
    assert cells[0].metadata.get("tags") == ["parameters"]
    trees = [ast.parse(cell.source.replace("await ", "")) for cell in cells]
    functions = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    assert [node.name for node in functions if (node.end_lineno or 0) - node.lineno >= 8] == []


@pytest.mark.parametrize("name", names())
def test_figures_are_never_compared_and_leave_no_output(name: str) -> None:
    cells = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4).cells
    drawing = [cell for cell in cells if cell.cell_type == "code" and FIGURE in cell.source]
    assert all(UNCOMPARED in cell.metadata.get("tags", []) and not cell.outputs for cell in drawing)


def test_small_parameters_name_notebooks_that_exist() -> None:
    assert set(parameters(NOTEBOOKS)) <= set(names())

"""Write the outputs that nbval compares into the notebooks again: ``python -m tests.notebooks.refresh [NAME …]``."""

import os
import sys
import tempfile
from pathlib import Path

import nbformat

from tests.notebooks.small import ENVIRONMENT, NOTEBOOKS, UNCOMPARED, names, parameters, prepare
from workbench.execute import execute


def main(chosen: list[str]) -> None:
    """Execute with the small parameters and keep the outputs of compared cells only."""
    os.environ.update(ENVIRONMENT)
    with tempfile.TemporaryDirectory() as place:
        runs = Path(place) / "runs"
        prepare(runs)
        for name in chosen:
            executed = Path(place) / f"{name}.ipynb"
            execute(str(NOTEBOOKS / f"{name}.ipynb"), str(executed), parameters(runs).get(name, {}))
            _write(name, executed)


def _write(name: str, executed: Path) -> None:
    made = {cell.id: cell for cell in nbformat.read(executed, as_version=4).cells}
    path = NOTEBOOKS / f"{name}.ipynb"
    book = nbformat.read(path, as_version=4)
    for count, cell in enumerate((cell for cell in book.cells if cell.cell_type == "code"), start=1):
        compared = UNCOMPARED not in cell.metadata.get("tags", [])
        cell.outputs = [output for output in made[cell.id].outputs if compared and output.get("name") != "stderr"]
        cell.execution_count = count
        for output in cell.outputs:
            if "execution_count" in output:
                output["execution_count"] = count
    nbformat.write(book, path)


if __name__ == "__main__":
    main(sys.argv[1:] or names())

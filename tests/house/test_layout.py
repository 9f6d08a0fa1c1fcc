"""The rules of the house that no linter knows: sizes, docstrings, light imports, no plug-in lists."""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from itertools import chain
from pathlib import Path

import pytest

from same import registry

ROOT = Path(__file__).parents[2]
CODE = sorted(chain.from_iterable((ROOT / part).rglob("*.py") for part in ("same", "workbench")))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
PUBLIC = [path for path in CODE if path.name == "__init__.py" or not path.name.startswith("_")]
LIGHT = ("same", "same.registry", "same.runs", "same.metrics", "workbench.app", "workbench.cli")
PLUGINS = ("same.methods", "same.backbones", "same.scorers", "workbench.views", "workbench.widgets")


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", CODE + TESTS, ids=relative)
def test_no_file_is_longer_than_400_lines(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


@pytest.mark.parametrize("path", PUBLIC, ids=relative)
def test_every_public_module_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("path", CODE + TESTS, ids=relative)
def test_no_catch_all_module_names(path: Path) -> None:
    assert not re.search(r"utils?|helpers?|managers?|misc|common", path.stem)


@pytest.mark.parametrize("module", LIGHT)
def test_light_imports_leave_torch_out(module: str) -> None:
    program = f"import sys, {module}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "False"


def test_the_maths_need_nothing_of_the_model_ecosystem() -> None:
    program = (
        "import sys, importlib, pkgutil\n"
        "absent = ('transformers', 'peft', 'accelerate', 'datasets', 'tokenizers', 'safetensors', 'pandas')\n"
        "sys.modules |= dict.fromkeys(absent)  # as where they are not installed\n"
        "import same.maths\n"
        "names = [found.name for found in pkgutil.iter_modules(same.maths.__path__)]\n"
        "modules = [importlib.import_module('same.maths.' + name) for name in names]\n"
        "print(len(modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 7


@cache
def plugin_names() -> dict[str, set[str]]:
    benchmarks = {path.stem for path in (ROOT / "data_manifests").glob("*.yaml")}
    tasks = set(registry.names("same.data.mini"))  # some bear the name of the rule that scores them
    return {package: set(registry.names(package)) - tasks for package in PLUGINS} | {"data_manifests": benchmarks}


def exported(tree: ast.AST) -> set[ast.expr]:
    """What `__all__` is set to: names of the module's own functions, which may be those of plug-ins elsewhere."""
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Assign)]
    return {node.value for node in found if ast.unparse(node.targets[0]) == "__all__"}


def literals(tree: ast.AST, left_out: set[ast.expr]) -> Iterator[tuple[int, set[str]]]:
    """Line and strings of each list, tuple, set, or dict written out in the source."""
    for node in ast.walk(tree):
        if node in left_out:
            continue
        if isinstance(node, ast.List | ast.Tuple | ast.Set):
            parts: list[ast.expr | None] = list(node.elts)
        elif isinstance(node, ast.Dict):
            parts = list(node.keys)
        else:
            continue
        yield node.lineno, {p.value for p in parts if isinstance(p, ast.Constant) and isinstance(p.value, str)}


@pytest.mark.parametrize("path", CODE, ids=relative)
def test_plugins_are_found_and_never_listed(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    own = relative(path.parent).replace("/", ".") in PLUGINS
    found = [
        f"{relative(path)}:{line} lists {sorted(strings & names)} of {package}"
        for line, strings in literals(tree, set() if own else exported(tree))
        for package, names in plugin_names().items()
        if len(strings & names) > 1
    ]
    assert not found


def test_every_plugin_package_has_plugins() -> None:
    assert all(plugin_names().values()), plugin_names()


@pytest.mark.parametrize("path", CODE + sorted((ROOT / "notebooks").rglob("*.ipynb")), ids=relative)
def test_no_machines_paths(path: Path) -> None:
    assert not re.search(r"(?<![\w.])/(?:home|root|work|Users)/", path.read_text(encoding="utf-8"))


def test_notebooks_hold_calls_and_no_machinery() -> None:
    """No class, no cell longer than 25 lines, one cell of parameters."""
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        cells = [c for c in json.loads(path.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == "code"]
        sources = ["".join(cell["source"]) for cell in cells]
        assert all(len(source.splitlines()) <= 25 for source in sources), path.name
        assert not any(re.search(r"^\s*class ", source, re.M) for source in sources), path.name
        assert sum("parameters" in cell["metadata"].get("tags", []) for cell in cells) == 1, path.name


def test_readme_is_at_most_200_lines() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 200


@pytest.mark.parametrize("name", ["README.md", "NOTICE"])
def test_the_drawings_are_credited(name: str) -> None:
    line = "All emojis designed by OpenMoji - the open-source emoji and icon project. License: CC BY-SA 4.0"
    assert line in (ROOT / name).read_text(encoding="utf-8")

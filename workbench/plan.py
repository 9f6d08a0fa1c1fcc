"""A chain of notebooks, as YAML says it, checked and put in order.

title: what the report is called
jobs: 1                          # notebooks side by side; left out: one for every two cores
parameters: {seed: 0}            # for every notebook that declares them
steps:
  train:
    notebook: 10_train
    matrix: {method: [moelora, same]}    # one step for each combination
    parameters: {train_items: 640}       # for this step; must be declared by its notebook
    makes: mini-coin/{method}/{seed}-*/scores.json   # below the runs folder; absent, or of other runs than the step's
                                     # own (workbench.trained): the step runs again
  drift:
    notebook: 20_router_drift
    needs: [train]
    reads: ["mini-coin/*/*/scores.json"]   # below the runs folder; changed since: the step runs again
    kept: true                       # it also reads the results kept with the project

`matrix: {method: all}` stands for every method that there is.
"""

import ast
import hashlib
import itertools
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any, TypeVar

import nbformat
import papermill
import yaml

import same
from same.errors import InputError
from same.registry import choose, names

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"
if not NOTEBOOKS.is_dir():  # beside the packages in a checkout, inside this one in an installed wheel
    NOTEBOOKS = ROOT / "workbench" / "notebooks"
RUNS = "runs"
T = TypeVar("T")
CHAIN_KEYS = ("title", "jobs", "parameters", "steps")
STEP_KEYS = ("notebook", "matrix", "parameters", "needs", "makes", "reads", "kept")
EVERY = "all"
KINDS: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "str": (str,),
    "bool": (bool,),
    "list": (list,),
    "dict": (dict,),
}
NOT_IN_FILE_NAMES = re.compile(r"[^\w.,=+-]+")


@dataclass(frozen=True)
class Step:
    """One notebook with its parameters.

    Args:
        needs: names of the steps that come before it.
        makes, reads: patterns of paths below the runs folder.
        copy: file name of its executed copy.
        defaults: what the notebook itself gives the parameters that it declares.
        kept: whether it reads the results kept with the project.
        group: what the chain calls it and the others of its matrix.
    """

    name: str
    notebook: Path
    parameters: Mapping[str, Any]
    needs: tuple[str, ...]
    makes: str | None
    copy: str
    reads: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict, repr=False)
    kept: bool = False
    group: str = ""


@dataclass(frozen=True)
class Chain:
    """Steps in an order that respects what each needs."""

    name: str
    title: str
    jobs: int
    steps: tuple[Step, ...] = field(repr=False)

    def fingerprints(self) -> dict[str, str]:
        """What each step's outcome depends on: its notebook, its parameters, what the packages hold, earlier steps."""
        code, kept = content_digest(), _digest(_kept_results())
        found: dict[str, str] = {}
        for step in self.steps:
            parts = [_notebook_code(step.notebook), dict(step.parameters), code, [found[need] for need in step.needs]]
            parts += [kept] if step.kept else []
            found[step.name] = hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]
        return found


def load_chain(name: str, runs: Path) -> Chain:
    """Read a chain by its name, or the path of a YAML file.

    Raises:
        InputError: an unknown chain, key, notebook or parameter, a value of another type, or steps in a circle.
    """
    file = Path(name)
    if file.suffix not in (".yaml", ".yml"):
        known = sorted(path.stem for path in (NOTEBOOKS / "chains").glob("*.yaml"))
        file = NOTEBOOKS / "chains" / f"{choose('chain', name, known)}.yaml"
    if not file.is_file():
        raise InputError(f"A chain file must exist; {file} does not. Give its path, or a name from notebooks/chains.")
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{file} must be YAML in UTF-8; {error}. Mend it there.") from None
    _check_keys(content, CHAIN_KEYS, file)
    if not _entry(content, "steps", dict, file):
        raise InputError(f"{file} must name at least one step under `steps`; got none. Add one with its notebook.")
    steps = _steps(content, file, runs)
    jobs = content.get("jobs", max(1, (os.cpu_count() or 1) // 2))
    if not isinstance(jobs, int) or isinstance(jobs, bool) or jobs < 1:
        raise InputError(f"{file}: jobs must be a whole number of at least 1; got {jobs!r}. Mend it or leave it out.")
    return Chain(file.stem, str(content.get("title", file.stem)), jobs, tuple(_in_order(steps, file)))


def _steps(content: Mapping[str, Any], file: Path, runs: Path) -> list[Step]:
    shared = {**_entry(content, "parameters", dict, file), RUNS: str(runs.resolve())}
    used: set[str] = {RUNS}
    members: dict[str, list[str]] = {}
    steps = []
    for key, about in content["steps"].items():
        place = f"{file}, step {key}"
        _check_keys(about, STEP_KEYS, place)
        notebook = _notebook(str(about.get("notebook", "")), file, place)
        declared = declared_parameters(notebook)
        defaults = {name: ast.literal_eval(str(one["default"])) for name, one in declared.items()}
        used |= shared.keys() & declared.keys()
        members[key] = []
        needs = tuple(_entry(about, "needs", list, place))
        for choice in _combinations(_entry(about, "matrix", dict, place), place):
            own = {**_entry(about, "parameters", dict, place), **choice}
            _check_parameters(own, declared, place)
            given = {name: value for name, value in shared.items() if name in declared} | own
            _check_parameters(given, declared, place)
            suffix = "".join(f"-{NOT_IN_FILE_NAMES.sub('_', _short(value))}" for value in choice.values())
            members[key].append(f"{key}{suffix}")
            copy = f"{notebook.stem}{suffix}.ipynb"
            known = {**defaults, **given}
            reads = [_below(pattern, known, "reads", place) for pattern in _entry(about, "reads", list, place)]
            makes = _below(about["makes"], known, "makes", place) if "makes" in about else None
            step = Step(f"{key}{suffix}", notebook, given, needs, makes, copy, tuple(reads), defaults)
            steps.append(replace(step, kept=_entry(about, "kept", bool, place), group=key))
    unused = sorted(shared.keys() - used)
    if unused:
        raise InputError(
            f"{file}: a parameter for every notebook must be declared by one of them; {unused[0]!r} is by none. "
            "Take it out, or declare it in a cell tagged `parameters`."
        )
    _check_names(steps, file)
    return _with_copies([_with_needs(step, members, file) for step in steps])


def _entry(about: Mapping[str, Any], key: str, kind: type[T], place: object) -> T:
    """What stands under a key, or nothing of that kind where it is left out."""
    value = about.get(key)
    if value is None:
        return kind()
    if not isinstance(value, kind):
        form = {list: "a list ([a, b])", bool: "true or false"}.get(kind, "entries (name: value)")
        raise InputError(f"{place}: {key} must hold {form}; got {value!r}. Write it so, or leave it out.")
    return value


def _below(pattern: Any, given: Mapping[str, Any], key: str, place: str) -> str:
    """A pattern of paths below the runs folder with the step's parameters in it."""
    try:
        path = str(pattern).format_map(given)
    except (KeyError, ValueError, IndexError, AttributeError) as error:
        names = ", ".join(sorted(given)) or "none given"
        raise InputError(
            f"{place}: {key} must be a path in which {{name}} stands for a parameter of the step; got {pattern!r} "
            f"({error}). Parameters: {names}."
        ) from None
    if Path(path).is_absolute() or ".." in Path(path).parts:
        raise InputError(f"{place}: {key} must be a path below the runs folder; got {path!r}. Take its start away.")
    return path


def _short(value: Any) -> str:
    """A value as part of a name: of several settings each with its value."""
    if isinstance(value, Mapping):
        return ",".join(f"{name}={_short(one)}" for name, one in value.items()) or "plain"
    return ",".join(map(_short, value)) if isinstance(value, list) else str(value)


def _check_names(steps: Iterable[Step], file: Path) -> None:
    """Steps are known by their names, so that no two may have the same."""
    count = Counter(step.name for step in steps)
    for name, times in count.items():
        if times > 1:
            raise InputError(f"{file}: each step must have a name of its own; {times} are called {name}. Rename one.")


def _with_copies(steps: list[Step]) -> list[Step]:
    """Name each executed copy after its notebook, and after its step where several steps share a notebook."""
    sharing = Counter(step.copy for step in steps)
    return [step if sharing[step.copy] == 1 else replace(step, copy=f"{step.name}.ipynb") for step in steps]


def _with_needs(step: Step, members: Mapping[str, list[str]], file: Path) -> Step:
    needs = [name for key in step.needs for name in members[choose(f"step in {file}", key, list(members))]]
    return replace(step, needs=tuple(needs))


def _in_order(steps: Iterable[Step], file: Path) -> list[Step]:
    """As the file lists them, but each after what it needs."""
    places = {step.name: (place, step) for place, step in enumerate(steps)}
    order = TopologicalSorter({name: step.needs for name, (_, step) in places.items()})
    try:
        order.prepare()
    except CycleError as error:
        circle = " → ".join(error.args[1])
        raise InputError(f"{file}: no step may need itself; {circle} is a circle. Take one `needs` out.") from None
    ready: list[tuple[int, Step]] = []
    found = []
    while order.is_active():
        ready = sorted([*ready, *(places[name] for name in order.get_ready())], key=lambda entry: entry[0])
        _, step = ready.pop(0)
        found.append(step)
        order.done(step.name)
    return found


def _check_keys(content: Any, keys: tuple[str, ...], place: object) -> None:
    if not isinstance(content, dict):
        raise InputError(f"{place} must hold entries ({', '.join(keys)}); got {content!r}. Mend it in the chain file.")
    for key in content:
        choose(f"entry in {place}:", str(key), keys)


def _combinations(matrix: Mapping[str, Any], place: str) -> list[dict[str, Any]]:
    if matrix.get("method") == EVERY:
        matrix = {**matrix, "method": names("same.methods")}
    for name in matrix:
        if not _entry(matrix, name, list, f"{place}, matrix"):
            raise InputError(f"{place}: matrix must give {name} a value; got none. Add one, or leave it out.")
    return [dict(zip(matrix, values, strict=True)) for values in itertools.product(*matrix.values())]


def _notebook(name: str, file: Path, place: str) -> Path:
    places = [file.parent / f"{name}.ipynb", file.parent.parent / f"{name}.ipynb", NOTEBOOKS / f"{name}.ipynb"]
    found = next((path for path in places if path.is_file()), None)
    if found is None:
        known = sorted(path.stem for path in places[1].parent.glob("*.ipynb"))
        choose(f"notebook ({place})", name, known)
        looked = ", ".join(map(str, places))
        raise InputError(f"{place}: notebook {name!r} must be a file; none of {looked} is. Leave .ipynb out.")
    return found.resolve()


def declared_parameters(notebook: Path) -> dict[str, dict[str, Any]]:
    """The parameters a notebook declares in its cell tagged `parameters`.

    Raises:
        InputError: it has no such cell, or is no notebook.
    """
    try:
        cells = nbformat.read(notebook, as_version=4).cells
    except (ValueError, nbformat.ValidationError) as error:
        raise InputError(f"{notebook} must be a notebook; {error}. Open and save it in JupyterLab.") from None
    if not any("parameters" in cell.metadata.get("tags", []) for cell in cells):
        raise InputError(
            f"{notebook} must have a cell tagged `parameters`; it has none. "
            "Tag the cell that sets them (JupyterLab: Property Inspector, Cell Tags)."
        )
    try:
        return dict(papermill.inspect_notebook(str(notebook)))
    except ValueError as error:
        raise InputError(
            f"{notebook} must name its kernel and language; {error}. Choose a kernel in JupyterLab and save it."
        ) from None


def _check_parameters(given: Mapping[str, Any], declared: Mapping[str, dict[str, Any]], place: str) -> None:
    for name, value in given.items():
        choose(f"parameter ({place})", name, sorted(declared))
        kind = str(declared[name]["inferred_type_name"])
        if kind in KINDS and (not isinstance(value, KINDS[kind]) or (isinstance(value, bool) and kind != "bool")):
            raise InputError(f"{place}: parameter {name} must be of type {kind}; got {value!r}. Mend it in the chain.")


def _notebook_code(notebook: Path) -> list[Any]:
    cells = nbformat.read(notebook, as_version=4).cells
    return [[cell.cell_type, cell.source, cell.metadata.get("tags", [])] for cell in cells]


def content_digest() -> str:
    """Of all code, weights and manifests: other weights or another manifest give other results, as other code does.

    Of the results kept beside the manifests the chosen settings count alone: runs are trained with them. The others
    count for the steps that read them.
    """
    kept = set(_kept_results())
    files = [file for folder in ("same", "workbench", "data_manifests") for file in sorted((ROOT / folder).rglob("*"))]
    return _digest(file for file in files if "__pycache__" not in file.parts and file not in kept)


def _kept_results() -> list[Path]:
    results = ROOT / "data_manifests" / "results"
    return sorted(set(results.glob("*/*.json")) - set(results.glob("*/tuning.json")))


def _digest(files: Iterable[Path]) -> str:
    digest = hashlib.sha256(same.__version__.encode())
    for file in files:
        if file.is_file():
            digest.update(file.relative_to(ROOT).as_posix().encode())
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()

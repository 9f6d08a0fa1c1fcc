"""A grid of training runs, read from a YAML file: benchmarks × methods × seeds, and runs listed one by one.

title: The comparison on mini-CoIN
benchmarks: [mini-coin]
methods: [moelora, same]
seeds: [0, 1, 2]
train_items: 640             # and test_items, tasks, processes, strategy, backbone: as `same train`
settings: {log_every: 20}    # of every run, as --set
per_method:                  # of one method's runs
  same: {damping: 0.3}
runs:                        # further runs; what one leaves out it takes from above
  - {method: same, tag: damping=1, settings: {damping: 1.0}, seeds: [0]}
order: [seed, benchmark, method]   # the slowest first
keep: results                # snapshots of a finished run keep their tables alone
tune: {values: [1.0e-3, 2.0e-3], validation_items: 100}   # learning rates to choose from; keys as of Tune
tuned: mini-coin             # instead of tune: take what was chosen for another grid
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from same import registry
from same.data.manifest import load_benchmark
from same.data.yaml_file import YamlFile
from same.engine.job import Job, Request, resolve
from same.errors import InputError
from same.metrics import NAMES, READINGS

KEEP = ("all", "results")
AXES = ("seed", "benchmark", "method")
TAG_CHARACTERS = "letters, digits and any of . = _ + -"


@dataclass(frozen=True)
class Cell:
    """One run of a grid.

    Args:
        tag: tells it from the method's plain run, in tables and in the name of its results file; "" for that.
        tuning: what was chosen on validation rows, if it was: setting, value and the scores of all values.
    """

    request: Request
    tag: str = ""
    tuning: Mapping[str, Any] | None = None

    @property
    def label(self) -> str:
        """The method, with its tag."""
        return f"{self.request.method}@{self.tag}" if self.tag else self.request.method

    @property
    def name(self) -> str:
        """What people and progress displays call it."""
        return f"{Path(self.request.benchmark).stem}/{self.label}-{self.request.seed}"

    @cached_property
    def job(self) -> Job:
        """The request with every name looked up.

        Raises:
            InputError: a name or a value is wrong; says which run it is.
        """
        try:
            return resolve(self.request)
        except InputError as error:
            raise InputError(f"{self.name}: {error}") from error


@dataclass(frozen=True)
class Tune:
    """How a setting is chosen for each method before the grid's own runs.

    Args:
        values: tried for every method.
        setting: which one.
        benchmark: whose first tasks are trained; by default the grid's first.
        tasks: how many of them.
        validation_items: training rows of each that are kept from training and scored.
        train_items: training rows of each.
        metric, reading: what the choice goes by, the larger the better (ties: the smaller value).
        seed: of these runs.
    """

    values: tuple[float, ...]
    setting: str = "learning_rate"
    benchmark: str = ""
    tasks: int = 3
    validation_items: int = 100
    train_items: int | None = None
    metric: str = "mean"
    reading: str = "strict"
    seed: int = 0


@dataclass(frozen=True)
class Grid:
    """A grid file's content, checked.

    Args:
        tune: what to tune first; None for nothing.
        tuned: the benchmark whose recorded choice its runs take, tuned now or by another grid; "" for none.
    """

    path: Path
    title: str
    cells: tuple[Cell, ...]
    keep: str = "all"
    tune: Tune | None = None
    tuned: str = ""


@dataclass(frozen=True)
class _Run:
    """The keys of a run that is listed by itself."""

    method: str
    tag: str = ""
    seeds: tuple[int, ...] = ()
    benchmarks: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    priority: int = 0


@dataclass(frozen=True)
class _File:
    """The keys of a grid file."""

    benchmarks: tuple[str, ...]
    title: str = ""
    methods: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0,)
    backbone: str = "tiny"
    checkpoint: str = ""
    processes: int = 1
    strategy: str = "ddp"
    train_items: int | None = None
    test_items: int | None = None
    tasks: int | None = None
    data_root: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    per_method: Mapping[str, Any] = field(default_factory=dict)
    runs: tuple[Any, ...] = ()
    order: tuple[str, ...] = AXES
    keep: str = "all"
    tune: Mapping[str, Any] = field(default_factory=dict)
    tuned: str = ""


def load_grid(path: Path, runs: Path) -> Grid:
    """Read a grid file and look up every name in it; nothing is written.

    Args:
        runs: folder the run folders are made in.

    Raises:
        InputError: the file, a key or a value is not as it must be; names it and the choices.
    """
    return _Reader(path).grid(runs)


class _Reader(YamlFile):
    """Turns what YAML gave into a Grid."""

    remedy = "Mend the grid."

    def grid(self, runs: Path) -> Grid:
        given = self.mapping(self.read("a grid"), "the file")
        self.known(given, _File, "the file")
        file = _File(
            title=self.value(given, "title", str, "the file", self.path.stem),
            benchmarks=self._list(given, "benchmarks", str, "the file"),
            methods=self._methods(given, "methods", "the file"),
            seeds=self._list(given, "seeds", int, "the file", (0,)),
            **{
                name: self.value(given, name, str, "the file", default)
                for name, default in {"backbone": "tiny", "checkpoint": "", "strategy": "ddp", "tuned": ""}.items()
            },
            **{name: self.value(given, name, int, "the file", None) for name in ("train_items", "test_items", "tasks")},
            processes=self.value(given, "processes", int, "the file", 1),
            data_root=self.value(given, "data_root", str, "the file", None),
            settings=self.mapping(given.get("settings", {}), "settings"),
            per_method=self._per_method(given),
            runs=tuple(self._list(given, "runs", object, "the file", ())),
            order=self._order(given),
            keep=self.one_of({"keep": "all"} | dict(given), "keep", KEEP, "the file"),
        )
        for name in file.benchmarks:
            load_benchmark(name)
        tune = self._tune(given["tune"], file) if "tune" in given else None
        listed = [self._run(row, f"runs[{index}]") for index, row in enumerate(file.runs)]
        cells = tuple(self._cells(file, listed, runs))
        if not cells:
            raise self.complaint("the file", "have methods or runs", "neither")
        self._distinct(cells)
        tuned = tune.benchmark if tune else file.tuned
        return Grid(self.path, file.title, cells, file.keep, tune, tuned)

    def _list(self, given: Mapping[str, Any], key: str, kind: type, place: str, *default: Any) -> tuple[Any, ...]:
        if key not in given and default:
            return tuple(default[0])
        values = given.get(key)
        if not isinstance(values, list) or not values or not all(_is(value, kind) for value in values):
            name = {str: "texts", int: "whole numbers", float: "numbers"}.get(kind, "entries")
            raise self.complaint(f"{place}.{key}", f"be a list of at least one, all {name}", values)
        if kind is not object and len(set(values)) < len(values):
            raise self.complaint(f"{place}.{key}", "name nothing twice", values)
        return tuple(values)

    def _methods(self, given: Mapping[str, Any], key: str, place: str) -> tuple[str, ...]:
        names = self._list(given, key, str, place, ())
        return tuple(self._method(name, f"{place}.{key}") for name in names)

    def _method(self, name: str, place: str) -> str:
        known = registry.names("same.methods")
        if name not in known:
            raise self.complaint(place, f"name methods, of {', '.join(known)}", name)
        return name

    def _per_method(self, given: Mapping[str, Any]) -> dict[str, Any]:
        found = self.mapping(given.get("per_method", {}), "per_method")
        return {
            self._method(name, "per_method"): self.mapping(row, f"per_method.{name}") for name, row in found.items()
        }

    def _order(self, given: Mapping[str, Any]) -> tuple[str, ...]:
        order = self._list(given, "order", str, "the file", AXES)
        if sorted(order) != sorted(AXES):
            raise self.complaint("order", f"hold each of {', '.join(AXES)} once, the slowest first", list(order))
        return order

    def _run(self, row: Any, place: str) -> _Run:
        given = self.mapping(row, place)
        self.known(given, _Run, place)
        tag = self.value(given, "tag", str, place, "")
        if not all(letter.isalnum() or letter in ".=_+-" for letter in tag):
            raise self.complaint(f"{place}.tag", f"hold {TAG_CHARACTERS}", tag)
        return _Run(
            method=self._method(self.value(given, "method", str, place), f"{place}.method"),
            tag=tag,
            seeds=self._list(given, "seeds", int, place, ()),
            benchmarks=self._list(given, "benchmarks", str, place, ()),
            settings=self.mapping(given.get("settings", {}), f"{place}.settings"),
            priority=self.value(given, "priority", int, place, 0),
        )

    def _tune(self, row: Any, file: _File) -> Tune:
        given = self.mapping(row, "tune")
        self.known(given, Tune, "tune")
        numbers = {
            name: self.value(given, name, int, "tune", getattr(Tune, name))
            for name in ("tasks", "validation_items", "train_items", "seed")
        }
        choices = {"metric": NAMES, "reading": tuple(READINGS), "benchmark": file.benchmarks}
        texts: dict[str, Any] = {
            name: self.one_of({"benchmark": file.benchmarks[0]} | dict(given), name, known, "tune")
            for name, known in choices.items()
            if name in given or name == "benchmark"
        }
        values = self._list(given, "values", float, "tune")
        setting = self.value(given, "setting", str, "tune", Tune.setting)
        return Tune(tuple(map(float, values)), setting, **texts, **numbers)

    def _cells(self, file: _File, listed: list[_Run], runs: Path) -> Iterator[Cell]:
        plain = [_Run(method) for method in file.methods]
        found = [
            (run.priority, index >= len(plain), self._place(file, run, benchmark, seed, index), run, benchmark, seed)
            for index, run in enumerate([*plain, *listed])
            for benchmark in run.benchmarks or file.benchmarks
            for seed in run.seeds or file.seeds
        ]
        for *_, run, benchmark, seed in sorted(found, key=lambda cell: cell[:3]):
            settings = {**file.settings, **file.per_method.get(run.method, {}), **run.settings}
            if file.checkpoint:
                settings["checkpoint"] = file.checkpoint
            same_names = ("processes", "backbone", "train_items", "test_items", "strategy", "data_root", "tasks")
            given = {name: getattr(file, name) for name in same_names}
            try:
                request = Request(benchmark, run.method, seed, runs=str(runs.absolute()), settings=settings, **given)
            except InputError as error:
                raise InputError(f"{self.path}: {error}") from error
            yield Cell(request, run.tag)

    def _place(self, file: _File, run: _Run, benchmark: str, seed: int, index: int) -> tuple[int, ...]:
        seeds, names = run.seeds or file.seeds, run.benchmarks or file.benchmarks
        at = {"seed": seeds.index(seed), "benchmark": names.index(benchmark), "method": index}
        return tuple(at[axis] for axis in file.order)

    def _distinct(self, cells: tuple[Cell, ...]) -> None:
        seen: set[str] = set()
        for cell in cells:
            if cell.name in seen:
                raise self.complaint("runs", "differ from every other by method, tag, benchmark or seed", cell.name)
            seen.add(cell.name)


def _is(value: Any, kind: type) -> bool:
    if kind is float:
        return type(value) in (int, float)
    return type(value) is kind if kind is not object else True

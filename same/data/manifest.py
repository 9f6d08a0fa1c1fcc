"""Benchmark manifests: one YAML file a benchmark, read into frozen dataclasses.

A manifest says which tasks there are, in which order, where their files lie, how they are scored and where the data
come from. Everything else (number of tasks, predecessors, output folders) derives from it. Keys this module does not
know are refused, so that a misspelt key cannot pass unseen.
"""

import dataclasses
import difflib
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from same import registry
from same.data.yaml_file import YamlFile
from same.errors import InputError, ManifestError

BUILDERS = {"mini": "same.data.mini"}
"""Names a manifest may give as `builder`, and the package that draws their items."""

SEEN = ("questions", "pictures", "nothing", "unverified")
"""What a base model can have seen of a task: its questions (with the pictures), its pictures alone, or nothing."""

_PLACES = (Path(__file__).parents[2] / "data_manifests", Path(__file__).parents[1] / "data_manifests")


@dataclass(frozen=True)
class Source:
    """A place the data come from: a package or a public data set.

    Args:
        licence: its terms in a few words; `unverified` where they are not certain.
        credit: the line to print beside anything that shows its pictures; default the name and the licence.
    """

    name: str
    licence: str
    url: str = ""
    credit: str = ""
    note: str = ""


@dataclass(frozen=True)
class Task:
    """One task of a benchmark, in the benchmark's order.

    Args:
        key: short lower-case name; also the name of the folder of its files.
        title: name in tables and figures.
        scorer: stem of a file in `same/scorers`.
        train, test: instruction files, relative to the benchmark's folder; default `<key>/train.json`,
            `<key>/test.json`.
        images: folder the rows' image paths are relative to, itself relative to the benchmark's folder.
        prompt: the instruction its questions carry, for the record; the files hold it in every row.
        max_new_tokens: longest answer to generate.
        train_items, test_items: rows in the files; None where the manifest does not promise a number.
        draws: stem of the builder's file that draws its items; empty where that is the key.
        stream: which of the builder's streams of items it takes, so that two benchmarks can draw from one file.
        references: file of further reference answers, as `same.data.references` reads it; none where left out.
        chance: score of answering the commonest training answer to a question's wording, in [0, 1]; None where not
            known.
        seen_by_base: what of it was in the tuning data of the benchmark's `base_model`: one of `SEEN`; "" where it does
            not apply.
        unverified: names of those of its keys whose values are not certain, or unknown and left out.
        sources: the places its pictures and facts come from.
        shared: which source items train and test share, and why.
        simplified: how the task is easier than the original.
        note: anything else a reader of the table should know.
    """

    key: str
    title: str
    scorer: str
    train: str
    test: str
    images: str = "images"
    prompt: str = ""
    max_new_tokens: int = 16
    train_items: int | None = None
    test_items: int | None = None
    draws: str = ""
    stream: int = 0
    references: str = ""
    chance: float | None = None
    seen_by_base: str = ""
    unverified: tuple[str, ...] = ()
    sources: tuple[Source, ...] = ()
    shared: str = ""
    simplified: str = ""
    note: str = ""

    @property
    def licence(self) -> str:
        """The licences of its sources, each once."""
        return "; ".join(dict.fromkeys(source.licence for source in self.sources))


@dataclass(frozen=True)
class Benchmark:
    """A sequence of tasks.

    Args:
        name: the manifest's file stem.
        builder: a key of `BUILDERS` for benchmarks drawn on this machine; None where the files must be there already.
        seed: seed of the builder.
        base_model: the model whose tuning data `seen_by_base` of the tasks is about.
    """

    name: str
    title: str
    tasks: tuple[Task, ...]
    builder: str | None = None
    seed: int = 0
    base_model: str = ""
    sources: tuple[Source, ...] = ()
    note: str = ""

    def task(self, key: str) -> Task:
        """The task of this key.

        Raises:
            ManifestError: there is none.
        """
        for task in self.tasks:
            if task.key == key:
                return task
        raise ManifestError(
            f"benchmark {self.name} must have the task asked for; got {key!r}. Choose one of: {', '.join(self.keys)}."
        )

    def first(self, count: int | None) -> "Benchmark":
        """The same benchmark with its first tasks only; None for all.

        Raises:
            ManifestError: it has fewer.
        """
        if count is not None and count > len(self.tasks):
            raise ManifestError(
                f"benchmark {self.name} must have as many tasks as asked for; got {count}, it has "
                f"{len(self.tasks)}. Ask for fewer."
            )
        return dataclasses.replace(self, tasks=self.tasks[:count])

    @property
    def keys(self) -> tuple[str, ...]:
        """The tasks' keys, in order."""
        return tuple(task.key for task in self.tasks)

    def reordered(self, order: int) -> "Benchmark":
        """The same tasks in another order of training.

        Args:
            order: 0 for the manifest's; every other number draws a permutation of its own.
        """
        tasks = random.Random(order).sample(self.tasks, len(self.tasks)) if order else self.tasks
        return dataclasses.replace(self, tasks=tuple(tasks))


def benchmark_names() -> list[str]:
    """Names of the benchmarks that have a manifest, sorted."""
    return sorted({path.stem for place in _PLACES for path in place.glob("*.yaml")})


def load_benchmark(name_or_path: str | Path) -> Benchmark:
    """Read a manifest by benchmark name, or by the path of a `.yaml` file.

    Raises:
        InputError: no such benchmark.
        ManifestError: the file is not a manifest; the message names the file and the key.
    """
    path = _find(name_or_path)
    reader = _Reader(path)
    return reader.benchmark(reader.read("a manifest"))


def _find(name_or_path: str | Path) -> Path:
    path = Path(name_or_path)
    if path.suffix in (".yaml", ".yml"):
        if path.is_file():
            return path
        raise InputError(f"a manifest must exist; got {path}. Give the path of a .yaml file.")
    for place in _PLACES:
        if (found := place / f"{name_or_path}.yaml").is_file():
            return found
    names = benchmark_names()
    near = difflib.get_close_matches(str(name_or_path), names, 1)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise InputError(
        f"a benchmark must have a manifest; got {str(name_or_path)!r}.{hint} Choose one of: {', '.join(names)}."
    )


class _Reader(YamlFile):
    """Turns what YAML gave into a Benchmark."""

    error, remedy = ManifestError, "Mend the manifest."

    def benchmark(self, content: Any) -> Benchmark:
        given = self.mapping(content, "the file")
        self.known(given, Benchmark, "the file", but=("name",))
        sources = self._sources(given.get("sources", {}))
        rows = given.get("tasks")
        if not isinstance(rows, list) or not rows:
            raise self.complaint("tasks", "be a list of at least one task", rows)
        builder = given.get("builder")
        if builder is not None and not (isinstance(builder, str) and builder in BUILDERS):
            raise self.complaint("builder", f"be one of {', '.join(BUILDERS)}, or left out", builder)
        tasks = tuple(self._task(row, f"tasks[{index}]", sources) for index, row in enumerate(rows))
        self._distinct([task.key for task in tasks], "tasks", "key")
        if builder is not None and (
            open_ended := [task.key for task in tasks if not (task.train_items and task.test_items)]
        ):
            raise self.complaint("tasks", "have train_items and test_items where there is a builder", open_ended)
        for index, task in enumerate(tasks):
            self._drawable(task, f"tasks[{index}] ({task.key})", builder)
        base_model = self.value(given, "base_model", str, "the file", "")
        if not base_model and any(task.seen_by_base for task in tasks):
            raise self.complaint("the file.base_model", "be given where a task has seen_by_base", "nothing")
        return Benchmark(
            name=self.path.stem,
            base_model=base_model,
            title=self.value(given, "title", str, "the file"),
            tasks=tasks,
            builder=builder,
            seed=self.value(given, "seed", int, "the file", 0),
            sources=tuple(sources.values()),
            note=self.value(given, "note", str, "the file", ""),
        )

    def _sources(self, content: Any) -> dict[str, Source]:
        sources = {}
        for name, row in self.mapping(content, "sources").items():
            place = f"sources.{name}"
            given = self.mapping(row, place)
            self.known(given, Source, place, but=("name",))
            texts = {key: self.value(given, key, str, place, "") for key in ("url", "credit", "note")}
            sources[str(name)] = Source(str(name), self.value(given, "licence", str, place), **texts)
        return sources

    def _task(self, row: Any, place: str, sources: Mapping[str, Source]) -> Task:
        given = self.mapping(row, place)
        self.known(given, Task, place)
        key = self.value(given, "key", str, place)
        place = f"{place} ({key})"
        if not key.replace("_", "").isalnum() or key != key.lower():
            raise self.complaint(f"{place}.key", "be lower-case letters, digits and underscores", key)
        paths = {name: self._inside(given, name, place, default) for name, default in _file_defaults(key).items()}
        task = Task(
            key=key,
            title=self.value(given, "title", str, place),
            scorer=self.one_of(given, "scorer", registry.names("same.scorers"), place),
            max_new_tokens=self.value(given, "max_new_tokens", int, place, 16),
            train_items=self.value(given, "train_items", int, place, None),
            test_items=self.value(given, "test_items", int, place, None),
            draws=self.value(given, "draws", str, place, ""),
            stream=self.value(given, "stream", int, place, 0),
            chance=self.value(given, "chance", float, place, None),
            references=self._inside(given, "references", place, ""),
            seen_by_base=self.one_of(given, "seen_by_base", SEEN, place) if "seen_by_base" in given else "",
            unverified=self._unverified(given, place),
            sources=self._named(given, sources, place),
            **paths,
            **{name: self.value(given, name, str, place, "") for name in ("prompt", "shared", "simplified", "note")},
        )
        for name in ("max_new_tokens", "train_items", "test_items"):
            if (count := getattr(task, name)) is not None and count < 1:
                raise self.complaint(f"{place}.{name}", "be at least 1", count)
        if task.chance is not None and not 0 <= task.chance <= 1:
            raise self.complaint(f"{place}.chance", "lie in [0, 1]", task.chance)
        return task

    def _drawable(self, task: Task, place: str, builder: str | None) -> None:
        if builder is None and (task.draws or task.stream):
            raise self.complaint(
                place, "leave out draws and stream where there is no builder", task.draws or task.stream
            )
        if builder is not None and task.draws and task.draws not in (known := registry.names(BUILDERS[builder])):
            raise self.complaint(f"{place}.draws", f"be one of {', '.join(known)}", task.draws)
        if task.stream < 0:
            raise self.complaint(f"{place}.stream", "be at least 0", task.stream)

    def _named(self, given: Mapping[str, Any], sources: Mapping[str, Source], place: str) -> tuple[Source, ...]:
        names = given.get("sources", [])
        if not isinstance(names, list):
            raise self.complaint(f"{place}.sources", "be a list of names from the manifest's own `sources`", names)
        for name in names:
            if not isinstance(name, str) or name not in sources:
                raise self.complaint(f"{place}.sources", f"name one of {', '.join(sources) or '(none given)'}", name)
        return tuple(sources[name] for name in names)

    def _unverified(self, given: Mapping[str, Any], place: str) -> tuple[str, ...]:
        names, known = given.get("unverified", []), [field.name for field in dataclasses.fields(Task)]
        if not isinstance(names, list):
            raise self.complaint(f"{place}.unverified", "be a list of names of the task's keys", names)
        for name in names:
            if name not in known:
                raise self.complaint(f"{place}.unverified", f"name some of {', '.join(known)}", name)
        return tuple(names)

    def _inside(self, given: Mapping[str, Any], key: str, place: str, default: str) -> str:
        value: str = self.value(given, key, str, place, default)
        if "\0" in value or Path(value).is_absolute() or ".." in Path(value).parts:
            raise self.complaint(f"{place}.{key}", "be a path inside the benchmark's folder", value)
        return value

    def _distinct(self, values: list[str], place: str, key: str) -> None:
        for index, value in enumerate(values):
            if value in values[:index]:
                raise self.complaint(f"{place}[{index}].{key}", "differ from every other", value)


def _file_defaults(key: str) -> dict[str, str]:
    return {"train": f"{key}/train.json", "test": f"{key}/test.json", "images": "images"}

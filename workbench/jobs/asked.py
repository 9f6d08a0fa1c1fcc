"""What a job may be asked, compared with the run before it is queued."""

from dataclasses import dataclass
from typing import Protocol

from same.errors import InputError
from same.registry import choose
from same.runs import RunFolder

ROUTERS = ("own", "random", "uniform", "oracle")
"""What a router may be beside a version."""
MOST_STEPS = 10_000


class Asked(Protocol):
    """A question to a run that only its model can answer."""

    @property
    def title(self) -> str:
        """What is asked, in a few words."""

    @property
    def count(self) -> int:
        """How many results the answer has."""

    def check(self, run: RunFolder) -> None:
        """Compare the question with the run; raises InputError."""

    def command(self, run: RunFolder) -> list[str]:
        """The arguments of the worker's Python; nothing of it passes through a shell."""


@dataclass(frozen=True)
class Rerouting:
    """A question to a run: how a task is answered by experts of some versions under routers of others."""

    task: str
    routers: tuple[str, ...]
    experts: tuple[int, ...]
    retrain_steps: int | None = None
    learning_rate: float | None = None
    items: int | None = None
    seed: int = 0
    layer: str | None = None
    weights: tuple[float, ...] = ()

    @property
    def title(self) -> str:
        """What is asked, in a few words; versions are written 1-based as papers do."""
        routers = ", ".join(str(int(name) + 1) if name.isdecimal() else name for name in self.routers)
        text = f"{self.task}: router {routers}, experts {', '.join(str(index + 1) for index in self.experts)}"
        text += f", {self.retrain_steps} steps" if self.retrain_steps else ""
        return text + (f", {self.layer} by hand" if self.layer else "")

    @property
    def count(self) -> int:
        """Pairs of versions."""
        return len(self.routers) * len(self.experts)

    def check(self, run: RunFolder) -> None:
        """Compare the question with the run.

        Raises:
            InputError: the run has no such task, version or layer, or no adapters any more, or a number is out of
                range; names the choices.
        """
        versions = [str(index) for index in range(run.finished())]
        choose("task", self.task, [task["key"] for task in run.config()["settings"]["tasks"]])
        for name in self.routers:
            choose("version of the router", name, [*versions, *ROUTERS])
        for index in self.experts:
            choose("version of the experts", str(index), versions)
        _require_adapters(run)
        within("retraining steps", self.retrain_steps, 0, MOST_STEPS)
        within("learning rate", self.learning_rate, 1e-8, 10.0)
        within("items", self.items, 1, 10_000_000)
        within("seed", self.seed, 0, 2**31 - 1)
        if not self.routers or not self.experts:
            raise InputError("A version of the router and one of the experts must be chosen; got none. Choose one.")
        if self.layer is not None:
            table = run.snapshot(0).table("routing")
            choose("layer", self.layer, list(dict.fromkeys(table["layer"])))
            count = int(table["expert"].max()) + 1
            if len(self.weights) != count or not all(0 <= weight < float("inf") for weight in self.weights):
                raise InputError(f"weights must be {count} numbers of at least 0; got {self.weights}.")
            if sum(self.weights) <= 0:
                raise InputError("weights must not all be 0. Raise one.")

    def command(self, run: RunFolder) -> list[str]:
        """The arguments of the worker's Python; nothing of it passes through a shell."""
        words = [*_same("reroute", run), f"--task={self.task}", f"--router={','.join(self.routers)}"]
        words += [f"--experts={','.join(map(str, self.experts))}", f"--seed={self.seed}"]
        for name in ("retrain_steps", "learning_rate", "items", "layer"):
            if getattr(self, name) is not None:
                words.append(f"--{name.replace('_', '-')}={getattr(self, name)}")
        return words + ([f"--weights={','.join(map(str, self.weights))}"] if self.layer is not None else [])


@dataclass(frozen=True)
class TokenRouting:
    """A question to a run: where the tokens of one of its test questions go after a stage."""

    after: int
    task: str
    question: str

    @property
    def title(self) -> str:
        """What is asked, in a few words."""
        return f"{self.task}: tokens of question {self.question}, after Task {self.after + 1}"

    @property
    def count(self) -> int:
        """One table."""
        return 1

    def check(self, run: RunFolder) -> None:
        """Compare the question with the run.

        Raises:
            InputError: the run has no experts or no adapters any more, no such stage or task, or did not answer the
                question then.
        """
        choose("stage", str(self.after), [str(index) for index in range(run.finished())])
        choose("task", self.task, [task["key"] for task in run.config()["settings"]["tasks"]])
        if not run.snapshot(self.after).has("routing.parquet"):
            raise InputError(f"{run.path} must be of a method with experts to have a routing. Choose another run.")
        _require_adapters(run)
        if self.question not in set(run.read_predictions(self.after, self.task)["question_id"]):
            raise InputError(f"{self.task} must have the test question {self.question!r} in this run; it has not.")

    def command(self, run: RunFolder) -> list[str]:
        """The arguments of the worker's Python; nothing of it passes through a shell."""
        words = [*_same("route", run), f"--after={self.after}", f"--task={self.task}"]
        return [*words, f"--question={self.question}"]


def _require_adapters(run: RunFolder) -> None:
    if run.snapshot(0).manifest().get("pruned"):
        raise InputError(f"{run.path} must hold its adapters; a sweep kept its tables only. Choose another run.")


def _same(command: str, run: RunFolder) -> list[str]:
    return ["-m", "same.cli", command, "--json", f"--run={run.path.resolve()}"]


def within(name: str, value: float | None, least: float, most: float) -> None:
    """Refuse a number that is out of range."""
    if value is not None and not least <= value <= most:
        raise InputError(f"{name} must be from {least:g} to {most:g}; got {value}.")

"""Which check of the conformance suite applies to which method: told by its class, never by a list of names.

`python -m tests.methods.checks` prints the matrix that docs/methods.md shows.
"""

from collections.abc import Callable
from dataclasses import dataclass

from same import registry
from same.methods._base import Method
from same.methods._memory import MemoryMethod
from same.methods._slots import SlotMethod

KINDS = {name: registry.load_class("same.methods", name, Method) for name in registry.names("same.methods")}


def overrides(*moments: str) -> Callable[[type[Method]], bool]:
    """Whether a class does anything at one of these moments."""
    return lambda kind: any(getattr(kind, name) is not getattr(Method, name) for name in moments)


@dataclass(frozen=True)
class Check:
    """A trap, and the methods that can fall into it."""

    title: str
    applies: Callable[[type[Method]], bool]


def _trains(kind: type[Method]) -> bool:
    return kind.trains


CHECKS = {
    "learns": Check("learns if and only if it trains", lambda kind: True),
    "later": Check("a third task is still learnt", _trains),
    "budget": Check("parameters within 2 % of the experts', or it says why", lambda kind: True),
    "mates": Check("batch 1 = batch N", _trains),
    "cache": Check("cached = uncached", _trains),
    "mixed": Check(
        "tasks shuffled in a batch: same answers", lambda kind: kind.trains and not kind.task_id_at_inference
    ),
    "oracle": Check("told the task only if declared", lambda kind: True),
    "resume": Check("saved and loaded: same answers, next update bit for bit", lambda kind: True),
    "repeat": Check("deterministic for a seed", _trains),
    "processes": Check("two processes = one", _trains),
    "parity": Check("first task as its base method's, bit for bit", lambda kind: bool(kind.parity)),
    "penalty": Check("the penalty changes the update", overrides("loss")),
    "step": Check("what is done around a step changes the update", overrides("before_step", "after_step")),
    "slots": Check("past slots act, and stay", lambda kind: issubclass(kind, SlotMethod)),
    "choice": Check("the choice varies with the row", overrides("route")),
    "merge": Check("merges change what they claim, and only that", overrides("merged")),
    "memory": Check("every row as likely to be kept", lambda kind: issubclass(kind, MemoryMethod)),
}


def methods_for(check: str) -> list[str]:
    """Names of the methods that a check applies to."""
    return [name for name, kind in KINDS.items() if CHECKS[check].applies(kind)]


def matrix() -> str:
    """A Markdown table, methods by checks: ✓ where the check runs, · where the class has nothing to check."""
    lines = ["| method | " + " | ".join(CHECKS) + " |", "|---|" + "---|" * len(CHECKS)]
    for name, kind in KINDS.items():
        lines.append(f"| {name} | " + " | ".join("✓" if it.applies(kind) else "·" for it in CHECKS.values()) + " |")
    meaning = [f"- **{key}**: {check.title}" for key, check in CHECKS.items()]
    return "\n".join([*lines, "", *meaning])


if __name__ == "__main__":
    print(matrix())

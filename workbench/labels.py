"""Names of runs: the shortest that tell those of one benchmark apart, by what they were given."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from same.sealed import canonical

LONGEST = 60
"""Characters of a label's settings, above which a piece of the fingerprint stands for them."""


@dataclass(frozen=True)
class Named:
    """What a run's name is made of.

    Args:
        settings: by name, as `flat_settings` gives them; empty where they cannot be read.
        given: how many of them were set by hand, as `own_settings` names them.
    """

    benchmark: str
    method: str
    seed: str
    fingerprint: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    given: int = 0


def flat_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by name; those of the method, the trainer and the backbone beside each other.

    The tasks are left out as a list in an order: `task_order` says it.
    """
    content = dict(config["settings"])
    tasks = sorted(canonical(task) for task in content.pop("tasks"))
    found = {name: value for name, value in content.items() if not isinstance(value, Mapping)}
    backbone = content.get("backbone", {})
    return {**found, "tasks": tasks, "backbone": backbone, **content.get("train", {}), **content.get("method", {})}


def own_settings(config: Mapping[str, Any]) -> set[str]:
    """Names of the settings that a run was given beside its method, sizes, seed and weights."""
    given = config["environment"].get("request", {}).get("settings", {})
    return set(given) - {"checkpoint"}


def labels(runs: Sequence[Named]) -> list[str]:
    """Method, seed where there are several, and what a run was given where that tells it from a twin.

    Of runs that agree in benchmark, method and seed the one with fewest settings of its own goes without. No two runs
    of a benchmark get the same name: a copy of a run is told from it by its folder's.
    """
    seeds: dict[tuple[str, str], set[str]] = {}
    twins: dict[tuple[str, str, str], list[Named]] = {}
    for run in runs:
        seeds.setdefault((run.benchmark, run.method), set()).add(run.seed)
        twins.setdefault((run.benchmark, run.method, run.seed), []).append(run)
    differing = {key: _apart(group) for key, group in twins.items()}
    found = []
    for run in runs:
        parts = [run.method]
        if len(seeds[run.benchmark, run.method]) > 1:
            parts.append(f"seed {run.seed}")
        parts += differing[run.benchmark, run.method, run.seed][run.fingerprint]
        found.append(" · ".join(parts))
    often = Counter((run.benchmark, label) for run, label in zip(runs, found, strict=True))
    return [
        label if often[run.benchmark, label] == 1 else f"{run.method} · {run.seed}-{run.fingerprint}"
        for run, label in zip(runs, found, strict=True)
    ]


def _apart(group: Sequence[Named]) -> dict[str, list[str]]:
    """What tells each of the runs apart from the others, by fingerprint."""
    fewest = min(run.given for run in group)
    plain = [run for run in group if run.given == fewest]
    names = _varied(run.settings for run in plain)  # several may be plain: of different sizes, say
    texts = {run.fingerprint: _said(run, plain[0], names) for run in group}
    often = Counter(texts.values())
    found = {}
    for run in group:
        text = texts[run.fingerprint]
        short = [run.fingerprint[:6]] if often[text] > 1 or len(text) > LONGEST else []
        found[run.fingerprint] = [text] * (0 < len(text) <= LONGEST) + short
    return found


def _varied(settings: Iterable[Mapping[str, Any]]) -> set[str]:
    """Names of settings that are not the same in all."""
    values: dict[str, set[str]] = {}
    for each in settings:
        for name, value in each.items():
            values.setdefault(name, set()).add(canonical(value))
    return {name for name, found in values.items() if len(found) > 1}


def _said(run: Named, plain: Named, always: set[str]) -> str:
    """The run's settings that the plain run has not, and those of some names in any case."""
    changed = _varied([plain.settings, run.settings]) | (always & run.settings.keys()) if run.settings else set()
    values = {name: run.settings.get(name) for name in sorted(changed)}
    return ", ".join(name if isinstance(value, list | dict) else f"{name}={value}" for name, value in values.items())

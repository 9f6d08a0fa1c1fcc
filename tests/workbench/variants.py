"""Runs that differ in a setting, a seed or the order of tasks, with answers: true schema, made-up numbers."""

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from same.metrics import ERRORS, READINGS
from same.runs import RunFolder, write_table
from tests.workbench.synthetic import TASKS

ON = {"gain": "inverse", "curvature_on": "A", "freeze_threshold": 0.0}
OFF = {"gain": "none", "curvature_on": "none", "freeze_threshold": -1.0}
SIZES = {"num_experts": 8, "rank": 8}
DEFAULTS = {**ON, "energy_threshold": 0.95, "damping": 1.0, **SIZES}
OF_METHODS: dict[str, dict[str, Any]] = {"same": DEFAULTS, "zero_shot": {}}
"""The settings of methods; the others have sizes."""
WORTH = {"gain": 0.2, "curvature_on": 0.1, "freeze_threshold": -0.05}
"""What each mechanism adds to the last score; the first two together 0.08 more."""
BOTH = 0.08
BASE = 0.3
BETWEEN = ({"freeze_threshold": -0.5}, {"freeze_threshold": 0.5}, {"curvature_on": "AB"})
"""Mechanisms that are neither off nor as the method has them: no corner of the ablation."""
OTHERS = (("energy_threshold", 0.8), ("num_experts", 4), ("rank", 16))
ITEMS = 4


def write_variants(runs: Path) -> list[RunFolder]:
    """Of `same` corners of the ablation, orders, values of settings, a seed of one corner; of moelora three seeds."""
    made = [write_variant(runs, "moelora", {}, last=BASE)]
    made += [write_variant(runs, "moelora", {}, seed=seed, last=BASE) for seed in (1, 2)]
    for corner in itertools.product([False, True], repeat=len(ON)):
        own = {name: OFF[name] for name, on in zip(ON, corner, strict=True) if not on}
        made.append(write_variant(runs, "same", own, last=corner_score(corner)))
    full = corner_score((True, True, True))
    made += [write_variant(runs, "same", {"damping": value}, last=full - 0.01 * value) for value in (0.1, 10.0)]
    made += [write_variant(runs, "same", own, last=full / 2) for own in BETWEEN]
    made += [write_variant(runs, "same", {name: value}, last=full - 0.03) for name, value in OTHERS]
    made.append(write_variant(runs, "same", {}, seed=1, last=full - 0.2))
    made += [write_variant(runs, "same", {"task_order": order}, last=full - 0.02 * order) for order in (1, 2)]
    return made


def corner_score(corner: tuple[bool, ...]) -> float:
    """The last score of a corner of the ablation."""
    return BASE + sum(worth * on for worth, on in zip(WORTH.values(), corner, strict=True)) + BOTH * all(corner[:2])


def write_variant(
    runs: Path,
    method: str,
    own: Mapping[str, Any],
    seed: int = 0,
    last: float = 0.5,
    benchmark: str = "mini-coin",
    train_items: int = 64,
) -> RunFolder:
    """One finished run whose last row is the same score on every task, and whose old answers lose their case."""
    given = {name: value for name, value in own.items() if name != "task_order"}
    order = int(own.get("task_order", 0))
    tasks = TASKS[order:] + TASKS[:order]
    settings = {
        "benchmark": benchmark,
        "tasks": [{"key": task, "scorer": "exact"} for task in tasks],
        "method": {"name": method, **OF_METHODS.get(method, SIZES), **given},
        "train": {"task_order": order, "epochs": 1},
        "backbone": {"name": "tiny"},
        "seed": seed,
        "train_items": train_items,
        "test_items": ITEMS,
    }
    request = {"benchmark": benchmark, "method": method, "seed": seed, "settings": dict(own)}
    request["train_items"] = train_items
    run = RunFolder.create(runs, benchmark, method, seed, settings, {"request": request})
    run.append_event("start")
    scores: dict[str, list[list[float | None]]] = {name: [] for name in READINGS}
    errors = []
    for after in range(len(tasks)):
        run.write_snapshot(after, lambda folder: (folder / "note.txt").write_text("made up"))
        kinds = [_kinds(task, after) for task in range(after + 1)]
        run.predictions(after).write(lambda folder, kinds=kinds: _answers(folder, tasks, kinds))
        for name, rows in scores.items():
            gain = 0.1 if name in ("semantic", "standard") else 0.0
            rows.append([*[last + gain] * (after + 1), *[None] * (len(tasks) - after - 1)])
        errors.append([_counts(found) for found in kinds] + [None] * (len(tasks) - after - 1))
    run.write_scores(tasks, scores, dict.fromkeys(READINGS, [0.1] * len(tasks)), errors=errors)
    run.append_event("done")
    return run


def _kinds(task: int, after: int) -> list[str]:
    """The class of each answer's error: all right when learned, then one in case, one wrong."""
    return ["right"] * ITEMS if task == after else ["case", "wrong", *["right"] * (ITEMS - 2)]


def _counts(kinds: list[str]) -> dict[str, int]:
    return {name: kinds.count(name) for name in ERRORS if name in kinds}


def _answers(folder: Path, tasks: tuple[str, ...], kinds: list[list[str]]) -> None:
    for task, found in zip(tasks, kinds, strict=False):
        write_table(folder / f"{task}.parquet", dict(_columns(task, found)))


def _columns(task: str, kinds: list[str]) -> Iterator[tuple[str, list[Any]]]:
    said = {"right": "A", "case": "a", "wrong": "B"}
    right = [float(kind == "right") for kind in kinds]
    yield "question_id", [f"{task}-{index}" for index in range(ITEMS)]
    yield "prompt", ["Which?\nA. one\nB. two"] * ITEMS
    yield "text", [said[kind] for kind in kinds]
    yield "answer", ["A"] * ITEMS
    for name in READINGS:
        yield name, list(np.maximum(right, [float(kind == "case") * (name == "semantic") for kind in kinds]))
    yield "error", kinds

"""The results files as tables: a benchmark's methods with mean and standard deviation over seeds (no torch)."""

import csv
import dataclasses
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from same.engine.results import protocol_of
from same.errors import InputError
from same.metrics import FORMULAS, NAMES, READINGS, over_tasks, to_matrix
from same.runs import differences, fingerprint
from same.scorers._judge import is_graded
from same.sealed import canonical

Result = Mapping[str, Any]
TOLERANCE = 0.02
"""Share by which trainable parameters may differ before a table says why."""
TRAINING = ("optimizer", "precision", "warmup_ratio", "weight_decay", "clip", "task_order")
"""Settings of training that change a result: a table says where they differ."""
SIZES = ("num_experts", "rank", "budget")
"""Settings that a variant may be given and that say themselves why its budget is another."""
REFERENCE = "moelora"
"""The method whose samples and batch the others are matched to; parameters are to those of its default size."""
DRIFT = ("router_drift", "expert_drift", "js_divergence", "overlap", "flips", "representation_drift")
"""Means of the drift audit that a table shows, of all that a results file holds."""
SHOWN = ("last", "mean", "learning", "bwt", "forgetting", "fwt")


@dataclass(frozen=True)
class Number:
    """A mean over seeds with its sample standard deviation (None for one seed)."""

    mean: float
    sd: float | None

    @classmethod
    def of(cls, values: Iterable[float | None]) -> "Number | None":
        """Of the values that are there."""
        known = [value for value in values if value is not None]
        return cls(fmean(known), stdev(known) if len(known) > 1 else None) if known else None


@dataclass(frozen=True)
class Row:
    """One method, or one variant of it, over its seeds.

    Args:
        tag: of the variant, "" for the plain one.
        given: the settings that the grid gave it.
        training: all settings of training.
        metrics: by name, those of `same.metrics`.
        judged: by name, metrics over the tasks without captions; empty where there are none.
        final: by task, the score after the last task.
        drift: by name, what the audit after the last task found of those before; empty without experts.
        budget, cost: as in a results file; cost is the mean over seeds.
        notes: what the method keeps, or is told, beside what it trains.
        why: how its budget differs from the reference's, and why; "" where it does not.
    """

    method: str
    tag: str
    title: str
    seeds: tuple[int, ...]
    given: Mapping[str, Any]
    training: Mapping[str, Any]
    metrics: Mapping[str, Number | None]
    judged: Mapping[str, Number | None]
    final: Mapping[str, Number | None]
    drift: Mapping[str, Number | None]
    budget: Mapping[str, int]
    cost: Mapping[str, float | None]
    notes: str = ""
    why: str = ""

    @property
    def label(self) -> str:
        """The method, with its tag."""
        return f"{self.method}@{self.tag}" if self.tag else self.method


@dataclass(frozen=True)
class Table:
    """The runs on one benchmark under one protocol: the same tasks, rows, test rows, backbone and adapted layers."""

    benchmark: str
    protocol: Mapping[str, Any]
    reading: str
    tasks: tuple[str, ...]
    rows: tuple[Row, ...]

    @property
    def main(self) -> list[Row]:
        """The methods as they are compared, the best last score first."""
        return sorted(
            (row for row in self.rows if not row.tag), key=lambda row: _rank(row.metrics["last"]), reverse=True
        )

    @property
    def variants(self) -> list[list[Row]]:
        """The variants of each method that has some, with its plain run, by what they learn."""
        methods = dict.fromkeys(row.method for row in self.rows if row.tag)
        groups = [[row for row in self.rows if row.method == name] for name in methods]
        return [sorted(group, key=lambda row: _rank(row.metrics["learning"])) for group in groups]


def _rank(number: Number | None) -> float:
    return number.mean if number else float("-inf")


def make_tables(results: Iterable[tuple[Path, Result]], reading: str = "strict") -> list[Table]:
    """Group results by benchmark and protocol, then by method and tag.

    Raises:
        InputError: two seeds of one row have other settings besides, or one seed has two files; names the files and
            what differs.
    """
    groups: dict[str, dict[str, list[tuple[Path, Result]]]] = {}
    protocols: dict[str, Mapping[str, Any]] = {}
    for path, result in results:
        protocol = protocol_of(result["settings"])
        tasks = fingerprint({"tasks": sorted(result["settings"]["tasks"], key=canonical)})  # in any order
        key = f"{result['benchmark']} {tasks} {protocol}"
        protocols[key] = protocol
        label = f"{result['method']}@{result['tag']}"
        groups.setdefault(key, {}).setdefault(label, []).append((path, result))
    return [_table(protocols[key], list(found.values()), reading) for key, found in groups.items()]


def _table(protocol: Mapping[str, Any], found: Sequence[Sequence[tuple[Path, Result]]], reading: str) -> Table:
    for group in found:
        _check_settings(group)
    first = min((group[0][1] for group in found), key=lambda result: result["settings"]["train"].get("task_order", 0))
    rows = [_row([result for _, result in group], reading) for group in found]
    reference = next((row for row in rows if row.label == REFERENCE), None)
    rows = [
        dataclasses.replace(row, why=_why(row, reference, group[0][1]["budget_reason"]))
        for row, group in zip(rows, found, strict=True)
    ]
    return Table(first["benchmark"], protocol, reading, tuple(first["scores"]["tasks"]), tuple(rows))


def _check_settings(group: Sequence[tuple[Path, Result]]) -> None:
    (path, first), *others = group
    known = {first["seed"]: path}
    for other, result in others:
        if result["seed"] in known:
            raise InputError(
                f"{known[result['seed']]} and {other} must be of different seeds; both are of {result['seed']}. "
                "Delete one of them."
            )
        known[result["seed"]] = other
        ours, theirs = ({**found["settings"], "seed": None} for found in (first, result))
        changed = differences(ours, theirs)
        if changed:
            raise InputError(
                f"{path} and {other} must differ by seed alone; found {'; '.join(changed)}. Run one of them again, or "
                "give it a tag."
            )


def _row(group: Sequence[Result], reading: str) -> Row:
    first = group[0]
    tasks = first["scores"]["tasks"]
    last = [result["scores"]["variants"][reading][-1] for result in group]
    audits = [result["audit"] for result in group if result.get("audit")]
    cost = {name: Number.of(result["cost"][name] for result in group) for name in first["cost"]}
    return Row(
        method=first["method"],
        tag=first["tag"],
        title=first["title"],
        seeds=tuple(sorted(result["seed"] for result in group)),
        given=first["given"],
        training=first["settings"]["train"],
        metrics={name: Number.of(result["metrics"][name][reading] for result in group) for name in NAMES},
        judged=_judged(group, reading),
        final={task: Number.of(row[index] for row in last) for index, task in enumerate(tasks)},
        drift={name: Number.of(audit[-1][name] for audit in audits) for name in DRIFT} if audits else {},
        budget=first["budget"],
        cost={name: number.mean if number else None for name, number in cost.items()},
        notes=first["notes"],
    )


def _judged(group: Sequence[Result], reading: str) -> dict[str, Number | None]:
    tasks = group[0]["settings"]["tasks"]
    kept = [index for index, task in enumerate(tasks) if not is_graded(task["scorer"])]
    if len(kept) in (0, len(tasks)):
        return {}
    found = [over_tasks(to_matrix(result["scores"]["variants"][reading]), kept) for result in group]
    return {name: Number.of(None if isnan(one[name]) else one[name] for one in found) for name in found[0]}


def _why(row: Row, reference: Row | None, reason: str) -> str:
    mine = row.budget
    said = []
    if mine["trainable_parameters"] == 0:
        return "trains nothing"
    share = mine["trainable_parameters"] / mine["experts_parameters"] - 1
    if abs(share) > TOLERANCE:
        own = ", ".join(f"{name} {row.given[name]}" for name in SIZES if name in row.given)
        said.append(f"{share:+.0%} trainable parameters ({own or reason or 'no reason is recorded'})")
    if reference is None:
        return "; ".join(said)
    theirs = reference.budget
    for name in ("samples", "global_batch"):
        if mine[name] != theirs[name]:
            said.append(f"{name.replace('_', ' ')} {mine[name]:,} instead of {theirs[name]:,}")
    for name in TRAINING:
        if row.training.get(name) != reference.training.get(name):
            said.append(f"{name} {row.training.get(name)} instead of {reference.training.get(name)}")
    return "; ".join(said)


# -- as text -------------------------------------------------------------------------------------------------------


def markdown(tables: Sequence[Table]) -> str:
    """All tables, and what their columns mean."""
    return "\n\n".join([*(_markdown(table) for table in tables), *_notes(tables), glossary()])


def _notes(tables: Sequence[Table]) -> list[str]:
    notes = {row.method: row.notes for table in tables for row in table.main if row.notes}
    if not notes:
        return []
    lines = "\n".join(f"- {name}: {text}" for name, text in sorted(notes.items()))
    return ["#### What a method keeps or is told beside what it trains", lines]


def _markdown(table: Table) -> str:
    protocol = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in table.protocol.items())
    parts = [f"### {table.benchmark}", f"Reading: {table.reading}. Protocol: {protocol}."]
    head = ["method", "seeds", *SHOWN, "rate", "parameters", "samples", "batch", "train s", "evaluate s", "MB"]
    parts.append(_grid(head, [_main(row) for row in table.main]))
    tagged = [row for group in table.variants for row in group if row.tag]
    notes = [f"- {row.label}: {row.why}." for row in [*table.main, *tagged] if row.why]
    if notes:
        parts += [f"Budgets that differ from {REFERENCE}'s:", "\n".join(notes)]
    judged = sorted((row for row in table.main if row.judged), key=lambda row: _rank(row.judged["last"]), reverse=True)
    if judged:
        parts.append("Without the captions, whose scores have another scale and outweigh the rest:")
        shown = [[row.label, *map(_cell, row.judged.values())] for row in judged]
        parts.append(_grid(["method", *judged[0].judged], shown))
    parts.append("Score of each task after the last one:")
    by_task = [[row.label, *(_cell(row.final[task]) for task in table.tasks)] for row in table.main]
    parts.append(_grid(["method", *table.tasks], by_task))
    drifted = [row for row in table.main if row.drift]
    if drifted:
        parts.append("What the last task left of the tasks before it (drift audit):")
        named = [name.replace("_", " ") for name in DRIFT]
        parts.append(_grid(["method", *named], [[row.label, *map(_cell, row.drift.values())] for row in drifted]))
    if table.variants:
        parts.append("Final mean against learning, over the variants of a method:")
        names = ("learning", "last", "mean", "bwt")
        rows = [row for group in table.variants for row in group]
        apart = [f"{name} without captions" for name in rows[0].judged]
        lines: list[Sequence[Any]] = [
            [row.label, len(row.seeds), *(_cell(row.metrics[name]) for name in names), *map(_cell, row.judged.values())]
            for row in rows
        ]
        parts.append(_grid(["method", "seeds", *names, *apart], lines))
    return "\n\n".join(parts)


def _main(row: Row) -> list[Any]:
    budget, cost = row.budget, row.cost
    counts = [f"{budget[name]:,}" for name in ("trainable_parameters", "samples", "global_batch")]
    costs = [_whole(cost[name]) for name in ("train_seconds", "evaluate_seconds", "peak_memory_mb")]
    numbers = [_cell(row.metrics[name]) for name in SHOWN]
    rate = f"{row.training['learning_rate']:g}" if budget["samples"] else "·"  # nothing was trained
    return [row.label, len(row.seeds), *numbers, rate, *counts, *costs]


def _cell(number: Number | None) -> str:
    if number is None:
        return "·"
    return f"{number.mean:.3f}" + (f" ± {number.sd:.3f}" if number.sd is not None else "")


def _whole(value: float | None) -> str:
    return "·" if value is None else f"{value:,.0f}"


def _grid(head: Sequence[Any], rows: Sequence[Sequence[Any]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def glossary() -> str:
    """What the columns mean."""
    lines = [
        "R[t][i] is the score on task i after training task t, of T tasks; ± is the standard deviation over seeds.",
        *(f"- **{name}**: {FORMULAS[name]}" for name in SHOWN),
        "- **parameters**: those trained; **samples**: training rows drawn in all; "
        "**batch**: rows of an optimiser step",
        "- **train s**, **evaluate s**: on the clock, mean over seeds; **MB**: the most memory that the process had "
        "when the log was written, beyond compare between rows on a CPU (the GPU's true peak where there is one)",
        "- **router drift**, **expert drift**: tr(ΔW C ΔWᵀ) / tr(W C Wᵀ) of the change since a task was learned, on "
        "its inputs; means over earlier tasks, layers and experts, as all columns of the audit",
        "- **js divergence** (bits), **overlap** (1: unchanged): of the mean routing then and now; **flips**: share of "
        "tokens whose leading expert is another; **representation drift**: Σ‖x′ − x‖² / Σ‖x‖² of the layers' inputs",
        *(f"- *{name}*: {meaning}" for name, meaning in READINGS.items()),
    ]
    return "\n".join(lines)


def as_csv(tables: Sequence[Table]) -> str:
    """Every row of every table, a line each; means and standard deviations in columns of their own."""
    stream = io.StringIO()
    lines = [_flat(table, row) for table in tables for row in table.rows]
    names = list(dict.fromkeys(name for line in lines for name in line))
    writer = csv.DictWriter(stream, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return stream.getvalue().rstrip("\n")


def _flat(table: Table, row: Row) -> dict[str, Any]:
    found: dict[str, Any] = {"benchmark": table.benchmark, "reading": table.reading, **table.protocol}
    found |= {
        "method": row.method,
        "tag": row.tag,
        "seeds": len(row.seeds),
        "learning_rate": row.training["learning_rate"],
    }
    judged = {f"{name}_without_captions": number for name, number in row.judged.items()}
    for name, number in {**row.metrics, **judged, **row.final, **row.drift}.items():
        found[name], found[f"{name}_sd"] = (number.mean, number.sd) if number else (None, None)
    return {**found, **row.budget, **row.cost, "why": row.why}


def as_json(tables: Sequence[Table]) -> list[dict[str, Any]]:
    """The tables as plain values."""
    return [dataclasses.asdict(table) for table in tables]

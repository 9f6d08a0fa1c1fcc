"""The drift audit as rows, means and text; reads nothing but the run folder."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from same.errors import InputError
from same.runs import RunFolder

Row = Mapping[str, Any]

LAYER_COLUMNS = {
    "rank": "directions of V∥",
    "js_divergence": "of the mean routing then and now, bits",
    "overlap": "Σ min(p, q) of the same",
    "entropy_then": "mean entropy of a token's routing, nats",
    "entropy_now": "",
    "flips": "share of tokens whose largest weight is another expert's",
    "balance_then": "coefficient of variation of the mean routing",
    "balance_now": "",
    "angle_min": "principal angles between the task's V∥ and that of the task just trained, radians",
    "angle_mean": "",
    "angle_max": "",
    "representation_drift": "Σ‖x′ − x‖² / Σ‖x‖² of the layer's inputs",
}
"""Columns of audit.parquet that a layer has once, on its router's row."""

COLUMNS = (
    *("probe_task", "probe_index", "layer", "input_key", "part", "expert"),
    *("drift", "drift_parallel", "drift_rest", "old_energy", "weight_then", "weight_now"),
    *LAYER_COLUMNS,
)
"""Columns of audit.parquet; `drift`, the sum of its V∥ part and the rest, is relative to `old_energy` = tr(W C Wᵀ)."""

MEANS = {
    "router_drift": ("router", "drift"),
    "router_parallel": ("router", "drift_parallel"),
    "expert_drift": ("expert", "drift"),
    "expert_parallel": ("expert", "drift_parallel"),
    "js_divergence": ("router", "js_divergence"),
    "overlap": ("router", "overlap"),
    "flips": ("router", "flips"),
    "entropy": ("router", "entropy_now"),
    "balance": ("router", "balance_now"),
    "angle": ("router", "angle_mean"),
    "representation_drift": ("router", "representation_drift"),
}
LEGEND = """
router_drift, expert_drift   tr(ΔW C ΔWᵀ) / tr(W C Wᵀ) on the probe's inputs as they were; …_parallel: the part in V∥
js_divergence, overlap       of the mean routing then and now (bits; 1 is unchanged); flips: share of tokens re-routed
entropy, balance             of the routing now: nats; coefficient of variation of the experts' load
angle                        mean principal angle (radians) between the two tasks' leading input directions
representation_drift         how far the probe's layer inputs moved, in units of their energy
Means over layers, and experts.""".strip()


def means(rows: Sequence[Row]) -> dict[str, float | None]:
    """The mean of each measure over the rows that have it; None where none has."""

    def mean(part: str, column: str) -> float | None:
        values = [row[column] for row in rows if row["part"] == part and row[column] is not None]
        return sum(values) / len(values) if values else None

    return {name: mean(*place) for name, place in MEANS.items()}


def read_audit(run: RunFolder) -> list[dict[str, Any]]:
    """All rows of a run's audit, with `after` and `after_task`, the task at whose end they were measured.

    Raises:
        InputError: the run has no audit; says why.
    """
    import pyarrow.parquet

    settings, finished = run.config()["settings"], run.finished()
    snapshots = {stage: run.snapshot(stage) for stage in range(finished)}
    rows = []
    for stage, snapshot in snapshots.items():
        if snapshot.has("audit.parquet"):
            place = {"after": stage, "after_task": snapshot.manifest()["task"]}
            rows += [{**place, **row} for row in pyarrow.parquet.read_table(snapshot.file("audit.parquet")).to_pylist()]
    if rows:
        return rows
    if any(snapshot.has("probe.safetensors") for snapshot in snapshots.values()):
        raise InputError(
            f"{run.path} must have two finished tasks to compare; got {finished}. Go on with the same `same train`."
        )
    method, audit = settings.get("method", {}).get("name"), settings.get("train", {}).get("audit")
    raise InputError(
        f"{run.path} must hold a drift audit; it has none after {finished} finished tasks of method {method} with "
        f"audit={audit}. Train a method that routes experts, with audit=true."
    )


def pairs(rows: Sequence[Row]) -> Iterator[dict[str, Any]]:
    """The means of each pair of tasks: the one just trained and the earlier one that is probed."""
    names = ("after", "after_task", "probe_index", "probe_task")
    keys = dict.fromkeys(tuple(row[name] for name in names) for row in rows)
    for key in keys:
        chosen = [row for row in rows if tuple(row[name] for name in names) == key]
        yield {**dict(zip(names, key, strict=True)), **means(chosen)}


def cost(run: RunFolder) -> dict[str, float | None]:
    """Seconds of a run's audits, and their share of its finished tasks' training and evaluation without them."""
    audits, tasks = ({event["task"]: event for event in run.events(kind)} for kind in ("audit", "task_end"))
    seconds = sum(audits[task]["seconds"] for task in tasks if task in audits)
    whole = sum(task["train_seconds"] + task["evaluate_seconds"] for task in tasks.values())
    return {"seconds": seconds, "share": seconds / (whole - seconds) if whole > seconds else None}


def text(rows: Sequence[Row]) -> str:
    """The means as a table for each finished task, an earlier task a line."""
    found = list(pairs(rows))
    width = max(len(pair["probe_task"]) for pair in found)
    lines: list[str] = []
    last = None
    for pair in found:
        if pair["after"] != last:
            last = pair["after"]
            lines += [f"\nafter Task {last + 1} ({pair['after_task']})"]
            lines += [" " * width + "".join(f"{name:>{len(name) + 2}}" for name in MEANS)]
        cells = [f"{_cell(pair[name]):>{len(name) + 2}}" for name in MEANS]
        lines.append(f"{pair['probe_task']:{width}}{''.join(cells)}")
    return "\n".join([*lines, "", LEGEND])


def _cell(value: float | None) -> str:
    return "·" if value is None else f"{value:.4f}"

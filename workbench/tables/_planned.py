"""What runs were planned to need, beside what they took."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from same.runs import RunFolder
from workbench.store import Store
from workbench.tables._activation import times
from workbench.tables._files import events
from workbench.tables._sizes import sizes

PLANNED = ["run", "label", "quantity", "planned", "measured"]
PARTS = ["run", "label", "part", "megabytes"]
ORDER = ("weights", "adapter", "gradients", "optimiser", "statistics", "activations", "logits", "buckets")
"""Of the parts of a plan, as they are stacked; the record has them by the alphabet."""
MEASURED = "measured"
STACKED = (*ORDER, MEASURED)
UNTRAINED = "its method trains nothing."
MEBIBYTES = 1e9 / 2**20
"""In a gigabyte."""


def planned(store: Store, runs: Sequence[str], teraflops: float | None) -> tuple[pd.DataFrame, dict[str, str]]:
    """What the runs that recorded a plan needed, by plan and by measurement; and of the others why they have none.

    Args:
        teraflops: what one process is taken to sustain in training; the planned time follows from it (None: there is
            none).
    """
    labels = store.overview().set_index("run")["label"]
    taken, kept = times(store, runs), sizes(store, runs)
    rows, lacking = [], {}
    for run in runs:
        folder = store.folder(run)
        plan, trained = _plan(folder), [event["trainable"] for event in events(folder, "budget")]
        if "gigabytes" not in plan:
            lacking[str(labels[run])] = UNTRAINED if trained[-1:] == [0] else str(plan.get("unknown", ""))
            continue
        own = taken[taken["run"] == run]
        finished = own["task_index"].tolist()
        seconds, processes = float(own["train_seconds"].sum()), folder.config()["settings"].get("processes", 1)
        operations = sum(plan["petaflops"][task] for task in finished) * 1000 / processes
        bytes_kept = kept.loc[(kept["run"] == run) & kept["task_index"].isin(finished), "megabytes"].sum()
        found: dict[str, tuple[Any, Any]] = {
            "trained parameters": (plan["trainable"], trained[-1] if trained else None),
            "memory of a process (MB)": (plan["gigabytes"]["total"] * MEBIBYTES, own["memory_mb"].max()),
            "snapshots (MB)": (sum(plan["task_megabytes"][task] for task in finished), bytes_kept),
            "training (s)": (operations / teraflops if teraflops else None, seconds),
            "speed of a process (TFLOP/s)": (teraflops, operations / seconds if seconds else None),
            "sent by a process in a step (MB)": (plan["megabytes_sent_per_step"], None),
        }
        rows += [(run, labels[run], quantity, *pair) for quantity, pair in found.items()]
    return pd.DataFrame(rows, columns=PLANNED).astype({"planned": float, "measured": float}), lacking


def memory_parts(store: Store, runs: Sequence[str]) -> pd.DataFrame:
    """The parts of the memory that a process was planned to hold, and the most that one was seen to hold; in MB."""
    labels, taken = store.overview().set_index("run")["label"], times(store, runs)
    rows: list[tuple[str, str, str, float]] = []
    for run in runs:
        sizes_of = _plan(store.folder(run)).get("gigabytes", {})
        parts = {name: sizes_of[name] * MEBIBYTES for name in ORDER if name in sizes_of}
        if parts:
            parts[MEASURED] = taken.loc[taken["run"] == run, "memory_mb"].max()
        rows += [(run, labels[run], name, size) for name, size in parts.items() if size]
    rows.sort(key=lambda row: STACKED.index(row[2]))
    return pd.DataFrame(rows, columns=PARTS)


def _plan(folder: RunFolder) -> dict[str, Any]:
    found = events(folder, "plan")
    return found[-1] if found else {}

"""The drift audit of runs, as tables."""

import math
from collections.abc import Sequence

import pandas as pd

from workbench.store import Store, layer_names
from workbench.tables._files import table

COLUMNS = {
    "overlap": "overlap",
    "divergence": "js_divergence",
    "entropy": "entropy_now",
    "flips": "flips",
    "router_drift": "drift",
    "angle": "angle_mean",
    "representation": "representation_drift",
}
UNCHANGED = {"overlap": 1.0, "divergence": 0.0, "flips": 0.0, "router_drift": 0.0, "expert_drift": 0.0}
UNCHANGED |= {"representation": 0.0}
ORDER = ["run", "label", "after", "layer", "overlap", "divergence", "entropy", "flips", "router_drift", "expert_drift"]
ORDER += ["angle", "representation"]


def drift(store: Store, runs: Sequence[str], probe: int = 0) -> pd.DataFrame:
    """What each later task changed on one task's probe, by layer; the first stage is the task's own end.

    Args:
        store: holds the runs.
        runs: their names; those without a drift audit have no rows.
        probe: index of the task whose recorded inputs are looked at.
    """
    labels = store.overview().set_index("run")["label"]
    parts = []
    for run in runs:
        folder = store.folder(run)
        for after in range(probe + 1, folder.finished()):
            audit = table(folder, after, "audit")
            if audit is None:
                continue
            rows = audit[audit["probe_index"] == probe]
            found = _stage(rows)
            if after == probe + 1:
                entropy = rows[rows["part"] == "router"]["entropy_then"].to_numpy(dtype=float) / math.log(2)
                own = found[["layer"]].assign(**UNCHANGED, entropy=entropy, after=probe)
                parts.append(own.assign(run=run, label=labels[run]))
            parts.append(found.assign(run=run, label=labels[run], after=after))
    if not parts:
        return pd.DataFrame(columns=ORDER)
    whole = pd.concat(parts, ignore_index=True).reindex(columns=ORDER)
    return whole.assign(layer=whole["layer"].map(layer_names(whole["layer"])))


def _stage(rows: pd.DataFrame) -> pd.DataFrame:
    routers = rows[rows["part"] == "router"]
    found = routers[["layer"]].assign(**{name: routers[column].astype(float) for name, column in COLUMNS.items()})
    experts = rows[rows["part"] == "expert"].astype({"drift": float}).groupby("layer", sort=False)["drift"].mean()
    return found.assign(entropy=found["entropy"] / math.log(2), expert_drift=found["layer"].map(experts))

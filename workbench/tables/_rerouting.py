"""Re-routings that a run's record holds, as tables."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd

from same.errors import InputError
from same.runs import RunFolder
from workbench.store import VARIANTS, Store, layer_names

COLUMNS = ["run", "label", "id", "task", "task_index", "router", "experts", "kind", "steps", "learning_rate", "items"]
COLUMNS += ["seed", "layer", "score", "entropy", "seconds"]


def reroutings(store: Store, runs: Sequence[str], variant: str = VARIANTS[0]) -> pd.DataFrame:
    """One row a finished re-routing, the oldest first; `score` is in one reading, `entropy` the mean over layers."""
    labels = store.overview().set_index("run")["label"]
    rows = []
    for run in runs:
        for found in _all(store.folder(run)):
            row = {name: found.get(name) for name in COLUMNS}
            row |= {"run": run, "label": labels[run], "kind": _kind(found), "steps": found["retrained_steps"]}
            row |= {"score": found["scores"].get(variant), "entropy": found["routing_entropy"]["mean"]}
            rows.append(row)
    return pd.DataFrame(rows, columns=COLUMNS)


def _kind(found: Mapping[str, Any]) -> str:
    if found["layer"]:
        return "by hand"
    if found["router"] == "oracle":
        return "oracle"
    if found["retrained_steps"]:
        return "retrained"
    if not found["router"].isdecimal():
        return str(found["router"])
    return "own" if int(found["router"]) == found["experts"] else "other"


def rerouted(store: Store, run: str, ids: Sequence[str]) -> pd.DataFrame:
    """How the tokens of some re-routings were routed, by layer."""
    rows = [
        (key, layer, expert, weight, found["routing_entropy"]["layers"][layer])
        for key, found in _chosen(store, run, ids).items()
        for layer, shares in found["routing"].items()
        for expert, weight in enumerate(shares)
    ]
    table = pd.DataFrame(rows, columns=["id", "layer", "expert", "weight", "entropy"])
    return table.assign(layer=table["layer"].map(layer_names(table["layer"])))


def retraining(store: Store, run: str, ids: Sequence[str]) -> pd.DataFrame:
    """The loss of every step of some re-routings whose routers were trained."""
    rows = [
        (key, f"experts of Task {found['experts'] + 1}", point["step"], point["loss"])
        for key, found in _chosen(store, run, ids).items()
        for point in found["curve"]
    ]
    return pd.DataFrame(rows, columns=["id", "name", "step", "loss"])


def _chosen(store: Store, run: str, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    known = {found["id"]: found for found in _all(store.folder(run))}
    missing = [key for key in ids if key not in known]
    if missing:
        raise InputError(f"{run} must hold the re-routing {missing[0]}; it has {', '.join(known) or 'none'}.")
    return {key: known[key] for key in ids}


def _all(folder: RunFolder) -> list[dict[str, Any]]:
    found = []
    for key in folder.reroutings():
        about = folder.rerouting(key).stat()
        found.append(_read(folder.path, key, (about.st_mtime_ns, about.st_size)))
    return found


@lru_cache(maxsize=4096)
def _read(path: Path, key: str, _identity: object) -> dict[str, Any]:
    """Read once as long as it stays the same file."""
    return RunFolder(path).read_rerouting(key)


def swap(table: pd.DataFrame, early: int, late: int) -> pd.DataFrame:
    """The four pairs of two versions: routers and experts of each, as they were trained.

    Args:
        table: re-routings of one run on one task, with as many items each.
        early: index of a version.
        late: index of another.

    Raises:
        InputError: a pair is missing; says which, and how to get it.
    """
    plain = table[table["kind"].isin(["own", "other"])]
    plain = plain.assign(router=plain["router"].astype(int)).drop_duplicates(["router", "experts"], keep="last")
    known = plain.set_index(["router", "experts"])["score"]
    pairs = [(router, experts) for experts in (early, late) for router in (early, late)]
    missing = [pair for pair in pairs if pair not in known.index]
    if missing:
        raise InputError(
            f"a swap of versions {early} and {late} must have all four pairs; router {missing[0][0]} with experts "
            f"{missing[0][1]} is missing. Run `same reroute --router {early},{late} --experts {early},{late}`."
        )
    return pd.DataFrame([(*pair, float(known[pair])) for pair in pairs], columns=["router", "experts", "score"])


def swap_effects(four: pd.DataFrame) -> pd.DataFrame:
    """What a later router and later experts change, each averaged over the other, and what neither does alone.

    With R(r, e) the score under router r and experts e, late minus early: router = mean over e of R(late, e) −
    R(early, e); experts likewise; interaction = [R(late, late) − R(early, late)] − [R(late, early) − R(early, early)].
    """
    early_early, late_early, early_late, late_late = four["score"]
    effects = {
        "router": (late_early - early_early + late_late - early_late) / 2,
        "experts": (early_late - early_early + late_late - late_early) / 2,
        "interaction": (late_late - early_late) - (late_early - early_early),
    }
    return pd.DataFrame(effects.items(), columns=["effect", "value"])

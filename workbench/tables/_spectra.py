"""Spectra of past inputs, and what the rules make of them at any δ, ρ and μ: from snapshots, without training."""

from collections.abc import Iterable
from dataclasses import fields
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from same.errors import InputError
from same.runs import RunFolder
from workbench.formulas import Array, Eigenvalues, Energy, Rules, directions, principal_angles
from workbench.store import Store, layer_names
from workbench.tables._files import Identity, identity, number, open_tensors, tensors

VALUES = ".eigenvalues"
RECORDED = ".inputs"


def stages(store: Store, run: str) -> tuple[Identity, ...]:
    """Tells a run's finished tasks from those of a run that is written in its place, or has gone on."""
    folder = store.folder(run)
    return tuple(identity(folder, after) for after in range(folder.finished()))


def rules_of(store: Store, run: str) -> Rules:
    """The settings in force in a run; those of the paper where its method has none."""
    given = store.folder(run).config()["settings"]["method"]
    return Rules(**{field.name: given[field.name] for field in fields(Rules) if field.name in given})


def _spectra(folder: RunFolder, after: int) -> dict[str, Eigenvalues]:
    return _read(folder.path, after, identity(folder, after))


@lru_cache(maxsize=128)
def _read(path: Path, after: int, _identity: Identity) -> dict[str, Eigenvalues]:
    """By short name of the input; eigenvectors stay on disk."""
    file = tensors(RunFolder(path), after, "spectrum")
    if file is None:
        return {}
    found = {}
    with open_tensors(file) as opened:
        keys = [name.removesuffix(VALUES) for name in opened.keys() if name.endswith(VALUES)]  # noqa: SIM118
        names = layer_names(keys)
        for key in keys:
            dim = opened.get_slice(f"{key}.eigenvectors").get_shape()[0]
            values = opened.get_tensor(f"{key}{VALUES}").astype(np.float64)
            trace, tokens = (number(opened.get_tensor(f"{key}.{part}")) for part in ("trace", "tokens"))
            found[names[key]] = Eigenvalues(values, dim, trace, tokens)
    return dict(sorted(found.items(), key=lambda item: _place(item[0])))


def _place(name: str) -> list[tuple[int, int | str]]:
    """Sorts names by the numbers in them."""
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in name.split(".")]


def inputs(store: Store, run: str, after: int | None = None) -> list[str]:
    """Short names of the layer inputs whose spectrum a stage keeps (None: the last finished); none for most methods."""
    folder = store.folder(run)
    stage = folder.finished() - 1 if after is None else after
    return list(_spectra(folder, stage))


def spectra(store: Store, run: str, after: int, energy: Energy = "squared") -> pd.DataFrame:
    """Eigenvalues of all that a run had seen after a task, and the share of energy that the first k keep."""
    folder = store.folder(run)
    return _spectra_table(folder.path, after, identity(folder, after), energy)


@lru_cache(maxsize=32)
def _spectra_table(path: Path, after: int, stage: Identity, energy: Energy) -> pd.DataFrame:
    found = _read(path, after, stage)
    if not found:
        return pd.DataFrame(columns=["input", "k", "eigenvalue", "kept"])
    counts = [len(one.values) for one in found.values()]
    columns = {
        "input": np.repeat(list(found), counts),
        "k": np.concatenate([np.arange(1, count + 1) for count in counts]),
        "eigenvalue": np.concatenate([one.values for one in found.values()]),
        "kept": np.concatenate([one.kept(energy) for one in found.values()]),
    }
    return pd.DataFrame(columns)


def _named(parts: list[pd.DataFrame], names: Iterable[str], columns: list[str]) -> pd.DataFrame:
    if not parts:
        return pd.DataFrame(columns=columns)
    named = [part.assign(input=name) for name, part in zip(names, parts, strict=True)]
    return pd.concat(named, ignore_index=True)[columns]


def ranks(store: Store, run: str, energy_threshold: float, energy: Energy = "squared") -> pd.DataFrame:
    """The k that δ asks for, of every input after every finished task."""
    folder = store.folder(run)
    rows = [
        (after, name, found.rank(energy_threshold, energy), len(found.values), found.dim, found.tokens)
        for after in range(folder.finished())
        for name, found in _spectra(folder, after).items()
    ]
    return pd.DataFrame(rows, columns=["after", "input", "rank", "held", "dim", "tokens"])


def gains(store: Store, run: str, after: int, rules: Rules) -> pd.DataFrame:
    """What is let through of a change along each protected direction: g for routers, the diagonal of P for experts."""
    found = _spectra(store.folder(run), after)
    parts = []
    for spectrum in found.values():
        router, experts = spectrum.router_gains(rules), spectrum.expert_gains(rules)
        values = {"k": np.arange(1, len(router) + 1), "eigenvalue": spectrum.values[: len(router)]}
        parts.append(pd.DataFrame({**values, "router": router, "experts": experts}))
    return _named(parts, found, ["input", "k", "eigenvalue", "router", "experts"])


def protection(store: Store, run: str, after: int, rules: Rules) -> pd.DataFrame:
    """The share of an update's effect on past inputs that the rules leave, for updates without preferred direction."""
    rows = []
    for name, found in _spectra(store.folder(run), after).items():
        left = found.left(found.router_gains(rules)), found.left(found.expert_gains(rules))
        rows.append((name, found.rank(rules.energy_threshold, rules.energy), found.dim, *left))
    return pd.DataFrame(rows, columns=["input", "rank", "dim", "router", "experts"])


def angles(store: Store, run: str, layer_input: str, energy_threshold: float = 0.95) -> pd.DataFrame:
    """Principal angles in degrees between the leading directions of each two tasks' recorded inputs.

    Args:
        store: holds the run.
        run: its name.
        layer_input: short name of the input.
        energy_threshold: δ, share of Σσ² that the directions compared hold.

    Raises:
        InputError: the run recorded no such input; names those it has.
    """
    folder = store.folder(run)
    stages = tuple(identity(folder, task) for task in range(folder.finished()))
    recorded = {name for task in range(len(stages)) for name in _recorded(folder.path, task, stages[task])}
    if layer_input not in recorded:
        choices = ", ".join(sorted(recorded, key=_place)) or "none: train a method that routes experts, with audit=true"
        raise InputError(f"layer input must be one that {run} recorded; got {layer_input!r}. Choices: {choices}.")
    spectra, products = _compared(folder.path, layer_input, stages)
    held = {task: found.rank(energy_threshold) for task, found in spectra.items()}
    rows = []
    for (first, second), product in products.items():
        found = np.degrees(principal_angles(product[: held[first], : held[second]]))
        summary = (float(found.min()), float(found.mean()), float(found.max()))
        rows += [(*pair, *summary) for pair in dict.fromkeys([(first, second), (second, first)])]
    return pd.DataFrame(sorted(rows), columns=["first", "second", "min", "mean", "max"])


@lru_cache(maxsize=64)
def _compared(
    path: Path, layer_input: str, stages: tuple[Identity, ...]
) -> tuple[dict[int, Eigenvalues], dict[tuple[int, int], Array]]:
    """Spectrum of each task's recorded inputs, and V₁ᵀ V₂ of each two: all that angles at any δ are made from."""
    recorded = {task: _recorded(path, task, stage) for task, stage in enumerate(stages)}
    found = {task: directions(inputs[layer_input]) for task, inputs in recorded.items() if layer_input in inputs}
    pairs = [(first, second) for first in found for second in found if first <= second]
    products = {(first, second): found[first][1].T @ found[second][1] for first, second in pairs}
    return {task: spectrum for task, (spectrum, _) in found.items()}, products


@lru_cache(maxsize=32)
def _recorded(path: Path, task: int, _identity: Identity) -> dict[str, Array]:
    """What the layers read of a task's probe when the task ended, by short name [tokens, d]."""
    file = tensors(RunFolder(path), task, "probe")
    if file is None:
        return {}
    with open_tensors(file) as opened:
        keys = [name.removesuffix(RECORDED) for name in opened.keys() if name.endswith(RECORDED)]  # noqa: SIM118
        names = layer_names(keys)
        return {names[key]: opened.get_tensor(f"{key}{RECORDED}").astype(np.float64) for key in keys}

"""Tables of drift, re-routing, spectra and activation: what the run folder holds, in the units they say."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from same.errors import InputError, SnapshotError
from tests.workbench import deep
from workbench import tables
from workbench.formulas import Rules
from workbench.store import Store
from workbench.trials import plain

LAST = len(deep.TASKS) - 1


@pytest.fixture(scope="module")
def store(deep_runs: Path) -> Store:
    return Store(deep_runs)


@pytest.fixture(scope="module")
def names(store: Store) -> list[str]:
    return list(store.overview()["run"])


def test_drift_starts_at_the_tasks_own_end_and_is_in_bits(store: Store, names: list[str]) -> None:
    table = tables.drift(store, names)
    first, later = (table[table["after"] == after] for after in (0, 2))
    assert len(first) == len(names) * len(deep.LAYERS)
    assert (first["overlap"] == 1).all()
    assert (first["divergence"] == 0).all()
    assert first["entropy"].to_numpy() == pytest.approx(1)  # bits; ln 2 nats in the file
    assert set(later["layer"]) == {"0.gate", "0.up", "0.down", "1.gate", "1.up", "1.down"}
    moelora = later[later["label"] == "moelora"]
    assert moelora["divergence"].to_numpy() == pytest.approx(0.1 * 0.4 * 2)
    assert moelora["expert_drift"].to_numpy() == pytest.approx(0.4 * 2 * 1.5)  # mean over experts 0 to 3
    assert tables.drift(store, names, probe=LAST).empty


def test_reroutings_say_what_routed_the_experts(store: Store, names: list[str]) -> None:
    table = tables.reroutings(store, names[:1])
    counts = table["kind"].value_counts().to_dict()
    assert counts == {"other": 12, "own": 4, "retrained": 4, "oracle": 4, "uniform": 4, "random": 8}
    own = table[(table["kind"] == "own") & (table["experts"] == 1)].iloc[0]
    assert own["router"] == "1"
    assert own["entropy"] == pytest.approx(1.35)
    assert own["score"] == pytest.approx(0.9 - 0.05)
    assert tables.reroutings(store, []).empty
    layers = tables.rerouted(store, names[0], [own["id"]])
    assert layers.groupby("layer")["weight"].sum().to_numpy() == pytest.approx(1)
    assert list(layers["entropy"].unique()) == pytest.approx([1.0, 1.1, 1.2, 1.3, 1.4, 1.5])
    retrained = table[table["kind"] == "retrained"]["id"].iloc[2]
    curve = tables.retraining(store, names[0], [retrained])
    assert set(curve["name"]) == {"experts of Task 3"}
    assert list(curve["loss"]) == pytest.approx([3 / step for step in range(1, 7)])
    with pytest.raises(InputError, match="nothing"):
        tables.retraining(store, names[0], ["nothing"])


def test_a_swap_has_four_pairs_and_effects_that_add_up(store: Store, names: list[str]) -> None:
    table = tables.reroutings(store, names[:1])
    four = tables.swap(table, 0, 3)
    assert list(zip(four["router"], four["experts"], strict=True)) == [(0, 0), (3, 0), (0, 3), (3, 3)]
    effects = dict(tables.swap_effects(four).itertuples(index=False))
    scores = four.set_index(["router", "experts"])["score"]
    assert effects["router"] + effects["experts"] == pytest.approx(scores[3, 3] - scores[0, 0])
    assert effects["interaction"] == pytest.approx(scores[3, 3] - scores[0, 3] - scores[3, 0] + scores[0, 0])
    with pytest.raises(InputError, match="router 7 with experts 0"):
        tables.swap(table, 0, 7)


def test_spectra_ranks_and_gains_follow_the_rules(store: Store, names: list[str]) -> None:
    run = names[1]
    assert tables.inputs(store, run) == ["0.mlp_in", "0.mlp_mid", "1.mlp_in", "1.mlp_mid"]
    rules = tables.rules_of(store, run)
    assert rules == Rules(energy_threshold=0.9, gain="inverse", window=2)
    spectra = tables.spectra(store, run, LAST)
    assert (spectra.groupby("input")["eigenvalue"].diff().dropna() <= 0).all()
    ranks = tables.ranks(store, run, 0.9)
    assert set(ranks["after"]) == set(range(len(deep.TASKS)))
    assert set(ranks["dim"]) == {deep.WIDTH}
    assert (tables.ranks(store, run, 0.5)["rank"] <= ranks["rank"]).all()
    kept = spectra[spectra["kept"] >= 0.9].groupby("input")["k"].min()
    last = ranks[ranks["after"] == LAST].set_index("input")["rank"]
    assert kept.to_dict() == last.to_dict()
    gains = tables.gains(store, run, LAST, rules)
    assert gains.groupby("input").size().to_dict() == last.to_dict()
    assert gains[["router", "experts"]].to_numpy().max() <= 1
    weak, strong = (tables.protection(store, run, LAST, Rules(energy_threshold=0.9, damping=mu)) for mu in (10, 0.1))
    assert (strong["experts"] < weak["experts"]).all()
    assert (strong["router"] == weak["router"]).all()  # the inverse gain has no μ


def test_angles_of_tasks_are_symmetric_and_none_with_oneself(store: Store, names: list[str]) -> None:
    wide = tables.angles(store, names[0], "0.mlp_in", 0.8).pivot(index="first", columns="second", values="mean")
    assert np.diag(wide) == pytest.approx(0, abs=1e-4)
    assert wide.to_numpy() == pytest.approx(wide.to_numpy().T)
    assert (wide.to_numpy() <= 90).all()
    with pytest.raises(InputError, match=r"0\.mlp_inn.*0\.mlp_in, 0\.mlp_mid"):
        tables.angles(store, names[0], "0.mlp_inn")


def test_what_would_rest_follows_the_threshold_and_spares_the_best(store: Store, names: list[str]) -> None:
    scored = tables.activation(store, names[0])
    at = tables.at_threshold(scored, 1.0)
    assert not at[at["after"] == 0]["rests"].any()
    later = at[at["after"] > 0]
    assert (later.groupby(["after", "step", "layer"])["rests"].sum() == deep.EXPERTS - 1).all()
    assert not tables.at_threshold(scored, -1.0)["rests"].any()
    assert (later["relative_utilization"] - later["relative_importance"]).to_numpy() == pytest.approx(
        later["score"].to_numpy()
    )
    assert set(tables.last_scored(scored, 2)["step"]) == {2}  # the one at step 10 ends the task
    curve = tables.freezing(scored, [-1.0, 0.1, 1.0])
    assert list(curve[curve["after"] == 1]["share"])[::2] == [0.0, 0.75]
    assert tables.at_threshold(scored.iloc[:0], 0.0).empty


def test_steps_and_times_come_from_the_events(store: Store, names: list[str]) -> None:
    steps = tables.steps(store, names[:1])
    assert list(steps["position"]) == [0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0]
    assert list(steps["active"]) == [4, 4, 3, 3, 3, 3, 3, 3]
    times = tables.times(store, names[:1])
    assert list(times["train_seconds"]) == [10, 11, 12, 13]
    assert list(times["memory_mb"]) == [510] * 4


def test_runs_that_kept_less_have_empty_tables(runs: Path) -> None:
    store = Store(runs)
    run = plain(store, "mini-coin", ["moelora"])[0]
    assert tables.inputs(store, run) == []
    assert tables.spectra(store, run, 0).empty
    assert tables.ranks(store, run, 0.9).empty
    assert tables.activation(store, run).empty
    assert tables.drift(store, [run]).empty
    assert tables.reroutings(store, [run]).empty
    assert tables.freezing(tables.activation(store, run)).empty
    with pytest.raises(InputError, match="audit=true"):
        tables.angles(store, run, "0.mlp_in")


def test_a_damaged_spectrum_is_named(tmp_path: Path) -> None:
    folder = deep.write_deep_run(tmp_path, "same", 0.1)
    file = folder.snapshot(1).path / "spectrum.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    store = Store(tmp_path)
    with pytest.raises(SnapshotError, match=r"task_01/spectrum.safetensors is damaged"):
        tables.ranks(store, store.name(folder.path), 0.9)


def test_tables_and_figures_leave_torch_out() -> None:
    program = "import sys; from workbench import figures, tables; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"

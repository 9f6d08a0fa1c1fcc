"""Tables from run folders: what they hold, and what a damaged folder does to them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from same.errors import InputError
from same.maths import drift
from tests.workbench.synthetic import EXPERTS, LAYERS, TASKS, write_run
from workbench.store import Store, at_layer, layer_names, overlap
from workbench.trials import plain


def test_overview_has_a_row_a_run_and_the_shortest_label_that_tells_them_apart(runs: Path) -> None:
    table = Store(runs).overview().set_index("label")
    assert list(table.index) == ["lora", "moelora", "same · seed 0", "same · seed 1"]
    assert list(table["state"]) == ["interrupted", "finished", "finished", "finished"]
    assert list(table["tasks"]) == [3, 8, 8, 8]
    assert table.loc["moelora", "bwt"] < table.loc["same · seed 0", "bwt"] < 0


def test_a_damaged_run_shows_as_damaged_and_the_others_work(tmp_path: Path) -> None:
    good, bad = write_run(tmp_path, "same"), write_run(tmp_path, "lora")
    (bad.path / "config.json").write_bytes((bad.path / "config.json").read_bytes().replace(b"lora", b"lera", 1))
    table = Store(tmp_path).overview().set_index("method")
    assert table.loc["lora", "state"] == "damaged"
    assert "config.json" in str(table.loc["lora", "problem"])
    assert table.loc["same", "state"] == "finished"
    routing = good.snapshot(2).path / "routing.parquet"
    routing.write_bytes(routing.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"routing\.parquet is damaged"):
        Store(tmp_path).routing([str(table.loc["same", "run"])])


def test_scores_hold_the_zero_shot_row_and_the_lower_triangle(runs: Path) -> None:
    scores = Store(runs).scores(plain(Store(runs), "mini-coin", ["lora"])[0])
    assert scores["after"].value_counts().to_dict() == {-1: 8, 2: 3, 1: 2, 0: 1}
    assert list(scores["task"][:8]) == list(TASKS)


def test_overlap_and_divergence_are_those_of_the_library(runs: Path) -> None:
    store = Store(runs)
    routing = store.routing(plain(store, "mini-coin", ["moelora"]))
    assert len(routing) == len(TASKS) * len(LAYERS) * EXPERTS
    table = overlap(routing)
    for (layer, after), row in table.set_index(["layer", "after"]).iterrows():
        part = routing[routing["layer"] == layer].pivot(index="after", columns="expert", values="weight").to_numpy()
        first, now = torch.tensor(part[0]), torch.tensor(part[after])
        np.testing.assert_allclose(row["overlap"], drift.overlap(first, now), atol=1e-12)
        np.testing.assert_allclose(row["divergence"], drift.js_divergence(first, now), atol=1e-12)


def test_a_later_task_is_compared_with_its_own_first_stage(runs: Path) -> None:
    store = Store(runs)
    table = overlap(store.routing(plain(store, "mini-coin", ["same"]), probe=3))
    assert table["after"].min() == 3
    np.testing.assert_allclose(table.loc[table["after"] == 3, "overlap"], 1)


def test_layer_names_keep_only_what_differs() -> None:
    assert list(layer_names(LAYERS).values())[:4] == ["0.gate", "0.up", "0.down", "1.gate"]
    assert layer_names(["a.mlp.up_proj"]) == {"a.mlp.up_proj": "up"}
    assert layer_names(["a.b", "c"]) == {"a.b": "a.b", "c": "c"}


def test_the_mean_over_layers_is_a_distribution(runs: Path) -> None:
    store = Store(runs)
    mean = at_layer(store.routing(plain(store, "mini-coin", ["same"])))
    np.testing.assert_allclose(mean.groupby("after")["weight"].sum(), 1)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "mini-coin/same/none"])
def test_run_names_are_looked_up_and_never_joined(runs: Path, name: str) -> None:
    with pytest.raises(InputError, match="Unknown run"):
        Store(runs).folder(name)


def test_what_is_missing_is_said(tmp_path: Path, runs: Path) -> None:
    with pytest.raises(InputError, match="must exist"):
        Store(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"zero_shot.*Methods there: lora, moelora, same"):
        plain(Store(runs), "mini-coin", ["zero_shot"])
    assert Store(tmp_path).overview().empty
    assert isinstance(Store(tmp_path).metrics([]), pd.DataFrame)

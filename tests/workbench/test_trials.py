"""Runs that differ in a few settings: which are put together, and what the factorial says of them."""

import math
from pathlib import Path

import pandas as pd
import pytest

from same.errors import InputError
from tests.workbench.variants import BASE, BOTH, DEFAULTS, WORTH, corner_score, write_variant
from workbench import results, trials
from workbench.store import Store


@pytest.fixture(scope="module")
def store(variants: Path) -> Store:
    return Store(variants)


def test_runs_that_differ_in_what_is_named_and_the_seed_come_together(store: Store) -> None:
    table = trials.trials(store, "mini-coin", "same", ["damping"])
    assert sorted(table["damping"]) == [0.1, 1.0, 1.0, 10.0]
    assert sorted(table["seed"]) == [0, 0, 0, 1]
    assert sorted(trials.trials(store, "mini-coin", "same", ["task_order"])["task_order"]) == [0, 0, 1, 2]
    assert sorted(trials.trials(store, "mini-coin", "moelora", [])["seed"]) == [0, 1, 2]
    assert trials.trials(store, "mini-coin", "moelora", [], fixed={"train_items": 1}).empty
    assert trials.trials(store, "mini-ucit", "same", ["damping"]).empty


def test_runs_of_another_size_do_not_mix(tmp_path: Path) -> None:
    for damping in (1.0, 2.0):
        write_variant(tmp_path, "same", {"damping": damping})
    write_variant(tmp_path, "same", {"damping": 3.0, "rank": 2})
    assert sorted(trials.trials(Store(tmp_path), "mini-coin", "same", ["damping"])["damping"]) == [1.0, 2.0]


def test_effects_are_differences_of_means_of_corners(store: Store) -> None:
    corners = trials.corners(store, "mini-coin", "same")
    assert trials.missing_corners(corners) == []
    found = trials.effects(corners, "last").set_index("effect")["value"]
    assert found["routing"] == pytest.approx(WORTH["gain"] + BOTH / 2)
    assert found["curvature"] == pytest.approx(WORTH["curvature_on"] + BOTH / 2)
    assert found["activation"] == pytest.approx(WORTH["freeze_threshold"])
    assert found["routing × curvature"] == pytest.approx(BOTH / 2)
    assert found["routing × activation"] == pytest.approx(0, abs=1e-12)
    mean = trials.cells(corners, "last")["mean"].mean()
    assert mean + found.sum() / 2 == pytest.approx(corner_score((True, True, True)))


def test_a_corner_is_off_or_as_the_method_has_it_and_of_a_seed_that_all_corners_have(store: Store) -> None:
    corners = trials.corners(store, "mini-coin", "same")
    assert list(corners["seed"]) == [0] * 8
    everything = corners[corners[list(trials.SWITCHES)].all(axis=1)]
    assert everything["last"].item() == pytest.approx(corner_score((True, True, True)))
    given = [trials.own_settings(store.folder(run).config()) for run in corners["run"]]
    assert set().union(*given) == {name for name, _ in trials.SWITCHES.values()}


def test_a_switch_that_all_runs_were_given_is_on_where_it_is_not_off(tmp_path: Path) -> None:
    for curvature in ("AB", "none"):
        for own in ({}, {"gain": "none"}):
            write_variant(tmp_path, "same", {"curvature_on": curvature, **own})
    corners = trials.corners(Store(tmp_path), "mini-coin", "same")
    assert sorted(corners["curvature"]) == [False, False, True, True]


def test_seeds_that_not_every_cell_has_are_left_out() -> None:
    rows = [("a", 0), ("a", 1), ("b", 0), ("b", 1), ("b", 2), ("c", 2)]
    table = pd.DataFrame(rows, columns=["cell", "seed"])
    kept = trials.balanced(table, ["cell"])
    assert list(kept.itertuples(index=False, name=None)) == rows[:4]
    assert trials.balanced(table.iloc[:0], ["cell"]).empty


def test_the_papers_column_adds_one_after_the_other(store: Store) -> None:
    column = trials.cumulative(trials.corners(store, "mini-coin", "same"), "last")
    assert list(column["step"]) == ["none", "+ routing", "+ curvature", "+ activation"]
    steps = [(False, False, False), (True, False, False), (True, True, False), (True, True, True)]
    assert list(column["value"]) == pytest.approx([corner_score(corner) for corner in steps])


def test_a_missing_corner_is_named_and_no_effect_is_made_up(tmp_path: Path) -> None:
    write_variant(tmp_path, "same", {})
    corners = trials.corners(Store(tmp_path), "mini-coin", "same")
    assert len(trials.missing_corners(corners)) == 7
    assert "routing + curvature" in trials.missing_corners(corners)
    assert trials.effects(corners, "last").empty
    assert math.isnan(trials.cumulative(corners, "last")["value"].iloc[0])


def test_the_plain_run_is_not_one_of_the_ablation(store: Store) -> None:
    names = trials.plain(store, "mini-coin", ["moelora", "same"])
    assert [store.folder(name).config()["method"] for name in names] == ["moelora", "same"]
    settings = store.folder(names[1]).config()["settings"]["method"]
    assert settings == {"name": "same", **DEFAULTS}
    with pytest.raises(InputError, match="must hold a plain run of lora on mini-coin"):
        trials.plain(store, "mini-coin", ["lora"])


def test_settings_that_all_runs_share_leave_them_plain(tmp_path: Path) -> None:
    shared = {"batch_size": 64}
    for own in ({}, {"gain": "none"}):
        write_variant(tmp_path, "same", {**shared, **own})
    write_variant(tmp_path, "lora", {**shared, "rank": 2})
    store = Store(tmp_path)
    run = store.folder(trials.plain(store, "mini-coin", ["same"])[0])
    assert run.config()["settings"]["method"]["gain"] == "inverse"
    with pytest.raises(InputError, match="plain run of lora"):
        trials.plain(store, "mini-coin", ["lora"])


def test_a_method_without_settings_leaves_those_with_a_tuned_rate_plain(tmp_path: Path) -> None:
    tuned = {"learning_rate": 0.008}
    write_variant(tmp_path, "zero_shot", {})
    write_variant(tmp_path, "moelora", tuned)
    for own in ({}, {"gain": "none"}):
        write_variant(tmp_path, "same", {**tuned, **own})
    store = Store(tmp_path)
    names = trials.plain(store, "mini-coin", ["zero_shot", "moelora", "same"])
    assert store.folder(names[2]).config()["settings"]["method"]["gain"] == "inverse"


def test_runs_of_a_chain_stand_together_whatever_another_left_beside_them(tmp_path: Path) -> None:
    rated = {"learning_rate": 0.008}
    for method in ("zero_shot", "lora", "moelora", "same"):
        write_variant(tmp_path, method, rated if method != "zero_shot" else {})
    write_variant(tmp_path, "same", {**rated, "gain": "none"})
    for method in ("moelora", "same"):
        write_variant(tmp_path, method, {}, train_items=1600)
    store = Store(tmp_path)
    for methods in (["zero_shot", "lora", "same"], ["moelora", "same"], ["same"]):
        assert {rows_of(store, run) for run in trials.plain(store, "mini-coin", methods)} == {64}
    assert set(trials.trials(store, "mini-coin", "same", ["gain"])["gain"]) == {"none", "inverse"}
    table = results.ours(store, "mini-coin")
    assert set(table.loc[table["source"] == "runs", "method"]) == {"zero_shot", "lora", "moelora", "same"}
    write_variant(tmp_path, "same_plus", {}, train_items=1600)
    names = trials.plain(store, "mini-coin", ["moelora", "same", "same_plus"])
    assert {rows_of(store, run) for run in names} == {1600}, "the family that has all of them"
    with pytest.raises(InputError, match="plain run of same_plus on mini-coin with seed 0"):
        trials.plain(store, "mini-coin", ["lora", "same_plus"])


def test_a_run_that_was_interrupted_is_taken_where_none_is_finished(tmp_path: Path) -> None:
    write_variant(tmp_path, "same", {})
    stopped = write_variant(tmp_path, "same", {}, train_items=1600)
    write_variant(tmp_path, "lora", {}, train_items=1600)
    stopped.append_event("interrupted")
    store = Store(tmp_path)
    assert rows_of(store, trials.plain(store, "mini-coin", ["same"])[0]) == 64
    assert trials.plain(store, "mini-coin", ["lora", "same"])[1] == store.name(stopped.path)


def rows_of(store: Store, run: str) -> int:
    return int(store.folder(run).config()["settings"]["train_items"])


def test_points_and_settings_are_shown_where_there_are_several(store: Store) -> None:
    seeds = trials.points(store, "mini-coin", ["moelora", "same"], "last", "seed")
    assert list(seeds["label"]) == ["moelora"] * 3 + ["same"] * 2
    full = corner_score((True, True, True))
    assert sorted(seeds["value"]) == pytest.approx([BASE] * 3 + [full - 0.2, full])
    orders = trials.points(store, "mini-coin", ["same"], "last", "task_order")
    assert sorted(orders["about"]) == ["task_order 0", "task_order 1", "task_order 2"]
    varied = trials.varied(store, "mini-coin", "same", ["damping", "output_damping"], "last")
    assert set(varied["setting"]) == {"damping"}
    assert list(varied["seeds"]) == [1, 1, 1]
    assert list(varied["mean"]) == pytest.approx([full - 0.001, full, full - 0.1])

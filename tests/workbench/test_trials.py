"""Runs that differ in a few settings: which are put together, and what the factorial says of them."""

import math
from pathlib import Path

import pytest

from same.errors import InputError
from tests.workbench.variants import BASE, BOTH, DEFAULTS, WORTH, corner_score, write_variant
from workbench import trials
from workbench.store import Store


@pytest.fixture(scope="module")
def store(variants: Path) -> Store:
    return Store(variants)


def test_runs_that_differ_in_what_is_named_and_the_seed_come_together(store: Store) -> None:
    table = trials.trials(store, "mini-coin", "same", ["damping"])
    assert sorted(table["damping"]) == [0.1, 1.0, 10.0]
    assert sorted(trials.trials(store, "mini-coin", "same", ["task_order"])["task_order"]) == [0, 1, 2]
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


def test_points_and_settings_are_shown_where_there_are_several(store: Store) -> None:
    seeds = trials.points(store, "mini-coin", ["moelora", "same"], "last", "seed")
    assert list(seeds["label"]) == ["moelora"] * 3
    assert list(seeds["value"]) == pytest.approx([BASE] * 3)
    orders = trials.points(store, "mini-coin", ["same"], "last", "task_order")
    assert sorted(orders["about"]) == ["task_order 0", "task_order 1", "task_order 2"]
    varied = trials.varied(store, "mini-coin", "same", ["damping", "rank"], "last")
    assert set(varied["setting"]) == {"damping"}

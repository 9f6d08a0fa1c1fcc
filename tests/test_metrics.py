"""Metrics against values worked out by hand."""

import numpy as np
import pytest

from same import metrics

ROWS = [[0.8, None, None], [0.5, 0.6, None], [0.6, 0.3, 0.9]]
SCORES = {
    "variants": {"strict": ROWS},
    "zero_shot": {"strict": [0.1, 0.2, 0.3]},
    "forward": {"strict": [None, 0.4, 0.2]},
}


def test_three_tasks_by_hand():
    found = {name: values["strict"] for name, values in metrics.summarise(SCORES).items()}
    lost = (0.6 - 0.8) + (0.3 - 0.6)
    assert found == pytest.approx(
        {
            "last": 0.6,
            "mean": (0.8 + 0.55 + 0.6) / 3,
            "learning": (0.8 + 0.6 + 0.9) / 3,
            "bwt": lost / 2,
            "bwt_over_t": lost / 3,
            "fwt": ((0.4 - 0.2) + (0.2 - 0.3)) / 2,
            "forgetting": (0.2 + 0.3) / 2,
        }
    )


def test_every_metric_has_a_formula_for_the_glossary():
    assert set(metrics.FORMULAS) == set(metrics.NAMES) == set(metrics.summarise(SCORES))


def test_forgetting_counts_from_the_best_stage_not_from_the_first():
    matrix = metrics.to_matrix([[0.2, None], [0.5, 0.1]])
    assert metrics.forgetting(matrix) == 0.0
    assert metrics.bwt(matrix) == pytest.approx(0.3)


def test_an_unfinished_run_uses_its_finished_stages_only():
    scores = {"variants": {"strict": ROWS[:1]}, "zero_shot": {"strict": None}, "forward": {"strict": None}}
    found = {name: values["strict"] for name, values in metrics.summarise(scores).items()}
    assert found["last"] == found["learning"] == 0.8
    assert found["bwt"] is found["forgetting"] is found["fwt"] is None


def test_entries_above_the_diagonal_change_nothing():
    full = [[0.8, 0.1, 0.2], [0.5, 0.6, 0.7], [0.6, 0.3, 0.9]]
    assert np.array_equal(metrics.to_matrix(full), metrics.to_matrix(ROWS), equal_nan=True)


def test_without_any_stage_nothing_is_defined():
    scores = {"variants": {"strict": []}, "zero_shot": {"strict": None}, "forward": {"strict": None}}
    assert all(values["strict"] is None for values in metrics.summarise(scores).values())


def test_some_tasks_alone_are_read_after_the_last_of_all_and_where_they_were_learned():
    matrix = np.array([[0.5, np.nan, np.nan], [0.4, 9.0, np.nan], [0.1, 3.0, 0.7]])
    assert metrics.over_tasks(matrix, [0, 2]) == pytest.approx({"last": 0.4, "learning": 0.6, "bwt": -0.4})
    alone = metrics.over_tasks(matrix, [2])
    assert alone == pytest.approx({"last": 0.7, "learning": 0.7, "bwt": np.nan}, nan_ok=True)

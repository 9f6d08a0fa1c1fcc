"""Theorems of expert scores and masks."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from same.maths.freezing import active_experts, expert_scores, minmax

layers = st.lists(st.lists(st.floats(0, 100), min_size=4, max_size=4), min_size=1, max_size=3)


@given(layers, layers, st.floats(-1.5, 1.5))
@settings(max_examples=60, deadline=None)
def test_scores_are_bounded_and_an_expert_always_stays(used, important, threshold):
    count = min(len(used), len(important))
    utilization = torch.tensor(used[:count], dtype=torch.float64)
    importance = torch.tensor(important[:count], dtype=torch.float64)
    scores = expert_scores(utilization, importance)
    assert (scores.abs() <= 1).all()
    active = active_experts(scores, threshold)
    assert active.any(-1).all()
    assert active.gather(-1, scores.argmax(-1, keepdim=True)).all()
    assert ((scores >= threshold) <= active).all()


def test_important_and_unused_experts_freeze_first():
    utilization = torch.tensor([[0.6, 0.3, 0.1]])
    importance = torch.tensor([[1.0, 2.0, 3.0]])
    assert active_experts(expert_scores(utilization, importance), 0.0).tolist() == [[True, False, False]]


def test_equal_values_have_no_spread():
    assert torch.equal(minmax(torch.full((2, 3), 7.0)), torch.zeros(2, 3))

"""Every method trains as many parameters as the routed experts, or says why it does not."""

from same import registry
from same.engine.budget import TOLERANCE, tiny_budgets
from same.engine.plan import Asked, plan
from same.methods._base import Method
from same.methods._experts import ExpertConfig, adapted_shapes, expert_parameters


def test_trainable_parameters_match_or_a_reason_is_given():
    for name, budget in tiny_budgets().items():
        kind = registry.load_class("same.methods", name, Method)
        off = abs(budget.share - 1) > TOLERANCE
        own = kind.task_id_at_inference or not kind.trains  # as many a task; none
        assert bool(kind.budget_reason) == (off or own), (name, budget.share)


def test_a_run_records_its_budget(finished):
    (found,) = finished.events("budget")
    assert 0.9 < found["trainable"] / found["experts"] < 1.1  # its layers are too narrow for 2 % in steps of one rank


def test_the_experts_count_is_that_of_their_own_layers(make_llava):
    shapes = adapted_shapes(make_llava(), r".*language_model\.layers\.\d+\.mlp\.down_proj")
    assert shapes == [(16, 24), (16, 24)]
    assert expert_parameters(shapes, ExpertConfig(num_experts=2, rank=3)) == 2 * (2 * 3 * (16 + 24) + 2 * 24)


def test_every_method_can_be_planned_without_weights():
    found = {name: plan(Asked("tiny", "mini-coin", name)) for name in ("modal_prompt", "natural", "osf", "smolora")}
    assert all(each.fits for each in found.values())
    assert found["natural"].snapshot_megabytes > found["smolora"].snapshot_megabytes

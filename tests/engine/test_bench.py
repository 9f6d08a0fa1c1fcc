"""The benchmarks measure what they say, on sizes that take seconds; their numbers are never asserted."""

import json

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from same import registry
from same.engine.bench import constraint, covariance, freezing, generate, layer, rules, step
from same.engine.bench._machine import machine
from same.engine.bench._pairs import interleaved, median_ratio, saved_bytes

# Names are part of what a benchmark promises to those who read its JSON, so they are written out here.
CONTRACT = {
    "layer": {
        "overhead_over_flop_floor",
        "overhead_over_peft_lora",
        "saved_activations_over_peft_lora",
        "frozen_4_of_8_over_none",
        "frozen_7_of_8_over_none",
    },
    "covariance": {"share_of_base", "megabytes", "captured_energy_64"},
    "step": {"same_over_moelora"},
    "generate": {"batched_over_single"},
}
RULE_KEYS = {
    "routers": {"rule", "place", "old_routing_kl", "old_argmax_flips"},
    "experts": {"rule", "place", "degradation"},
}
SMALL = {
    "covariance": covariance.Config(widths=((300, 40),), tokens=64, updates=1, repeats=1),
    "layer": layer.Config(widths=((24, 40),), tokens=(8,), repeats=1),
    "generate": generate.Config(questions=2, batch=2, max_new_tokens=2, repeats=1, lengths=(1,)),
    "step": step.Config(rows=2, length=6, rounds=1, wide_rows=1, wide_rounds=1, width=256),
    "constraint": constraint.Config(widths=((24, 40),), tokens=8, repeats=1),
    "freezing": freezing.Config(steps=3, warmup=0.4, rows=2, length=6),
}


def test_the_floor_is_what_the_products_of_the_layer_take():
    inputs, outputs, experts, rank, tokens = 24, 40, 8, 2, 5
    x = torch.randn(tokens, inputs, requires_grad=True)
    weight = torch.randn(outputs, inputs)
    router = torch.randn(experts, inputs, requires_grad=True)
    a = torch.randn(experts * rank, inputs, requires_grad=True)
    b = torch.randn(outputs, experts * rank, requires_grad=True)

    def flops(adapted: bool) -> int:
        with FlopCounterMode(display=False) as counter:
            out = x @ weight.T
            if adapted:
                projected = x @ torch.cat([router, a]).T
                omega = projected[:, :experts].softmax(-1).repeat_interleave(rank, 1)
                out = out + (projected[:, experts:] * omega) @ b.T
            out.sum().backward()
        return counter.get_total_flops()

    added = flops(adapted=True) - flops(adapted=False)
    assert added / flops(adapted=False) == pytest.approx(layer.floor_share(inputs, outputs, experts, rank))


def test_saved_bytes_count_activations_once_and_no_parameters():
    module = nn.Linear(3, 5)
    x = torch.randn(7, 3, requires_grad=True)
    assert saved_bytes(lambda: module(x), module) == x.numel() * 4


def test_pairs_are_interleaved_and_ratios_are_of_pairs():
    order: list[str] = []
    times = interleaved({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 2)
    assert order == ["a", "b", "a", "b", "b", "a"]
    assert [len(found) for found in times.values()] == [2, 2]
    assert median_ratio([2.0, 9.0, 4.0], [1.0, 3.0, 4.0]) == 2.0
    order.clear()
    times = interleaved({"a": lambda: order.append("a")}, 1, again=True)
    assert (order, len(times["a"])) == (["a", "a", "a"], 1)


def promised(name, shown):
    """The parts of what is shown that hold a benchmark's promised keys."""
    if name == "layer":
        return [shown["fp32"], shown["bf16"], *shown["rows"]]
    return shown["rows"] if name == "covariance" else [shown]


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_every_benchmark_runs_and_gives_json(name):
    found = registry.load("same.engine.bench", name).run(SMALL[name])
    keys = {
        "covariance": len(found.get("rows", [])) == len(covariance.VARIANTS),
        "layer": set(layer.KEYS) == set(found.get("fp32", {})) == set(found.get("bf16", {})),
        "generate": [row.get("with_experts") for row in found.get("rows", [])] == [False, False, True],
        "step": {"same_over_moelora", "same_plus_over_moelora"} <= set(found)
        and set(found["models"]) == {"tiny", "wide"},
        "constraint": {(row["place"], row["on"]) for row in found.get("rows", []) if "share_of_adamw" in row}
        == {(place, part) for place in constraint.PLACES for part in constraint.PARTS},
        "freezing": [row["resting"] for row in found.get("rows", []) if "task_seconds" in row]
        == ["0 of 8", "4 of 8", "7 of 8", "by score"],
    }
    assert keys[name]
    shown = json.loads(json.dumps(found))
    assert shown["settings"]
    assert all(CONTRACT.get(name, set()) <= set(part) for part in promised(name, shown))


def test_the_machine_is_named():
    about = machine()
    assert {"cpu", "cores", "threads", "torch", "clock"} <= set(about)
    assert about["cpu"]
    assert about["threads"] == torch.get_num_threads()


@pytest.mark.slow
def test_resting_experts_hold_no_gradient():
    sizes = [row["gradient_bytes"] for row in freezing.run(SMALL["freezing"])["rows"][:3]]
    router = (8 * sizes[2] - sizes[0]) / 7  # sizes are router + trained experts of eight
    assert sizes[1] - router == pytest.approx((sizes[0] - router) / 2, rel=1e-3)


@pytest.mark.slow
def test_the_state_between_tasks_does_not_grow():
    found = step.run(step.Config(model="tiny", rows=2, length=6, rounds=1))["models"]["tiny"]
    for name in ("same", "same_plus"):
        kept = found[f"{name}_bytes_kept_after_tasks"]
        assert kept["1"] == kept["2"] > 0


@pytest.fixture(scope="module")
def found_rules():
    return json.loads(json.dumps(rules.run(rules.Config(seeds=1))))


@pytest.mark.slow
@pytest.mark.parametrize("part", RULE_KEYS)
def test_every_rule_is_given_by_name_place_and_what_it_lost(found_rules, part):
    """But for those that never learnt the new task, which have no numbers."""
    rows = found_rules[part]
    assert all({"problem", "rule", "place", "reached"} <= set(row) for row in rows)
    reached = [row for row in rows if row["reached"]]
    assert all(RULE_KEYS[part] <= set(row) for row in reached)
    assert len(reached) > len(rows) / 2


@pytest.fixture(scope="module")
def rule_rows(found_rules):
    return {key: {(row["problem"], row["rule"], row["place"]): row for row in found_rules[key]} for key in RULE_KEYS}


@pytest.mark.slow
@pytest.mark.parametrize("problem", ["conflict", "mild"])
def test_router_rules_keep_their_order(rule_rows, problem):
    rows = {key[1:]: row for key, row in rule_rows["routers"].items() if key[0] == problem}
    kl = {key: row["old_routing_kl"] for key, row in rows.items() if row["reached"]}
    flips = {key: row["old_argmax_flips"] for key, row in rows.items() if row["reached"]}
    damped = {place: ("damped, history C", place) for place in ("gradient", "coordinates", "both")}
    inverse, none = ("inverse sliding mean, running C", "gradient"), ("none", "none")
    assert 3 * kl[damped["both"]] < kl[damped["coordinates"]] < kl[damped["gradient"]]
    assert 2 * kl[damped["gradient"]] < kl[inverse] < kl[none]
    assert flips[damped["both"]] < flips[damped["gradient"]] < flips[inverse] < flips[none]
    assert kl["clamped", "gradient"] == pytest.approx(kl[none], rel=0.2)  # protects nothing
    blocked = rows["blocked, running C", "gradient"]  # its directions are the new task's too
    assert not blocked["reached"] or blocked["steps"] > 3 * rows[none]["steps"]
    assert 3 * kl[damped["both"]] < kl["blocked, history C", "both"] < kl[inverse]


@pytest.mark.slow
@pytest.mark.parametrize(("problem", "of_none"), [("conflict", 0.9), ("mild", 1.1)])
def test_expert_rules_keep_their_order(rule_rows, problem, of_none):
    lost = {key[1:]: row["degradation"] for key, row in rule_rows["experts"].items() if key[0] == problem}
    none = lost["none", "none"]
    on_a = [value for (rule, _), value in lost.items() if rule.endswith("on A")]
    assert 0.05 < none < 1  # there was something to lose
    assert max(on_a) < of_none * none < 2 * min(on_a)  # A alone helps where tasks conflict, and there little
    assert 5 * lost["damped inverse on A and B", "both"] < min(on_a)
    assert 2 * lost["damped inverse on A and B", "coordinates"] < min(on_a)

"""The traps that public code of this field falls into, as tests over every method there is."""

import pytest
import torch

from same import registry
from same.methods._base import Method

NAMES = registry.names("same.methods")
TRAINED = [name for name in NAMES if registry.load_class("same.methods", name, Method).trains]
PENALISED = ["ewc", "olora", "sefe"]
ORACLES = ["individual"]


def answers(method, batch):
    """Next-token logits as evaluation would have them: chosen by `route`, without labels."""
    method.model.eval()
    inputs = {key: value for key, value in batch.items() if key in ("input_ids", "attention_mask")}
    method.route(inputs)
    with torch.no_grad():
        return method.model(**inputs).logits


@pytest.fixture
def trained(make_method, train):
    """A method after two tasks."""

    def make(name, **settings):
        method = make_method(name, **settings)
        train(method, 0)
        train(method, 1)
        return method

    return make


@pytest.mark.parametrize("name", TRAINED)
def test_an_answer_does_not_depend_on_batch_mates(name, trained, make_batch):
    method, batch = trained(name), make_batch(5)
    together = answers(method, batch)
    for row in range(len(together)):
        length = int(batch["attention_mask"][row].sum())
        alone = answers(method, {key: value[row : row + 1, :length] for key, value in batch.items()})
        torch.testing.assert_close(alone[0], together[row, :length], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", TRAINED)
def test_cached_generation_is_generation(name, trained, make_batch):
    method = trained(name)
    inputs = {key: make_batch(7, rows=2, length=6)[key][:, :2] for key in ("input_ids", "attention_mask")}
    said = []
    for cached in (True, False):
        method.model.eval()
        method.route(inputs)
        said.append(
            method.model.generate(**inputs, max_new_tokens=4, do_sample=False, use_cache=cached, pad_token_id=0)
        )
    assert torch.equal(*said)


@pytest.mark.parametrize("name", PENALISED)
def test_a_penalty_changes_the_update(name, make_method, train, weights):
    found = []
    for strength in (1e-6, 1e3):
        method = make_method(name, strength=strength)
        train(method, 0)
        train(method, 1, 2)
        found.append(weights(method))
    assert any(not torch.equal(found[0][key], found[1][key]) for key in found[0])


@pytest.mark.parametrize("name", ["olora", "hide", "disco"])
def test_a_past_slot_acts_and_rests(name, make_method, train, make_batch):
    method = make_method(name)
    train(method, 0)
    kept = [(a[method.slot].clone(), b[:, method.slot].clone()) for a, b in method.factors]
    first = method.slot
    train(method, 1)
    assert method.slot.start >= first.stop
    for (a, b), (old_a, old_b) in zip(method.factors, kept, strict=True):
        assert torch.equal(a[first], old_a)
        assert torch.equal(b[:, first], old_b)
    before = answers(method, make_batch(3))
    with torch.no_grad():
        for _, b in method.factors:
            b[:, first] = 0
    assert not torch.equal(before, answers(method, make_batch(3)))


@pytest.mark.parametrize("name", ["sefe", "osf", "clmoe"])
def test_a_merge_changes_what_it_claims_and_nothing_else(name, make_method, train):
    method = make_method(name)
    train(method, 0)

    def everything():
        return {key: value.detach().clone() for key, value in method.model.named_parameters()}

    train(method, 1, end=False)
    before = everything()
    from same.methods._base import TaskContext

    if name == "osf":  # merges when the next task begins
        method.begin_task(TaskContext(2, "task2", 3, 6))
    else:
        method.end_task(TaskContext(1, "task1", 3, 6))
    after = everything()
    changed = {key for key in before if key in after and not torch.equal(before[key], after[key])}
    claimed = {
        key for key in before if any(key.endswith(it.removeprefix("base_model.model.")) for it in method.merged())
    }
    assert changed
    assert {key for key in changed if ("lora_B" not in key and "osf_" not in key) or name == "clmoe"} <= claimed
    assert claimed <= changed


@pytest.mark.parametrize("name", ["hide", "disco", "smolora", "clmoe", "modal_prompt"])
def test_a_choice_varies_with_the_row(name, trained, make_batch):
    method = trained(name, **({"chosen": 1} if name == "modal_prompt" else {}))
    method.model.eval()
    shown = []
    for seed in (50, 1050):  # the last batch of each task, of which the two first tokens are the question
        batch = {key: make_batch(seed)[key][:, :2] for key in ("input_ids", "attention_mask")}
        method.route(batch)
        shown.append(chosen(method))
    assert not torch.equal(*shown)


def chosen(method):
    """What the last `route` chose, whatever the method calls it."""
    if hasattr(method, "prompts"):
        return method._shown
    if hasattr(method, "task_routing"):
        layer = next(iter(method.layers.values()))
        return layer.reweigh(torch.zeros(3, method.config.num_experts))
    return method._weights[list(method.layers)[-1]]


def test_only_the_oracle_is_told_the_task():
    told = {name for name in NAMES if registry.load_class("same.methods", name, Method).task_id_at_inference}
    assert told == set(ORACLES)


@pytest.mark.parametrize("name", TRAINED)
def test_a_method_is_deterministic(name, make_method, train, weights):
    found = []
    for _ in range(2):
        method = make_method(name)
        train(method, 0)
        train(method, 1, 2)
        found.append(weights(method))
    assert [key for key in found[0] if not torch.equal(found[0][key], found[1][key])] == []

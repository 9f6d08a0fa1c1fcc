"""What holds for every method, registered by its file alone."""

import pytest
import torch
from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file, save_file

from same import registry
from same.methods._base import Method
from same.tuner.observe import moe_layers


def kind_of(name):
    return registry.load_class("same.methods", name, Method)


NAMES = registry.names("same.methods")
EXPERTS = [name for name in NAMES if name in ("moelora", "same", "same_plus")]


def test_the_methods_of_this_library_are_found():
    assert {"zero_shot", "lora", "moelora", "same", "same_plus"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_method_says_what_it_is(name):
    kind = registry.load_class("same.methods", name, Method)
    assert kind.title
    assert kind.notes
    assert kind().config == kind.Config()


@pytest.mark.parametrize("name", NAMES)
def test_a_method_learns_if_and_only_if_it_trains(name, make_method, make_llava, train, weights):
    method = make_method(name)
    before = weights(method)
    train(method, 0)
    after = weights(method)
    changed = any(not torch.equal(after[key], before[key]) for key in before)
    assert changed == method.trains
    assert all(torch.isfinite(value).all() for value in after.values())
    frozen = {key for key, _ in make_llava().named_parameters()}
    plain = {key.removeprefix("base_model.model.").replace(".base_layer", "") for key in after}
    assert not plain & frozen


@pytest.mark.parametrize("name", NAMES)
def test_saving_and_loading_gives_the_same_answers_and_next_update(
    name, make_method, make_batch, train, weights, tmp_path
):
    method = make_method(name)
    train(method, 0)
    train(method, 1)
    resumed = make_method(name)
    if isinstance(method.model, PeftModel):
        adapter = {key: value.contiguous() for key, value in get_peft_model_state_dict(method.model).items()}
        save_file(adapter, tmp_path / "adapter.safetensors")
        set_peft_model_state_dict(resumed.model, load_file(tmp_path / "adapter.safetensors"))
    if state := method.state_dict():
        save_file(state, tmp_path / "state.safetensors")
        state = load_file(tmp_path / "state.safetensors")
    resumed.load_state_dict(state)
    assert_equal(weights(method), weights(resumed))
    assert torch.equal(*(said(each, make_batch(4)) for each in (method, resumed)))
    train(method, 2)
    train(resumed, 2)
    assert_equal(weights(method), weights(resumed))
    assert_equal(method.state_dict(), resumed.state_dict())
    assert_equal(method.snapshot_tables().spectra, resumed.snapshot_tables().spectra)
    assert method.snapshot_tables().activation == resumed.snapshot_tables().activation


def said(method, batch):
    """Logits of the next tokens, for an oracle those of the first task."""
    method.reveal_task(0)
    inputs = {key: batch[key] for key in ("input_ids", "attention_mask")}
    method.model.eval()
    method.route(inputs)
    with torch.no_grad():
        logits = method.model(**inputs).logits
    method.model.train()
    return logits


def assert_equal(first, second):
    assert first.keys() == second.keys()
    assert [key for key in first if not torch.equal(first[key], second[key])] == []


@pytest.mark.parametrize("name", [name for name in NAMES if kind_of(name).parity])
def test_the_first_task_is_trained_as_by_its_base_method(name, make_method, train, weights):
    plain, method = make_method(kind_of(name).parity), make_method(name)
    train(plain, 0)
    train(method, 0)
    assert_equal(weights(plain), weights(method))


@pytest.mark.parametrize("name", EXPERTS)
def test_the_routing_probe_counts_what_it_is_shown(name, make_method, make_batch):
    method = make_method(name)
    probe = method.routing_probe()
    batch = make_batch()
    with probe.watching(batch), torch.no_grad():
        method.model(**batch)
    rows = probe.rows(lambda tensor: tensor.mul_(2))
    assert set(rows[0]) == {"layer", "input_key", "expert", "weight", "argmax_share", "tokens"}
    assert len(rows) == 4 * len(moe_layers(method.model))
    assert {row["tokens"] for row in rows} == {2 * int(batch["attention_mask"].sum())}
    assert sum(row["weight"] for row in rows[:4]) == pytest.approx(1)

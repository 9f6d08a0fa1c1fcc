"""Saved adapters come back with one call, whole or by parts, and what does not fit is refused before it changes any."""

import json

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from same.backbones._base import Backbone
from same.errors import InputError, SnapshotError
from same.tuner import MoELoraConfig, load_adapter

TARGETS = Backbone.layout(Backbone.Config(targets=("ffn", "vision_attention"))).targets
WEIGHTS = "adapter_model.safetensors"


def adapted(model, seed, **settings):
    model = get_peft_model(model, MoELoraConfig(**{"target_modules": TARGETS, "num_experts": 3, "r": 2, **settings}))
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.normal_(std=0.3, generator=generator)
    return model


@pytest.fixture
def saved(make_llava, tmp_path):
    """Adapters of two snapshots of one run."""
    folders = [tmp_path / name for name in ("s", "t")]
    for seed, folder in enumerate(folders):
        adapted(make_llava(), seed).save_pretrained(folder, save_embedding_layers=False)
    return folders


def answers(model, batch):
    with torch.no_grad():
        return model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits


def state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_one_call_on_a_fresh_model_gives_the_saved_one(make_llava, make_batch, saved):
    expected = answers(adapted(make_llava(), 0), make_batch())
    loaded = load_adapter(make_llava(), saved[0])
    assert torch.equal(answers(loaded, make_batch()), expected)
    assert torch.equal(answers(PeftModel.from_pretrained(make_llava(), saved[0]), make_batch()), expected)
    assert {"lora_" in name for name, p in loaded.named_parameters() if p.requires_grad} == {True}


def test_routers_of_one_snapshot_and_experts_of_another_are_exactly_that(make_llava, make_batch, saved):
    one, other = (load_file(folder / WEIGHTS) for folder in saved)
    mixture = load_adapter(load_adapter(make_llava(), saved[0], "router"), saved[1], part="experts")
    found = {name.replace(".default", ""): value for name, value in mixture.named_parameters() if "lora_" in name}
    assert found.keys() == one.keys()
    for name, value in found.items():
        assert torch.equal(value, (one if "lora_router" in name else other)[name]), name
    again = load_adapter(load_adapter(make_llava(), saved[1]), saved[0], part="router")
    assert torch.equal(answers(again, make_batch()), answers(mixture, make_batch()))


def test_a_part_leaves_the_other_as_it_is(make_llava, saved):
    model = adapted(make_llava(), 5)
    before = state(model)
    load_adapter(model, saved[0], "router")
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {name for name in before if "lora_router" in name}


def lose(weights, name):
    del weights[name]


def add(weights, name):
    weights[f"{name}.3"] = weights[name].clone()


def cut(weights, name):
    weights[name] = weights[name][:, :-1].contiguous()


@pytest.mark.parametrize(("harm", "said"), [(lose, "is missing"), (add, "is foreign to it"), (cut, "another size")])
@pytest.mark.parametrize("fresh", [True, False])
def test_tensors_that_do_not_fit_are_named_before_anything_changes(make_llava, saved, harm, said, fresh):
    weights = load_file(saved[0] / WEIGHTS)
    name = next(name for name in weights if name.endswith("layers.1.mlp.up_proj.lora_A.1"))
    harm(weights, name)
    save_file(weights, saved[0] / WEIGHTS)
    model = make_llava() if fresh else adapted(make_llava(), 5)
    before = state(model)
    with pytest.raises(SnapshotError, match=rf"{name.replace('.', '[.]')}.* {said}"):
        load_adapter(model, saved[0], "router")
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], before[key]) for key in before)


def test_an_adapter_of_another_size_or_model_is_refused(make_llava, saved):
    with pytest.raises(SnapshotError, match=r"lora_A\.0 is of another size"):
        load_adapter(adapted(make_llava(), 0, r=4), saved[0])
    other = adapted(make_llava(), 0, lora_alpha=3.0)
    with pytest.raises(SnapshotError, match=r"lora_alpha of the model's adapter, 3\.0; got 16"):
        load_adapter(other, saved[0], part="experts")
    load_adapter(other, saved[0], part="router")
    with pytest.raises(SnapshotError, match="match no layer"):
        load_adapter(torch.nn.Sequential(torch.nn.Linear(2, 2)), saved[0])


def test_what_is_no_saved_adapter_of_ours_is_named(make_llava, saved, tmp_path):
    with pytest.raises(InputError, match="part must be one of all, router, experts"):
        load_adapter(make_llava(), saved[0], "routers")
    with pytest.raises(SnapshotError, match="nowhere must hold"):
        load_adapter(make_llava(), tmp_path / "nowhere")
    lora = get_peft_model(make_llava(), LoraConfig(target_modules=TARGETS))
    with pytest.raises(InputError, match="of another kind"):
        load_adapter(lora, saved[0])
    lora.save_pretrained(tmp_path / "lora", save_embedding_layers=False)
    with pytest.raises(SnapshotError, match="LORA"):
        load_adapter(make_llava(), tmp_path / "lora")
    (saved[1] / WEIGHTS).write_bytes(b"damaged")
    with pytest.raises(SnapshotError, match="reading them failed"):
        load_adapter(make_llava(), saved[1])
    (saved[0] / "adapter_config.json").write_text(json.dumps({"peft_type": "SAMEMOE", "r": 0}))
    with pytest.raises(SnapshotError, match="r must be positive"):
        load_adapter(make_llava(), saved[0])

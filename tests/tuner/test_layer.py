"""The tuner inside a LLaVA: what it leaves alone, how it is saved, what resting experts do."""

import pytest
import torch
from peft import PeftModel, get_peft_model
from torch.nn.utils import parameters_to_vector

from same.errors import InputError
from same.tuner import MoELoraConfig, MoELoraLinear
from same.tuner.observe import moe_layers

TARGETS = r".*language_model\.layers\.\d+\.mlp\.(gate_proj|up_proj|down_proj)"


@pytest.fixture
def adapted(make_llava):
    """A LLaVA with four experts of rank 2 whose B are not zero."""
    model = get_peft_model(make_llava(), MoELoraConfig(target_modules=TARGETS, num_experts=4, r=2))
    return fill(model)


def fill(model):
    generator = torch.Generator().manual_seed(5)
    for layer in moe_layers(model).values():
        for factor in layer.experts_b:
            factor.data.normal_(std=0.3, generator=generator)
        layer.router.data.normal_(std=0.5, generator=generator)
    return model


def answers(model, batch):
    with torch.no_grad():
        return model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits


def test_only_the_ffn_of_the_language_model_is_adapted(adapted):
    assert len(moe_layers(adapted)) == 6
    assert all(name.startswith("model.language_model.layers.") for name in moe_layers(adapted))
    trained = [name for name, parameter in adapted.named_parameters() if parameter.requires_grad]
    assert len(trained) == 6 * (4 + 4 + 1)
    assert all("lora_" in name for name in trained)


def test_a_new_adapter_changes_nothing(make_llava, make_batch):
    batch = make_batch()
    expected = answers(make_llava(), batch)
    model = get_peft_model(make_llava(), MoELoraConfig(target_modules=TARGETS))
    assert torch.equal(answers(model, batch), expected)


def test_a_disabled_adapter_is_the_base(adapted, make_llava, make_batch):
    batch = make_batch()
    expected = answers(make_llava(), batch)
    assert not torch.allclose(answers(adapted, batch), expected)
    with adapted.disable_adapter():
        assert torch.equal(answers(adapted, batch), expected)


def test_save_and_load_through_peft_is_bit_equal(adapted, make_llava, make_batch, tmp_path):
    adapted.save_pretrained(tmp_path, save_embedding_layers=False)
    loaded = PeftModel.from_pretrained(make_llava(), tmp_path)
    assert torch.equal(answers(loaded, make_batch()), answers(adapted, make_batch()))
    config = loaded.peft_config["default"]
    assert (config.num_experts, config.r, config.peft_type) == (4, 2, "SAMEMOE")


def test_adapters_are_named_added_switched_and_deleted(adapted, make_batch):
    batch = make_batch()
    first = answers(adapted, batch)
    adapted.add_adapter("second", MoELoraConfig(target_modules=TARGETS, num_experts=2, r=3))
    assert torch.equal(answers(adapted, batch), first)
    adapted.set_adapter("second")
    with adapted.disable_adapter():
        base = answers(adapted, batch)
    assert torch.equal(answers(adapted, batch), base)
    adapted.set_adapter("default")
    adapted.delete_adapter("second")
    assert torch.equal(answers(adapted, batch), first)


def test_an_answer_does_not_depend_on_its_batch(adapted, make_batch):
    batch = make_batch()
    together = answers(adapted, batch)
    for row, length in enumerate(batch["attention_mask"].sum(1).tolist()):
        alone = answers(adapted, {key: value[row : row + 1, :length] for key, value in batch.items()})
        torch.testing.assert_close(together[row : row + 1, :length], alone, rtol=1e-4, atol=1e-5)


def test_cached_generation_equals_uncached(adapted, make_batch):
    batch = make_batch()
    tokens = batch["input_ids"].flip(1)  # left-padded
    inputs = {"input_ids": tokens, "attention_mask": (tokens != 0).long(), "max_new_tokens": 6, "do_sample": False}
    cached = adapted.generate(**inputs, use_cache=True)
    assert torch.equal(cached, adapted.generate(**inputs, use_cache=False))


def test_master_weights_are_float32_under_a_bfloat16_base(make_llava, make_batch):
    model = fill(get_peft_model(make_llava().to(torch.bfloat16), MoELoraConfig(target_modules=TARGETS)))
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    assert answers(model, make_batch()).dtype == torch.bfloat16


def test_autocast_and_checkpointing_give_the_gradients_of_plain_training(adapted, make_batch):
    def gradients():
        adapted.zero_grad()
        adapted(**make_batch()).loss.backward()
        return parameters_to_vector([p.grad for p in adapted.parameters() if p.requires_grad])

    adapted.train()
    plain = gradients()
    with torch.autocast("cpu", torch.bfloat16):
        half = gradients()
    adapted.enable_input_require_grads()
    adapted.get_base_model().activation_checkpointing_enable({"use_reentrant": False})
    torch.testing.assert_close(gradients(), plain)
    assert torch.cosine_similarity(half, plain, dim=0) > 0.98


@pytest.mark.parametrize("keep", [False, True])
def test_resting_experts_get_no_gradient_and_do_not_move_under_adamw(adapted, make_batch, keep):
    adapted.train()
    parameters = [p for p in adapted.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=0.1, weight_decay=0.5)

    def step():
        optimizer.zero_grad()
        adapted(**make_batch()).loss.backward()
        optimizer.step()

    step()  # so that there is momentum to leak
    layers = moe_layers(adapted).values()
    for layer in layers:
        layer.set_active(torch.tensor([True, False, True, False]), keep=keep)
    resting = [p for layer in layers for i in (1, 3) for p in (layer.experts_a[i], layer.experts_b[i])]
    working = [p for layer in layers for i in (0, 2) for p in (layer.experts_a[i], layer.experts_b[i])]
    before, moments = parameters_to_vector(resting), [optimizer.state[p]["exp_avg"].clone() for p in resting]
    active = parameters_to_vector(working)
    step()
    step()
    assert torch.equal(parameters_to_vector(resting), before)
    assert all(torch.equal(optimizer.state[p]["exp_avg"], m) for p, m in zip(resting, moments, strict=True))
    assert (parameters_to_vector(working) != active).all()
    assert all(p.grad is None for p in resting)


def test_skipping_equals_a_layer_that_has_the_active_experts_only(adapted):
    layer: MoELoraLinear = next(iter(moe_layers(adapted).values()))
    x = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0))
    layer.set_active(torch.tensor([False, True, True, False]))
    skipped = layer(x)
    omega = (x @ layer.router[1:3].T).softmax(-1)
    expected = layer.base_layer(x)
    for column, expert in enumerate((1, 2)):
        expected = expected + 8 * omega[..., column, None] * (x @ layer.experts_a[expert].T @ layer.experts_b[expert].T)
    torch.testing.assert_close(skipped, expected)
    layer.set_active(torch.ones(4, dtype=torch.bool))
    everyone = layer(x)
    layer.set_active(torch.tensor([False, True, True, False]), keep=True)
    torch.testing.assert_close(layer(x), everyone)
    assert layer.trained_experts == (1, 2)


def test_bad_input_is_named(adapted, make_llava):
    layer = next(iter(moe_layers(adapted).values()))
    with pytest.raises(InputError, match="at least one"):
        layer.set_active(torch.zeros(4, dtype=torch.bool))
    with pytest.raises(InputError, match="merged"):
        layer.merge()
    with pytest.raises(InputError, match="routing must be one of token, sample, batch; got 'row'"):
        MoELoraConfig(routing="row")
    with pytest.raises(InputError, match="top_k"):
        MoELoraConfig(num_experts=4, top_k=5)
    with pytest.raises(InputError, match="target_modules"):
        get_peft_model(make_llava(), MoELoraConfig())


def test_routing_set_by_hand_is_every_tokens_until_it_is_lifted(adapted, make_batch):
    batch = make_batch()
    layer = next(iter(moe_layers(adapted).values()))
    expected = answers(adapted, batch)
    alone = torch.tensor([0.0, 1.0, 0.0, 0.0])
    layer.set_routing(alone)
    set_by_hand = answers(adapted, batch)
    with torch.no_grad():
        layer.set_routing(None)
        kept = [b.clone() for b in layer.experts_b]
        for expert, b in enumerate(layer.experts_b):
            b.copy_(kept[1] if expert == 1 else torch.zeros_like(b))
        layer.router.zero_()
        layer.experts_b[1].mul_(4)  # with ω = 1/4 of each
    assert torch.allclose(answers(adapted, batch), set_by_hand, atol=1e-5)
    assert not torch.allclose(set_by_hand, expected)
    with pytest.raises(InputError, match="weights must hold 4 numbers"):
        layer.set_routing(torch.ones(3))

"""Ways to carry out the same training: recomputed activations, compiled adapters, other optimisers."""

import sys

import pytest
import torch
from peft import get_peft_model
from safetensors.torch import load_file
from torch._dynamo.utils import counters

from same.engine.job import TrainConfig, make_config, resolve
from same.engine.optimizers import make_optimizer
from same.engine.passes import compile_adapters, recompute_activations
from same.engine.session import Session
from same.engine.snapshot import ADAPTER
from same.engine.trainer import train
from same.errors import InputError
from same.methods._base import TaskContext
from same.methods._groups import InputGroup
from same.tuner import MoELoraConfig, MoELoraLinear
from same.tuner.observe import moe_layers

SMALL = {"method": "same", "num_experts": 2, "rank": 2, "audit": False, "evaluate_next": False}


def tensors(run, name):
    return load_file(run.snapshot(1).file(name))


def test_recomputed_activations_give_the_weights_and_statistics_of_plain_training(ask, tmp_path):
    settings = {**SMALL, "targets": "ffn,vision_ffn"}
    runs = [train(ask(tmp_path, **settings, gradient_checkpointing=flag)) for flag in (False, True)]
    for name in (ADAPTER, "method_state.safetensors"):
        plain, again = (tensors(run, name) for run in runs)
        assert plain.keys() == again.keys()
        assert [key for key in plain if not torch.equal(plain[key], again[key])] == []


def test_blocks_of_both_towers_are_run_again_in_backward(ask, tmp_path):
    session = Session.open(ask(tmp_path, **SMALL, targets="ffn,vision_ffn", gradient_checkpointing=True))
    session.attach()
    batch = session.collate_train(session.rows.train[0].select(range(2)).to_list())
    session.method.begin_task(TaskContext(0, "colour", 1, 1))
    passes = dict.fromkeys(moe_layers(session.model), 0)
    for name, layer in moe_layers(session.model).items():
        layer.register_forward_pre_hook(lambda *_, name=name: passes.update({name: passes[name] + 1}))
    session.model.train()(**batch).loss.backward()
    assert set(passes.values()) == {2}


def test_a_model_that_cannot_run_its_blocks_again_is_refused(make_llava):
    model = make_llava()
    type(model).supports_gradient_checkpointing, before = False, type(model).supports_gradient_checkpointing
    try:
        with pytest.raises(InputError, match="gradient_checkpointing must be false"):
            recompute_activations(model)
    finally:
        type(model).supports_gradient_checkpointing = before


def trained(model, batch):
    """Weights after three steps; in the last, one expert rests and the batch is shorter."""
    layers = moe_layers(model).values()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=0.01)
    for step in range(3):
        for layer in layers:
            layer.set_active(torch.tensor([True, True, step < 2]))
        optimizer.zero_grad()
        shown = batch if step < 2 else {name: value[:2, :8] for name, value in batch.items()}
        model(**shown).loss.backward()
        optimizer.step()
    return [parameter.detach() for parameter in parameters]


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiled_adapters_train_as_eager_ones_in_whole_graphs(make_llava, make_batch, backend):
    targets = r".*language_model\.layers\.\d+\.mlp\.(gate_proj|up_proj|down_proj)"
    torch._dynamo.reset()
    counters.clear()
    weights = []
    for compiled in (False, True):
        model = make_llava().double()
        torch.manual_seed(1)
        config = MoELoraConfig(target_modules=targets, num_experts=3, r=2)
        model = get_peft_model(model, config).double().train()
        if compiled:
            compile_adapters(model, backend)
        weights.append(trained(model, make_batch()))
    torch.testing.assert_close(weights[1], weights[0], rtol=0, atol=1e-6)
    assert counters["stats"]["unique_graphs"] >= 2
    assert not counters["graph_break"]


def test_a_run_compiles_only_where_asked(ask, tmp_path):
    kernels = []
    for flag in (False, True):
        session = Session.open(ask(tmp_path, **SMALL, compile=flag))
        session.attach()
        kernels.append({layer.kernel for layer in moe_layers(session.model).values()})
    assert len(kernels[0]) == len(kernels[1]) == 1
    assert kernels[0] != kernels[1]


def test_a_missing_compiler_is_named(make_llava, monkeypatch):
    model = get_peft_model(make_llava(), MoELoraConfig(target_modules=["up_proj"]))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InputError, match=r"C\+\+ compiler"):
        compile_adapters(model)


@pytest.mark.parametrize("name", ["adamw", "sgd", "adamw_8bit"])
def test_every_optimiser_moves_weights_between_the_hooks_of_a_method(name):
    weight = torch.nn.Parameter(torch.linspace(1, 2, 128 * 128).view(128, 128))
    resting = torch.nn.Parameter(torch.ones(128, 128))
    optimizer = make_optimizer([weight, resting], TrainConfig(optimizer=name, learning_rate=0.1, weight_decay=0.1))
    seen = []
    optimizer.register_step_pre_hook(lambda *_: seen.append(weight.detach().clone()))
    optimizer.register_step_post_hook(lambda *_: seen.append(weight.detach().clone()))
    weight.square().sum().backward()
    optimizer.step()
    before, after = seen
    assert (after < before).all()
    assert torch.equal(resting, torch.ones(128, 128))


@pytest.mark.parametrize("keep", [True, False])
def test_rows_at_rest_and_their_moments_stay_with_moments_in_8_bits(keep):
    """Of a router of 16 × 300 numbers no block of 256 belongs to one expert, so its moments are in float32."""
    torch.manual_seed(0)
    sizes = {"num_experts": 16, "r": 16}
    layer = MoELoraLinear(torch.nn.Linear(300, 40), "default", MoELoraConfig(target_modules=["any"], **sizes))
    group = InputGroup([layer])
    parameters = [parameter for parameter in layer.parameters() if parameter is not layer.base_layer.weight]
    settings = TrainConfig(optimizer="adamw_8bit", learning_rate=0.1, weight_decay=0.3)
    optimizer = make_optimizer(parameters, settings, [layer.router])

    def step():
        optimizer.zero_grad()
        layer(torch.randn(20, 300)).square().sum().backward()
        group.rest_gradients_()
        group.remember(optimizer, updates=False)
        optimizer.step()
        group.scale_updates_(optimizer)

    def held(expert):
        rows = [layer.router.detach()[expert], *(optimizer.state[layer.router][f"state{i}"][expert] for i in (1, 2))]
        factors = [layer.experts_a[expert], layer.experts_b[expert]]
        moments = [optimizer.state[factor][f"state{i}"] for factor in factors for i in (1, 2)]
        return [value.clone() for value in (*rows, *factors, *moments)]

    step()
    group.set_active(0, torch.arange(16) % 2 == 0, keep=keep)
    before = [held(expert) for expert in range(16)]
    step()
    for expert, old in enumerate(before):
        still = [torch.equal(a, b) for a, b in zip(old, held(expert), strict=True)]
        assert set(still) == {expert % 2 == 1}
    assert optimizer.state[layer.router]["state1"].dtype == torch.float32
    assert optimizer.state[layer.experts_a[0]]["state1"].dtype == torch.uint8


def test_same_trains_with_plain_gradient_descent(ask, tmp_path):
    run = train(ask(tmp_path, **SMALL, apply_to="both", optimizer="sgd", learning_rate=0.5))
    first, last = (load_file(run.snapshot(index).file(ADAPTER)) for index in (0, 2))
    assert any(not torch.equal(first[name], last[name]) for name in first)


@pytest.mark.parametrize("setting", [{"optimizer": "adamw_8bit"}, {"weights": "int8"}, {"weights": "nf4"}])
def test_without_bitsandbytes_its_settings_say_what_to_install(ask, tmp_path, setting, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)  # as where it is not installed
    with pytest.raises(InputError, match=r"pip install 'same-workbench\[quantised\]'"):
        resolve(ask(tmp_path, **setting))


def test_an_unknown_optimiser_names_the_choices():
    with pytest.raises(InputError, match="optimizer must be one of adamw, sgd, adamw_8bit"):
        make_config(TrainConfig, {"optimizer": "adam"})

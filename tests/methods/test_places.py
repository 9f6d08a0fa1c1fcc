"""Where the rules act, in float64 through the optimiser's own hooks: with decay, momentum, clipping and rest."""

from itertools import pairwise

import pytest
import torch
from torch.func import functional_call

from same.engine.job import TrainConfig
from same.engine.optimizers import make_optimizer
from same.maths.curvature import curvature_scaling, degradation
from same.maths.routing import router_scaling
from tests.methods.conftest import asked

QUIET = {"freeze_threshold": -1.0, "curvature_on": "A", "token_stride": 1}
POWERS = {"gradient": (1.0, 0.0), "update": (0.0, 1.0), "both": (1.0, 1.0), "coordinates": (0.5, 0.5)}
OPTIMIZERS = {
    "adamw": lambda these: torch.optim.AdamW(these, lr=0.02, weight_decay=0.3),
    "sgd": lambda these: torch.optim.SGD(these, lr=0.02, momentum=0.9, weight_decay=0.3),
    "adamw_8bit": lambda these: make_optimizer(these, IN_8_BITS),
}
IN_8_BITS = TrainConfig(optimizer="adamw_8bit", learning_rate=0.02, weight_decay=0.3)
LARGE = {"rank": 256}  # every A and B has 4,096 numbers or more, the fewest kept in 8 bits
# Moments in 8 bits turn differences of rounding into differences of 1 %: such runs are compared step by step alone.
SMOOTH = ["adamw", "sgd"]
EVERY = [*SMOOTH, "adamw_8bit"]


def adam(these):
    return torch.optim.AdamW(these, lr=0.02, weight_decay=0.0)


@pytest.fixture
def begun(make_method, train):
    """A factory of methods in float64 that have learnt one task."""

    def make(name="same_plus", **settings):
        method = make_method(name, **settings)
        method.model.double()
        train(method, 0, 3)
        return method

    return make


def power(method, name, exponent):
    """P^exponent of routers or of A by parameter name, dense, from the definition; nothing for B."""
    layer, _, leaf = name.removeprefix("base_model.model.").partition(".lora_")
    if leaf.startswith("B"):
        return None
    spectrum, config = method.spectra[method.input_key(layer)], method.config
    if leaf.startswith("A"):
        matrix = curvature_scaling(spectrum, damping=config.damping, energy_threshold=config.energy_threshold).matrix()
    else:
        router = {"gain": config.gain, "energy_threshold": config.energy_threshold, "damping": config.damping}
        matrix = router_scaling(spectrum, **router).matrix()
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp_min(0) ** exponent) @ vectors.T


def trained(method):
    return {name: p for name, p in method.model.named_parameters() if p.requires_grad}


def copies(method):
    return {name: p.detach().clone() for name, p in trained(method).items()}


def largest_gap(first, second):
    return max(float((first[name] - second[name]).detach().abs().max()) for name in first)


@pytest.mark.parametrize("name", ["same", "same_plus"])
def test_adam_in_coordinates_is_adam_on_z(name, begun, train, make_batch):
    """W = W_start + Z P^{1/2}, with Z itself the parameter that autograd and AdamW see."""
    settings = {**QUIET, "apply_to": "coordinates", "router_geometry": "history"}
    method, explicit = begun(name, **settings), begun(name, **settings)
    train(method, 1, 5, optimizer=adam, end=False)
    start = copies(explicit)
    roots = {key: power(explicit, key, 0.5) for key in start}
    z = {key: torch.zeros_like(value).requires_grad_() for key, value in start.items()}

    def weights():
        return {key: start[key] + (z[key] if roots[key] is None else z[key] @ roots[key]) for key in z}

    optimizer = adam(list(z.values()))
    for step in range(5):
        optimizer.zero_grad()
        functional_call(explicit.model, weights(), kwargs=asked(make_batch(1000 + 10 * step))).loss.backward()
        optimizer.step()
    found = copies(method)
    assert largest_gap(found, start) > 0.01
    assert largest_gap(found, weights()) < 1e-12


@pytest.mark.parametrize("clip", [0.0, 0.05])
@pytest.mark.parametrize("optimizer", SMOOTH)
@pytest.mark.parametrize("apply_to", POWERS)
def test_each_place_is_its_power_of_p_on_either_side(apply_to, optimizer, clip, begun, train):
    """G ← clip(G) P^a, the optimiser as it is, ΔW ← ΔW P^b, decay included."""
    settings = {**QUIET, "apply_to": apply_to}
    method, plain = begun(**settings), begun(**settings)
    before, after = POWERS[apply_to]
    matrices = {key: (power(plain, key, before), power(plain, key, after)) for key in copies(plain)}
    old = {}

    def by_hand(step):
        for key, parameter in trained(plain).items():
            old[key] = parameter.detach().clone()
            if matrices[key][0] is not None:
                parameter.grad = parameter.grad @ matrices[key][0]

    def finish(step):
        for key, parameter in trained(plain).items():
            if matrices[key][1] is not None:
                parameter.data = old[key] + (parameter.detach() - old[key]) @ matrices[key][1]

    clip_first(method, clip, method.before_step)
    clip_first(plain, clip, by_hand)
    plain.after_step = finish
    for each in (method, plain):
        train(each, 1, 4, optimizer=OPTIMIZERS[optimizer], end=False)
    assert largest_gap(copies(method), copies(plain)) < 1e-10


@pytest.mark.parametrize("optimizer", EVERY)
@pytest.mark.parametrize("apply_to", POWERS)
def test_each_place_is_its_power_of_p_in_every_step_of_any_optimiser(apply_to, optimizer, begun, train):
    """The optimiser sees G P^a, and of the step it would have taken ΔW P^b is left."""
    method = begun(**QUIET, **LARGE, apply_to=apply_to)
    matrices = {key: [power(method, key, exponent) for exponent in POWERS[apply_to]] for key in copies(method)}
    edit, finish, old, made, gaps = method.before_step, method.after_step, {}, {}, []

    def times(values, side):
        return {
            key: value if matrices[key][side] is None else value @ matrices[key][side] for key, value in values.items()
        }

    def gradients():
        return {key: parameter.grad.clone() for key, parameter in trained(method).items()}

    def moved():
        return {key: weight - old[key] for key, weight in copies(method).items()}

    def before_step(step):
        given = gradients()
        edit(step)
        gaps.append(largest_gap(gradients(), times(given, 0)))
        old.update(copies(method))

    def after_step(step):
        free = moved()
        assert min(float(change.abs().max()) for change in free.values()) > 1e-4
        finish(step)
        gaps.append(largest_gap(moved(), times(free, 1)))
        made.update(step.optimizer.state)

    method.before_step, method.after_step = before_step, after_step
    train(method, 1, 4, optimizer=OPTIMIZERS[optimizer], end=False)
    assert len(gaps) == 8
    assert max(gaps) < 1e-10
    if optimizer == "adamw_8bit":
        assert {made[p]["state1"].dtype for key, p in trained(method).items() if "router" not in key} == {torch.uint8}


def clip_first(method, clip, before_step):
    """The trainer clips between backward and the optimiser's step."""

    def clipped(step):
        if clip:
            torch.nn.utils.clip_grad_norm_(trained(method).values(), clip)
        before_step(step)

    method.before_step = clipped


def test_a_refreshed_geometry_starts_new_coordinates_and_keeps_the_moments(begun, train, make_batch):
    method, explicit = (begun("same", **QUIET, apply_to="coordinates", refresh_steps=2) for _ in range(2))
    roots = []

    def note(_):
        rules = {method.input_key(name): method.groups[method.input_key(name)].rules for name in method.layers}
        roots.append({key: (rule.router.matrix(), rule.experts.matrix()) for key, rule in rules.items()})

    train(method, 1, 6, optimizer=adam, each=note, end=False)
    start = copies(explicit)
    z = {key: torch.zeros_like(value).requires_grad_() for key, value in start.items()}
    optimizer, weights = adam(list(z.values())), start
    for step in range(6):

        def root(key, step=step):
            layer, _, leaf = key.removeprefix("base_model.model.").partition(".lora_")
            pair = roots[step][explicit.input_key(layer)]
            return None if leaf.startswith("B") else pair[leaf.startswith("A")]

        if step % 2 == 0 and step:
            for key, value in z.items():
                start[key] = weights[key].detach()
                value.data.zero_()
        optimizer.zero_grad()
        weights = {k: start[k] + (z[k] if root(k) is None else z[k] @ root(k)) for k in z}
        functional_call(explicit.model, weights, kwargs=asked(make_batch(1000 + 10 * step))).loss.backward()
        optimizer.step()
        weights = {k: start[k] + (z[k] if root(k) is None else z[k] @ root(k)) for k in z}
    assert any(not torch.equal(a[0], b[0]) for a, b in zip(roots[0].values(), roots[4].values(), strict=True))
    assert largest_gap(copies(method), weights) < 1e-12


@pytest.mark.parametrize("clip", [0.0, 0.05])
@pytest.mark.parametrize("frozen_forward", ["skip", "keep"])
@pytest.mark.parametrize("optimizer", SMOOTH)
@pytest.mark.parametrize("name", ["same", "same_plus"])
def test_the_optimisers_state_of_a_resting_expert_does_not_move(name, optimizer, frozen_forward, clip, begun, train):
    """Neither by weight decay nor momentum, nor by the clipping of everyone's gradients."""
    method = begun(name, frozen_forward=frozen_forward, freeze_threshold=0.9, freeze_warmup=0.0, freeze_every=2)
    clip_first(method, clip, method.before_step)
    made, history = [], []

    def make(these):
        made.append(OPTIMIZERS[optimizer](these))
        return made[0]

    def note(_):
        numbers = {}
        for row, layer in enumerate(method.layers.values()):
            for expert in range(4):
                parts = (layer.router, expert), (layer.experts_a[expert], ...), (layer.experts_b[expert], ...)
                numbers[row, expert] = [
                    value[place].clone()
                    for parameter, place in parts
                    for value in (parameter.detach(), *made[0].state[parameter].values())
                    if isinstance(value, torch.Tensor) and value.shape == parameter.shape
                ]
        history.append((method.active.clone(), numbers))

    method.park_moments = lambda optimizer: None  # they are looked at here
    train(method, 1, 6, optimizer=make, each=note)
    moved = {True: 0, False: 0}
    for (mask, before), (_, after) in pairwise(history):
        for (row, expert), numbers in after.items():
            changes = [not torch.equal(a, b) for a, b in zip(before[row, expert], numbers, strict=True)]
            assert len(changes) == (9 if optimizer == "adamw" else 6)
            moved[bool(mask[row, expert])] += sum(changes)
    assert moved[False] == 0 < moved[True]


@pytest.mark.parametrize("optimizer", EVERY)
@pytest.mark.parametrize("name", ["same", "same_plus"])
def test_moments_of_resting_experts_wait_on_the_host_and_change_no_number(name, optimizer, begun, train):
    """Half of the experts rest, then the other half, then none: all have been put back as they were taken."""
    masks = [torch.tensor(mask, dtype=torch.bool) for mask in ([1, 0, 1, 0], [0, 1, 0, 1], [1, 1, 1, 1])]
    ends = []
    for parked in (True, False):
        method, made, held = begun(name, **LARGE, freeze_threshold=-1.0), [], []

        def rest(step, method=method, made=made, held=held, parked=parked):
            if step % 2:
                method.set_active(masks[step // 2].expand(len(method.layers), -1).clone())
                if parked:
                    method.park_moments(made[0])
                states = [value for state in made[0].state.values() for value in state.values()]
                held.append(sum(value.nbytes for value in states if isinstance(value, torch.Tensor)))

        def make(these, made=made):
            made.append(OPTIMIZERS[optimizer](these))
            return made[0]

        train(method, 1, 6, optimizer=make, each=rest)
        ends.append((copies(method), held))
    (weights, held), (expected, whole) = ends
    assert all(torch.equal(weights[key], expected[key]) for key in expected)
    assert len(set(whole)) == 1
    assert held[0] == held[1] < 0.6 * whole[0]
    assert held[2] == whole[2]


@pytest.mark.parametrize("apply_to", POWERS)
def test_degradation_of_a_router_is_what_its_old_inputs_measure(apply_to, begun, train, make_batch):
    method = begun(**QUIET, apply_to=apply_to)
    name = "model.language_model.layers.0.mlp.up_proj"
    layer, seen = method.layers[name], []
    handle = layer.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    for step in range(3):  # the first block's input does not depend on adapters
        method.model(**make_batch(10 * step))
    handle.remove()
    valid = make_batch()["attention_mask"].bool()
    old = torch.cat([inputs[valid] for inputs in seen])
    predicted = method.spectra[method.input_key(name)].matrix()
    before = layer.router.detach().clone()
    train(method, 1, 3, end=False)
    delta = layer.router.detach() - before
    torch.testing.assert_close(degradation(delta, predicted), (old @ delta.T).square().sum(-1).mean())


@pytest.mark.parametrize("settings", [{"num_experts": 1}, {"rank": 30}, {"num_experts": 1, "rank": 1}])
@pytest.mark.parametrize("name", ["same", "same_plus"])
def test_one_expert_and_ranks_above_the_width_train(name, settings, begun, train):
    method = begun(name, **settings, apply_to="coordinates")
    train(method, 1, 3)
    assert all(torch.isfinite(value).all() for value in copies(method).values())
    assert method.active.any(-1).all()

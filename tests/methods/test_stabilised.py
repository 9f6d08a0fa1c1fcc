"""The three mechanisms in training: what they keep still, when they act, and that every process decides alike."""

import threading
from itertools import pairwise

import pytest
import torch

from same.errors import SnapshotError
from same.maths.curvature import degradation, scale_output_factors
from same.maths.routing import router_scaling

QUIET = {"freeze_threshold": -1.0}  # no expert rests
ALWAYS = {"freeze_threshold": 0.9, "freeze_warmup": 0.0, "freeze_every": 2}
SKETCHES = ("nystrom", "frequent_directions", "incremental")


def small(storage):
    """Settings under which inputs of width 16 and 24 are sketched."""
    return {"covariance": storage, "exact_max_dim": 0, "sketch_size": 10, "token_stride": 2}


def factors(method, weights, name):
    """Router [n, d], A [n, r, d] and B [n, m, r] of a layer."""
    prefix = f"base_model.model.{name}."
    a, b = (torch.stack([weights[f"{prefix}lora_{which}.default.{i}"] for i in range(4)]) for which in "AB")
    return weights[f"{prefix}lora_router.default"], a, b


def change(method, before, after):
    """ΔW of every router, and of every expert's product B A, by layer."""
    routers, products = {}, {}
    for name in method.layers:
        (router, a, b), (old_router, old_a, old_b) = factors(method, after, name), factors(method, before, name)
        routers[name], products[name] = router - old_router, b @ a - old_b @ old_a
    return routers, products


def old_energy(method, deltas):
    return sum(
        float(degradation(delta, method.spectra[method.input_key(name)].matrix().float()).sum())
        for name, delta in deltas.items()
    )


@pytest.mark.parametrize("apply_to", ["update", "both"])
def test_a_blocked_update_leaves_the_router_alone_on_old_inputs(apply_to, make_method, train, weights):
    method = make_method(
        "same_plus", gain="zero", energy_threshold=0.99, apply_to=apply_to, curvature_on="none", **QUIET
    )
    train(method, 0)
    spectra, before = method.spectra, weights(method)
    train(method, 1)
    routers, _ = change(method, before, weights(method))
    for name, delta in routers.items():
        spectrum = spectra[method.input_key(name)]
        protected = spectrum.eigenvectors[:, : spectrum.rank(0.99)].float()
        assert delta.norm() > 0.01
        assert (delta @ protected).norm() < 1e-5 * delta.norm()


def test_same_plus_moves_old_outputs_less_than_moelora(make_method, train, weights):
    drift = {}
    for name, settings in {"moelora": {}, "same_plus": QUIET}.items():
        method, reference = make_method(name, **settings), make_method("same_plus", **QUIET)
        train(method, 0)
        train(reference, 0)
        before = weights(method)
        train(method, 1)
        routers, products = change(reference, before, weights(method))
        drift[name] = (old_energy(reference, routers), old_energy(reference, products))
    assert drift["same_plus"][0] < 0.5 * drift["moelora"][0]
    assert drift["same_plus"][1] < 0.5 * drift["moelora"][1]


@pytest.mark.parametrize(("apply_to", "sides"), [("gradient", 1), ("update", 1), ("coordinates", 1), ("both", 2)])
def test_one_step_follows_the_equations_layer_by_layer_and_expert_by_expert(
    apply_to, sides, make_method, train, weights
):
    """Plain SGD, one step: ΔA_i and ΔW_G are −lr·G P (on both sides P²), ΔB_i is −lr·G (C_z/μ_z + I)⁻¹.

    C_z is of the new A_i, but on gradients, which come before it, of the old one.
    """

    def sgd(parameters):
        return torch.optim.SGD(parameters, lr=0.1)

    method = make_method("same_plus", apply_to=apply_to, **QUIET)
    plain = make_method("same_plus", gain="none", curvature_on="none", **QUIET)
    train(plain, 0)
    train(method, 0)
    before = weights(method)
    train(plain, 1, 1, optimizer=sgd, end=False)
    train(method, 1, 1, optimizer=sgd, end=False)
    free, held = weights(plain), weights(method)
    for key in method.groups:
        spectrum = method.spectra[key]
        mu = method.config.damping * spectrum.mean_eigenvalue
        covariance = spectrum.matrix()
        scaling = mu * torch.linalg.inv(covariance + mu * torch.eye(spectrum.dim, dtype=torch.float64))
        root = spectrum.eigenvectors * spectrum.eigenvalues.sqrt()
        for name in [n for n in method.layers if method.input_key(n) == key]:
            old, loose, kept = (factors(method, w, name) for w in (before, free, held))
            for i in (0, 1):  # router, A
                found = (kept[i] - old[i]).double()
                expected = (loose[i] - old[i]).double() @ torch.linalg.matrix_power(scaling, sides)
                torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6)
            inputs = (old if apply_to == "gradient" else kept)[1].double()
            expected = scale_output_factors((loose[2] - old[2]).double(), inputs, root, method.config.output_damping)
            torch.testing.assert_close((kept[2] - old[2]).double(), expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("frozen_forward", ["skip", "keep"])
@pytest.mark.parametrize("apply_to", ["gradient", "update", "both"])
def test_resting_experts_and_their_router_rows_do_not_move(apply_to, frozen_forward, make_method, train, weights):
    method = make_method("same", apply_to=apply_to, curvature_on="AB", frozen_forward=frozen_forward, **ALWAYS)
    train(method, 0)
    history = []
    train(method, 1, 8, each=lambda _: history.append((method.active.clone(), weights(method))))
    rested = 0
    for (mask, before), (_, after) in pairwise(history):
        for row, name in enumerate(method.layers):
            pairs = list(zip(factors(method, before, name), factors(method, after, name), strict=True))
            for expert in range(4):
                still = [torch.equal(old[expert], new[expert]) for old, new in pairs]
                assert still == [not bool(mask[row, expert])] * 3
                rested += sum(still)
    assert rested > 0
    assert all(mask.any(-1).all() for mask, _ in history)


@pytest.mark.parametrize("routing", ["token", "sample", "batch"])
@pytest.mark.parametrize("resting", ["none", "skip", "keep"])
@pytest.mark.parametrize("storage", ["exact", "nystrom"])
def test_a_step_asks_the_device_for_no_value(storage, resting, routing, make_method, train):
    """Meta tensors have shapes only: a forward, backward, rule or update that needs a value raises."""
    forward = {"frozen_forward": "keep" if resting == "keep" else "skip", "freeze_warmup": 1.0}  # scores do ask
    method = make_method("same_plus", routing=routing, **forward, **small(storage))
    train(method, 0, 2)
    model = method.model.to("meta")
    model.get_base_model().set_attn_implementation("eager")  # the default looks whether the mask is full

    def rest(step):
        if step == 0 and resting != "none":
            method.set_active(torch.arange(4) != torch.arange(len(method.layers))[:, None] % 4)

    train(method, 1, 3, each=rest, end=False)
    assert all((method.active.sum(1) == 4) == (resting == "none"))
    for group in method.groups.values():
        assert group.rules.router is group.rules.experts
        assert group.rules.root.is_meta
    seen = method.current
    tensors = [tensor for tracker in seen.trackers.values() for tensor in tracker.state_dict().values()]
    assert all(tensor.is_meta for tensor in (seen.weight, seen.energy, seen.tokens, *tensors, *model.parameters()))


@pytest.mark.parametrize("name", ["same", "same_plus"])
def test_without_its_three_mechanisms_it_is_moelora_bit_for_bit(name, make_method, train, weights):
    """The corners of the ablation: each mechanism has its own switch, and alone it changes something."""
    switches = {"gain": "none", "curvature_on": "none", "freeze_threshold": -1.0}

    def trained(method):
        for index in range(3):
            train(method, index)
        return weights(method)

    plain, off = trained(make_method("moelora")), trained(make_method(name, **switches))
    assert [key for key, weight in plain.items() if not torch.equal(weight, off[key])] == []
    for switch in switches:
        acting = {**ALWAYS, "freeze_threshold": 0.9} if switch == "freeze_threshold" else {}
        others = {key: value for key, value in switches.items() if key != switch}
        alone = trained(make_method(name, **(acting | others)))
        assert any(not torch.equal(weight, alone[key]) for key, weight in plain.items()), switch


def test_nothing_acts_in_the_first_task(make_method, train):
    method = make_method("same", **ALWAYS)
    masks = []
    train(method, 0, each=lambda _: masks.append(method.active.clone()))
    assert all(mask.all() for mask in masks)
    assert method.drain_events() == []
    assert {row["frozen"] for row in method.snapshot_tables().activation} == {False}


def test_scores_are_taken_after_the_warmup_and_then_every_so_often(make_method, train):
    method = make_method("same", freeze_warmup=0.25, freeze_every=3, freeze_threshold=0.9)
    train(method, 0)
    train(method, 1, 12)
    events = method.drain_events()
    assert [data["step"] for kind, data in events if kind == "freeze"] == [3, 6, 9]
    assert method.drain_events() == []
    assert all(1 <= count <= 4 for _, data in events for count in data["active"].values())
    rows = method.snapshot_tables().activation
    assert sorted({row["step"] for row in rows}) == [3, 6, 9, 12]
    assert set(rows[0]) == {"layer", "expert", "utilization", "importance", "score", "frozen", "step"}
    assert any(row["frozen"] for row in rows)


def test_all_experts_are_active_after_a_task(make_method, train):
    method = make_method("same", **ALWAYS)
    train(method, 0)
    train(method, 1)
    assert all(len(layer.trained_experts) == 4 for layer in method.layers.values())


def test_importance_is_the_token_weighted_mean_over_past_tasks_only(make_method, train):
    method = make_method("same", **QUIET)
    train(method, 0)
    first = method.importance()
    seen = []
    train(method, 1, 4, each=lambda _: seen.append(method.importance()))
    assert all(torch.equal(value, first) for value in seen)
    tokens = method.past_tokens[0]
    assert not torch.equal(method.importance(), first)
    assert tokens == (6 + 4) * (10 + 8 + 6)


@pytest.mark.parametrize(("geometry", "changes"), [("running", [True, False, True, False]), ("history", [False] * 4)])
def test_router_rules_are_refreshed_in_the_running_geometry_only(geometry, changes, make_method, train):
    method = make_method("same", router_geometry=geometry, refresh_steps=2, **QUIET)
    train(method, 0)
    rules = []
    begin = method.begin_task

    def begin_and_note(task):
        begin(task)
        rules.append([group.rules.router for group in method.groups.values()])

    method.begin_task = begin_and_note
    train(method, 1, 4, each=lambda _: rules.append([group.rules.router for group in method.groups.values()]))
    found = [any(new is not old for new, old in zip(b, a, strict=True)) for a, b in pairwise(rules)]
    assert found == changes


def test_covariance_is_kept_once_per_distinct_input_and_adds_over_tasks(make_method, train):
    method = make_method("same_plus", **QUIET)
    train(method, 0)
    train(method, 1)
    assert len(method.spectra) == 4
    assert {spectrum.tokens for spectrum in method.spectra.values()} == {12 * 24}
    tables = method.snapshot_tables()
    names = {name.rpartition(".")[2] for name in tables.spectra}
    assert names == {"eigenvalues", "eigenvectors", "tokens", "trace"}
    assert {name.rpartition(".")[0] for name in tables.spectra} == set(method.spectra)


@pytest.mark.parametrize("storage", ["exact", *SKETCHES])
def test_every_process_has_the_same_spectra_and_masks(storage, make_method, train):
    """Two processes, as threads with an all-reduce between them, see different batches."""
    methods = [make_method("same", **ALWAYS, **small(storage), refresh_steps=2) for _ in range(2)]
    barrier, box, masks = threading.Barrier(2), [None, None], [[], []]

    def all_reduce(rank):
        def reduce(tensor):
            box[rank] = tensor.clone()
            barrier.wait()
            total = box[0] + box[1]
            barrier.wait()
            tensor.copy_(total)

        return reduce

    def work(rank):
        def note(_):
            masks[rank].append(methods[rank].active.clone())

        try:
            for index in range(2):
                train(methods[rank], index, rank=rank, world=2, reduce=all_reduce(rank), each=note)
        except BaseException:
            barrier.abort()
            raise

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(masks[0]) == 12
    assert all(torch.equal(a, b) for a, b in zip(*masks, strict=True))
    assert not all(mask.all() for mask in masks[0])
    for key, spectrum in methods[0].spectra.items():
        assert torch.equal(spectrum.eigenvectors, methods[1].spectra[key].eigenvectors)
        assert spectrum.tokens == methods[1].spectra[key].tokens == 2 * 12 * 24


@pytest.mark.parametrize("storage", SKETCHES)
@pytest.mark.parametrize("name", ["same", "same_plus"])
def test_a_sketch_is_resumed_bit_for_bit_and_does_not_grow(name, storage, make_method, train, weights):
    method, resumed = (make_method(name, **small(storage)) for _ in range(2))
    train(method, 0)
    first = {key: value.shape for key, value in method.state_dict().items()}
    train(method, 1)
    assert {key: value.shape for key, value in method.state_dict().items()} == first
    resumed.model.load_state_dict(method.model.state_dict())
    resumed.load_state_dict(method.state_dict())
    train(method, 2)
    train(resumed, 2)
    for mine, theirs in ((weights(method), weights(resumed)), (method.state_dict(), resumed.state_dict())):
        assert [key for key in mine if not torch.equal(mine[key], theirs[key])] == []
    assert {spectrum.tokens for spectrum in method.spectra.values()} == {18 * 24}
    assert {spectrum.eigenvectors.shape for spectrum in method.spectra.values()} == {(16, 10), (24, 10)}


@pytest.mark.parametrize("storage", SKETCHES)
def test_a_full_sketch_trains_as_the_exact_covariance(storage, make_method, train, weights):
    """As many directions as dimensions, and every token counted."""
    found = []
    for settings in (
        {"token_stride": 1},
        {"covariance": storage, "exact_max_dim": 0, "sketch_size": 24, "token_stride": 1},
    ):
        method = make_method("same_plus", **QUIET, **settings)
        train(method, 0)
        before = weights(method)
        train(method, 1, 2)
        found.append((change(method, before, weights(method)), method.spectra))
    for (ours, theirs), part in zip(zip(found[0][0], found[1][0], strict=True), ("routers", "experts"), strict=True):
        for name, delta in ours.items():
            torch.testing.assert_close(theirs[name], delta, rtol=0.02, atol=1e-4, msg=f"{part} of {name}")
    for key, spectrum in found[0][1].items():
        torch.testing.assert_close(found[1][1][key].matrix(), spectrum.matrix(), rtol=1e-3, atol=1e-4)


def test_the_energy_rule_chooses_what_is_protected(make_method, train):
    """σ² gathers in fewer directions than σ does."""
    ranks = {}
    for energy in ("squared", "eigenvalue"):
        method = make_method("same", energy=energy, router_geometry="history", **QUIET)
        train(method, 0)
        train(method, 1, 1, end=False)
        ranks[energy] = [spectrum.rank(0.95, energy) for spectrum in method.spectra.values()]
        torch.testing.assert_close(
            [group.rules.router.matrix() for group in method.groups.values()],
            [
                router_scaling(s.to(dtype=torch.float32), gain="inverse", energy_threshold=0.95, energy=energy).matrix()
                for s in method.spectra.values()
            ],
        )
    assert all(few < many for few, many in zip(ranks["squared"], ranks["eigenvalue"], strict=True))


def test_a_state_of_another_storage_is_refused(make_method, train):
    method = make_method("same")
    train(method, 0)
    with pytest.raises(SnapshotError, match=r"covariance\..*sketch"):
        make_method("same", **small("nystrom")).load_state_dict(method.state_dict())


def test_a_state_of_other_adapters_is_refused(make_method, train):
    method = make_method("same")
    train(method, 0)
    with pytest.raises(SnapshotError, match=r"importance\.energy"):
        make_method("same", num_experts=2).load_state_dict(method.state_dict())
    with pytest.raises(SnapshotError, match="is missing"):
        make_method("same").load_state_dict({})

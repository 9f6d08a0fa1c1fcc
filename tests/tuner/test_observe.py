"""What is counted: valid tokens, each once, whatever the batch, the padding or the later steps of a generation."""

import pytest
import torch
from peft import get_peft_model

from same.backbones._base import Backbone
from same.maths.covariance import CovarianceSettings
from same.tuner import MoELoraConfig, Observation
from same.tuner.observe import moe_layers

TARGETS = r".*language_model\.layers\.\d+\.mlp\.(gate_proj|up_proj|down_proj)"


def input_key(name):
    block, _, leaf = name.rpartition(".")
    return f"{block}_{'mid' if leaf == 'down_proj' else 'in'}"


@pytest.fixture
def model(make_llava):
    torch.manual_seed(1)
    model = get_peft_model(make_llava().double(), MoELoraConfig(target_modules=TARGETS, num_experts=3, r=2))
    return model.double()


EXACT = CovarianceSettings(token_stride=1)


def observed(model, *batches, covariance=EXACT):
    observation = Observation(model, input_key, covariance=covariance)
    for batch in batches:
        with observation.watching(batch["attention_mask"], batch.get("rows")), torch.no_grad():
            model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    return observation


def assert_same(first, second):
    for name in Observation.FIELDS:
        torch.testing.assert_close(getattr(first, name), getattr(second, name))
    assert first.trackers.keys() == second.trackers.keys()
    for key, tracker in first.trackers.items():
        for mine, theirs in zip(tracker.state_dict().values(), second.trackers[key].state_dict().values(), strict=True):
            torch.testing.assert_close(mine, theirs)


def test_gate_and_up_share_one_covariance(model):
    observation = observed(model)
    assert len(observation.layers) == 6
    assert sorted(observation.trackers) == [
        f"model.language_model.layers.{block}.mlp_{part}" for block in (0, 1) for part in ("in", "mid")
    ]
    assert {tracker.dim for tracker in observation.trackers.values()} == {16, 24}


def test_the_covariance_is_of_the_layers_inputs(model, make_batch):
    batch = make_batch()
    seen = []
    layer = moe_layers(model)["model.language_model.layers.1.mlp.up_proj"]
    handle = layer.register_forward_pre_hook(lambda _, args: seen.append(args[0][batch["attention_mask"].bool()]))
    observation = observed(model, batch)
    handle.remove()
    counted = observation.trackers["model.language_model.layers.1.mlp_in"].state_dict()
    torch.testing.assert_close(counted["products"], seen[0].T @ seen[0])
    omega = (seen[0] @ layer.router.T).softmax(-1)
    row = observation.names.index("model.language_model.layers.1.mlp.up_proj")
    torch.testing.assert_close(observation.weight[row], omega.sum(0))
    torch.testing.assert_close(observation.energy[row], (omega * seen[0].square().sum(-1, keepdim=True)).sum(0))
    torch.testing.assert_close(observation.largest[row], omega.argmax(-1).bincount(minlength=3).double())


@pytest.mark.parametrize("storage", ["exact", "nystrom"])
def test_of_numbered_rows_the_same_tokens_count_in_any_batch(storage, model, make_batch):
    batch = {**make_batch(), "rows": torch.tensor([5, 2, 4])}
    settings = CovarianceSettings(storage, exact_max_dim=0, sketch_size=4, token_stride=3)
    alone = [{key: value[row : row + 1] for key, value in batch.items()} for row in (1, 2, 0)]
    together = observed(model, batch, covariance=settings)
    assert_same(together, observed(model, *alone, covariance=settings))
    sampled = {int(tracker.counted) for tracker in together.trackers.values()}
    assert sampled == {
        sum(-(-(int(n) - r % 3) // 3) for n, r in zip(batch["attention_mask"].sum(1), (5, 2, 4), strict=True))
    }


@pytest.mark.parametrize("storage", ["exact", "nystrom"])
def test_padding_never_changes_a_statistic(storage, model, make_batch):
    batch = make_batch()
    settings = CovarianceSettings(storage, exact_max_dim=0, sketch_size=4, token_stride=3)
    lengths = batch["attention_mask"].sum(1).tolist()
    alone = [{key: value[i : i + 1, :length] for key, value in batch.items()} for i, length in enumerate(lengths)]
    assert_same(observed(model, batch, covariance=settings), observed(model, *alone, covariance=settings))


def test_padding_that_holds_nan_leaves_no_trace(model, make_batch):
    batch = make_batch()
    layer = next(iter(moe_layers(model).values()))
    x = torch.randn(*batch["input_ids"].shape, 16, dtype=torch.float64)
    spoilt = x.masked_fill(~batch["attention_mask"].bool()[..., None], float("nan"))
    found = []
    for inputs in (x, spoilt):
        observation = Observation(model, input_key, covariance=CovarianceSettings("nystrom", 0, 4, 3))
        with observation.watching(batch["attention_mask"]), torch.no_grad():
            layer(inputs)
        found.append(observation)
    assert_same(*found)


def test_later_steps_of_a_generation_are_not_counted(model, make_batch):
    batch = make_batch()
    observation = Observation(model, input_key)
    tokens = batch["input_ids"].flip(1)
    mask = (tokens != 0).long()
    with observation.watching(mask):
        model.generate(input_ids=tokens, attention_mask=mask, max_new_tokens=5, do_sample=False)
    assert (observation.tokens == mask.sum()).all()


def test_nothing_is_counted_outside(model, make_batch):
    observation = observed(model, make_batch())
    counted = observation.tokens.clone()
    model(**make_batch())
    assert torch.equal(observation.tokens, counted)


@pytest.mark.parametrize("storage", ["exact", "nystrom", "frequent_directions", "incremental"])
@pytest.mark.parametrize("reentrant", [False, True])
def test_recomputing_the_forward_in_backward_counts_once_with_the_same_bits(reentrant, storage, model, make_batch):
    batch = make_batch()
    settings = CovarianceSettings(storage, exact_max_dim=0, sketch_size=4, token_stride=3)
    plain = observed(model, batch, covariance=settings)
    model.train()
    model.enable_input_require_grads()
    model.get_base_model().activation_checkpointing_enable({"use_reentrant": reentrant})
    observation = Observation(model, input_key, covariance=settings)
    with observation.watching(batch["attention_mask"]):
        loss = model(**batch).loss
    loss.backward()
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in observation.state_dict().items())
    for key, tracker in plain.trackers.items():
        counted = observation.trackers[key].state_dict()
        assert all(torch.equal(counted[name], value) for name, value in tracker.state_dict().items())


def test_reduce_sums_over_processes(model, make_batch):
    first, second = observed(model, make_batch(1)), observed(model, make_batch(2))
    both = observed(model, make_batch(1), make_batch(2))
    flat = []
    second.reduce(flat.append)
    others = iter(flat)

    def all_reduce(tensor):
        tensor.add_(next(others))

    first.reduce(all_reduce)
    assert_same(first, both)


def test_rows_are_shares(model, make_batch):
    rows = observed(model, make_batch(), covariance=None).rows()
    assert len(rows) == 6 * 3
    for column in ("weight", "argmax_share"):
        for start in range(0, 18, 3):
            assert sum(row[column] for row in rows[start : start + 3]) == pytest.approx(1)
    assert {row["tokens"] for row in rows} == {10 + 8 + 6}


def test_resting_experts_are_still_measured(model, make_batch):
    before = observed(model, make_batch(), covariance=None)
    next(iter(moe_layers(model).values())).set_active(torch.tensor([True, False, False]))
    after = observed(model, make_batch(), covariance=None)
    torch.testing.assert_close(after.weight[0], before.weight[0])


def test_observing_changes_no_answer(model, make_batch):
    batch = make_batch()
    plain = model(**batch).logits
    with Observation(model, input_key, covariance=EXACT).watching(batch["attention_mask"]):
        assert torch.equal(model(**batch).logits, plain)


def test_layers_that_read_no_text_count_every_token_they_see(make_llava, make_batch):
    layout = Backbone.layout(Backbone.Config(targets=("ffn", "vision_ffn")))
    sizes = {"num_experts": 3, "r": 2}
    config = MoELoraConfig(target_modules=layout.targets, unpadded=layout.unpadded, **sizes)
    model = get_peft_model(make_llava(), config)
    observation = Observation(model, layout.input_key, covariance=EXACT)
    batch = make_batch(length=14)
    prompt = {name: batch[name].flip(1) for name in ("input_ids", "attention_mask")}  # left-padded
    prompt["input_ids"][:, -5:-1] = 39  # four patches a picture
    pictures = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with observation.watching(prompt["attention_mask"]):
        model.generate(**prompt, pixel_values=pictures, max_new_tokens=4, do_sample=False)
    counted = dict(zip(observation.names, observation.tokens.tolist(), strict=True))
    tower = [name for name in counted if "vision_tower" in name]
    assert len(tower) == 2
    assert {counted[name] for name in tower} == {3 * 5}  # patches and the class token of each picture
    text = int(prompt["attention_mask"].sum())
    assert {counted[name] for name in counted if name not in tower} == {text}
    assert observation.trackers["model.vision_tower.encoder.layers.0.mlp_mid"].spectrum().tokens == 15

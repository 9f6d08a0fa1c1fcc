"""The traps that public code of this field falls into, as tests over every method there is."""

import pytest
import torch

from same.errors import InputError
from same.methods._base import Method, TaskContext
from same.methods._memory import Reservoir
from tests.methods.checks import KINDS, methods_for, overrides

IMAGE = 39


@pytest.fixture
def make_batch(make_batch):
    """Two words, a picture of four patches, and words again."""

    def make(seed=0, rows=3, length=12):
        batch = make_batch(seed, rows, length)
        batch["input_ids"][:, 2:6], batch["labels"][:, 2:6] = IMAGE, -100
        batch["pixel_values"] = torch.randn(rows, 3, 16, 16, generator=torch.Generator().manual_seed(seed))
        return batch

    return make


def question(batch, rows=slice(None)):
    """Some rows as evaluation gives them: their labels are not known."""
    return {key: value[rows] for key, value in batch.items() if key != "labels"}


def answers(method, inputs):
    """Next-token logits, chosen by `route`."""
    method.model.eval()
    method.route(inputs)
    with torch.no_grad():
        return method.model(**inputs).logits


@pytest.fixture(scope="module")
def kept():
    """Methods after two tasks, by name."""
    return {}


@pytest.fixture
def trained(kept, make_method, train):
    """A method after two tasks, to be asked and not to be changed."""

    def make(name):
        if name not in kept:
            kept[name] = make_method(name)
            train(kept[name], 0)
            train(kept[name], 1)
        return kept[name]

    return make


@pytest.mark.parametrize("name", methods_for("mates"))
def test_an_answer_does_not_depend_on_batch_mates(name, trained, make_batch):
    method, batch = trained(name), question(make_batch(5))
    together = answers(method, batch)
    for row in range(len(together)):
        length = int(batch["attention_mask"][row].sum())
        alone = {key: value[row : row + 1, :length] for key, value in batch.items() if key != "pixel_values"}
        found = answers(method, {**alone, "pixel_values": batch["pixel_values"][row : row + 1]})
        torch.testing.assert_close(found[0], together[row, :length], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", methods_for("mixed"))
def test_tasks_shuffled_within_a_batch_get_the_same_answers(name, trained, make_batch):
    method, first, second = trained(name), question(make_batch(50)), question(make_batch(1050))
    apart = torch.cat([answers(method, first), answers(method, second)])
    order = torch.tensor([4, 0, 3, 2, 5, 1])
    mixed = {key: torch.cat([first[key], second[key]])[order] for key in first}
    shown = mixed["attention_mask"].bool()
    torch.testing.assert_close(answers(method, mixed)[shown], apart[order][shown], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", methods_for("cache"))
def test_cached_generation_is_generation(name, trained, make_batch):
    method, said = trained(name), []
    inputs = {key: value if key == "pixel_values" else value[:, :8] for key, value in question(make_batch(7)).items()}
    for cached in (True, False):
        method.model.eval()
        method.route(inputs)
        said.append(
            method.model.generate(
                **inputs,
                max_new_tokens=4,
                do_sample=False,
                use_cache=cached,
                pad_token_id=0,
                suppress_tokens=[IMAGE],
            )
        )
    assert torch.equal(*said)


LEFT_OUT = {  # a check: what does nothing in its place, and after how many steps that must show
    "penalty": ({"loss": lambda loss, batch: loss}, 2),
    "step": (dict.fromkeys(("before_step", "after_step"), lambda step: None), 6),
}


@pytest.mark.parametrize(("check", "name"), [(check, name) for check in LEFT_OUT for name in methods_for(check)])
def test_a_penalty_and_what_is_done_around_a_step_change_the_update(
    check, name, make_method, train, weights, monkeypatch
):
    nothing, steps = LEFT_OUT[check]
    found = []
    for moments in ({}, nothing):
        method = make_method(name)
        train(method, 0)
        for moment, idle in moments.items():
            monkeypatch.setattr(method, moment, idle)
        train(method, 1, steps)
        found.append(weights(method))
    assert any(not torch.equal(found[0][key], found[1][key]) for key in found[0])


@pytest.mark.parametrize("name", methods_for("slots"))
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
    before = answers(method, question(make_batch(3)))
    with torch.no_grad():
        for _, b in method.factors:
            b[:, first] = 0
    assert not torch.equal(before, answers(method, question(make_batch(3))))


@pytest.mark.parametrize("name", methods_for("merge"))
def test_a_merge_changes_what_it_claims_and_nothing_else(name, make_method, train, make_batch):
    method = make_method(name)
    train(method, 0)
    train(method, 1, end=False)
    frozen = {key for key, parameter in method.model.named_parameters() if not parameter.requires_grad}
    before = {key: value.detach().clone() for key, value in method.model.named_parameters()}
    batch = question(make_batch(3))
    said = answers(method, batch)
    method.end_task(TaskContext(1, "task1", 3, 6))
    if not overrides("route")(KINDS[name]):
        torch.testing.assert_close(answers(method, batch), said, atol=1e-4, rtol=1e-4)
    if not method.merged() & before.keys() or method.merged() <= {key for key in frozen if same(method, before, key)}:
        method.begin_task(TaskContext(2, "task2", 3, 6))  # where the merge is done when the next task begins
    claimed = method.merged()
    changed = {key for key in before if not same(method, before, key)}
    assert claimed
    assert claimed <= changed
    assert changed & frozen <= claimed
    if not claimed <= frozen:  # then it is not that a new adapter begins
        assert changed == claimed


def same(method, before, key):
    return torch.equal(method.model.get_parameter(key), before[key])


@pytest.mark.parametrize("name", methods_for("choice"))
def test_a_choice_varies_with_the_row(name, trained, make_batch):
    """One batch is answered as other rows were routed: as rows of one task, and of another."""
    method, shown, found = trained(name), question(make_batch(3)), []
    method.model.eval()
    for seed in (50, 1050):
        method.route(question(make_batch(seed)))
        with torch.no_grad():
            found.append(method.model(**shown).logits)
    assert (found[0] - found[1]).abs().max() > 1e-3  # as much as can change an answer, not what is left of rounding


def test_modal_prompt_chooses_among_the_prompts_not_only_their_order(make_method, train, make_batch):
    method = make_method("modal_prompt", chosen=1)
    train(method, 0)
    train(method, 1)
    method.route(question(make_batch(50, rows=64)))
    first = (method._shown == method.prompts[0].tokens).all((1, 2))
    assert (first | (method._shown == method.prompts[1].tokens).all((1, 2))).all()
    assert first.any()
    assert not first.all()


def test_modal_prompt_trains_among_the_prompts_that_it_is_asked_with(make_method, train, make_batch):
    """The own one nearest to the row, the past ones most like the row before it, in training as at inference."""
    method = make_method("modal_prompt", chosen=2)
    for task in range(3):
        train(method, task)
    batch = question(make_batch(2050, rows=64))
    own = method.prompts[2].tokens
    method.route(batch)
    asked = method._shown
    with method.forward_context(batch):
        method.model(**batch)
    assert torch.equal(method._shown[:, -len(own) :], own.expand(64, -1, -1))
    nearest = (asked[:, -len(own) :] == own).all((1, 2))
    assert nearest.any()
    assert torch.equal(asked[nearest], method._shown[nearest])


def test_both_banks_of_smolora_choose_by_the_row_not_only_weigh(trained, make_batch):
    method = trained("smolora")
    features = method.features(question(make_batch(50, rows=64)))
    banks = torch.stack([gate(**features) for gate in method.gates]).unflatten(-1, (2, -1))  # gate, row, bank, expert
    assert (banks.count_nonzero(-1) == 1).all()
    chosen = banks.argmax(-1)
    for bank in range(2):
        assert any(len(rows.unique()) > 1 for rows in chosen[..., bank]), bank


@pytest.mark.parametrize("name", methods_for("oracle"))
def test_only_the_declared_oracle_is_told_the_task(name):
    assert overrides("reveal_task")(KINDS[name]) == KINDS[name].task_id_at_inference


@pytest.mark.parametrize("name", methods_for("memory"))
def test_a_memory_is_the_reservoir_that_is_tested(name, make_method, train):
    method = make_method(name, memory=3)
    train(method, 0, 4)
    assert type(method.memory) is Reservoir
    assert (len(method.memory.rows), method.memory.seen) == (3, 4)


@pytest.mark.parametrize("name", methods_for("repeat"))
def test_a_method_is_deterministic(name, make_method, train, weights):
    found = []
    for _ in range(2):
        method = make_method(name)
        train(method, 0)
        train(method, 1, 2)
        found.append(weights(method))
    assert [key for key in found[0] if not torch.equal(found[0][key], found[1][key])] == []


@pytest.mark.parametrize("name", KINDS)
def test_a_budget_is_matched_or_published(name):
    kind: type[Method] = KINDS[name]
    assert kind().config.budget == "matched"
    published = kind.Config(budget="paper")
    assert {key: getattr(published, key) for key in kind.Config.PAPER} == dict(kind.Config.PAPER)
    with pytest.raises(InputError, match="budget must be one of matched, paper"):
        kind.Config(budget="large")

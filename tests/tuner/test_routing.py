"""What shares a routing, in float64: tokens, samples, batches; in training, in evaluation and in cached generation."""

import pytest
import torch
from peft import PeftModel, get_peft_model

from same.tuner import MoELoraConfig, Observation
from same.tuner.kernel import mix, project
from same.tuner.mixed import mixed_factors
from same.tuner.observe import moe_layers
from same.tuner.routing import pooled_logits

TARGETS = r".*language_model\.layers\.\d+\.mlp\.(gate_proj|up_proj|down_proj)"
ROUTINGS = ["token", "sample", "batch"]
N, R, D, M = 4, 3, 5, 6


@pytest.fixture
def adapted(make_llava):
    """A factory of LLaVAs in float64 with four experts that matter."""

    def make(**settings):
        torch.manual_seed(1)
        model = get_peft_model(make_llava(), MoELoraConfig(target_modules=TARGETS, num_experts=4, r=2, **settings))
        generator = torch.Generator().manual_seed(5)
        for layer in moe_layers(model).values():
            for factor in layer.experts_b:
                factor.data.normal_(std=0.5, generator=generator)
            layer.router.data.normal_(std=2.0, generator=generator)
        return model.double()

    return make


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def logits_of(model, batch):
    with torch.no_grad():
        return model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits


@pytest.mark.parametrize("routing", ["sample", "batch"])
def test_pooled_logits_are_those_of_the_valid_tokens_mean_input(routing):
    x, router, valid = draw(3, 4, D), draw(N, D, seed=1), torch.arange(4)[None] < torch.tensor([4, 1, 0])[:, None]
    padded = torch.where(valid[..., None], x, torch.nan)
    found = pooled_logits(padded @ router.T, valid, routing)
    means = [row[mask].mean(0) if mask.any() else torch.zeros(D).double() for row, mask in zip(x, valid, strict=True)]
    expected = torch.stack(means) if routing == "sample" else x[valid].mean(0, keepdim=True)
    torch.testing.assert_close(found, expected @ router.T)
    torch.testing.assert_close(pooled_logits(x[0], None, "sample"), x[0].mean(0, keepdim=True))


@pytest.mark.parametrize("groups", [1, 2, 8])
def test_a_kernel_with_given_weights_is_the_sum_with_all_its_gradients(groups):
    x, base, router = draw(2, 4, D).requires_grad_(), draw(2, 4, M, seed=1).requires_grad_(), draw(N, D, seed=2)
    weights = draw(groups, N, seed=3).softmax(-1).requires_grad_()
    a, b = ([draw(*shape, seed=10 + i).requires_grad_() for i in range(N)] for shape in ((R, D), (M, R)))

    def ours(x, base, weights, *factors):
        return mix(base, project(x, router, factors[:N])[1], factors[N:], scaling=1.3, weights=weights)[0]

    omega = weights.repeat_interleave(8 // groups, 0).view(2, 4, N)
    expected = base + 1.3 * sum(omega[..., i : i + 1] * (x @ a[i].T @ b[i].T) for i in range(N))
    torch.testing.assert_close(ours(x, base, weights, *a, *b), expected)
    assert torch.autograd.gradcheck(ours, (x, base, weights, *a, *b))


def test_mixed_factors_are_the_product_of_two_sums():
    x, base, weights = draw(2, 4, D), draw(2, 4, M, seed=1), draw(2, N, seed=3).softmax(-1)
    a, b = ([draw(*shape, seed=10 + i) for i in range(N)] for shape in ((R, D), (M, R)))
    found = mixed_factors(x, base, weights, a, b, scaling=1.3)
    for row in range(2):
        mixed_a, mixed_b = (sum(w * f for w, f in zip(weights[row], part, strict=True)) for part in (a, b))
        torch.testing.assert_close(found[row], base[row] + 1.3 * x[row] @ mixed_a.T @ mixed_b.T)


@pytest.mark.parametrize("groups", [1, 2, 8])
def test_mixed_factors_ask_the_device_for_no_value(groups):
    x, base, weights = draw(2, 4, D), draw(2, 4, M), draw(groups, N).softmax(-1)
    x, base, weights = (tensor.to("meta").requires_grad_() for tensor in (x, base, weights))
    a, b = ([draw(*shape).to("meta").requires_grad_() for _ in range(N)] for shape in ((R, D), (M, R)))
    mixed_factors(x, base, weights, a, b, scaling=1.3).sum().backward()
    assert all(tensor.grad.shape == tensor.shape for tensor in (x, base, weights, *a, *b))


@pytest.mark.parametrize("top_k", [None, 2])
@pytest.mark.parametrize("routing", ROUTINGS)
def test_a_layer_routes_by_the_models_own_mask(routing, top_k, adapted, make_batch):
    model, batch = adapted(routing=routing, top_k=top_k), make_batch()
    layer = moe_layers(model)["model.language_model.layers.1.mlp.up_proj"]
    seen = []
    layer.register_forward_hook(lambda _, args, out: seen.append((args[0], out)))
    logits_of(model, batch)
    (x, out), valid = seen[0], batch["attention_mask"].bool()
    logits = x @ layer.router.T
    if routing == "sample":
        logits = torch.stack([row[mask].mean(0) for row, mask in zip(logits, valid, strict=True)])[:, None]
    elif routing == "batch":
        logits = logits[valid].mean(0)[None, None]
    if top_k is not None:
        logits = logits.masked_fill(logits < logits.topk(top_k, -1).values[..., -1:], -torch.inf)
    omega = logits.softmax(-1)
    experts = [x @ a.T @ b.T for a, b in zip(layer.experts_a, layer.experts_b, strict=True)]
    expected = layer.base_layer(x) + 8 * sum(omega[..., i : i + 1] * found for i, found in enumerate(experts))
    torch.testing.assert_close(out, expected)


@pytest.mark.parametrize("routing", ROUTINGS)
def test_an_answer_depends_on_its_batch_mates_only_where_the_batch_is_routed(routing, adapted, make_batch):
    model, batch = adapted(routing=routing), make_batch()
    together = logits_of(model, batch)
    gaps = []
    for row, length in enumerate(batch["attention_mask"].sum(1).tolist()):
        alone = logits_of(model, {key: value[row : row + 1, :length] for key, value in batch.items()})
        gaps.append(float((together[row : row + 1, :length] - alone).abs().max()))
    assert (max(gaps) < 1e-10) == (routing != "batch")


@pytest.mark.parametrize("top_k", [None, 1])
@pytest.mark.parametrize("routing", ROUTINGS)
def test_cached_generation_equals_uncached(routing, top_k, adapted, make_batch):
    model, tokens = adapted(routing=routing, top_k=top_k), make_batch()["input_ids"].flip(1)  # left-padded
    inputs = {"input_ids": tokens, "attention_mask": (tokens != 0).long(), "max_new_tokens": 6, "do_sample": False}
    options = {"output_logits": True, "return_dict_in_generate": True}
    cached, plain = (model.generate(**inputs, **options, use_cache=use) for use in (True, False))
    assert torch.equal(cached.sequences, plain.sequences)
    torch.testing.assert_close(torch.stack(cached.logits), torch.stack(plain.logits), rtol=1e-8, atol=1e-8)


def test_an_answer_is_generated_with_its_prompts_routing(adapted, make_batch):
    model, batch = adapted(routing="sample"), make_batch()
    layer, seen = next(iter(moe_layers(model).values())), []
    group = layer.group
    layer.group = lambda *arguments: seen.append(group(*arguments)) or seen[-1]
    tokens = batch["input_ids"].flip(1)
    model.generate(input_ids=tokens, attention_mask=(tokens != 0).long(), min_new_tokens=4, max_new_tokens=4)
    assert [found.shape for found in seen] == [(3, 4)]
    logits_of(model, batch)  # another call has its own
    assert len(seen) == 2


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("routing", ROUTINGS)
def test_checkpointing_gives_the_bits_of_plain_training_and_counts_once(routing, reentrant, adapted, make_batch):
    def train(checkpointing):
        model = adapted(routing=routing).train()
        if checkpointing:
            model.enable_input_require_grads()
            model.get_base_model().activation_checkpointing_enable({"use_reentrant": reentrant})
        observation = Observation(model, lambda name: name.rpartition(".")[0] + str("down" in name))
        for seed in range(2):
            batch = make_batch(seed)
            with observation.watching(batch["attention_mask"]):
                loss = model(**batch).loss
            loss.backward()
        gradients = {name: p.grad for name, p in model.named_parameters() if "lora_" in name}
        return gradients | observation.state_dict()

    plain, checkpointed = train(False), train(True)
    assert [name for name, value in plain.items() if not torch.equal(value, checkpointed[name])] == []
    assert plain["tokens"].tolist() == [48] * 6


@pytest.mark.parametrize("routing", ["sample", "batch"])
def test_what_is_counted_is_the_routing_of_the_tokens_sample_or_batch(routing, adapted, make_batch):
    model, batch = adapted(routing=routing), make_batch()
    layer = next(iter(moe_layers(model).values()))
    observation, seen = Observation(model, lambda name: name), []
    layer.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with observation.watching(batch["attention_mask"]):
        logits_of(model, batch)
    valid = batch["attention_mask"].bool()
    omega = layer.group(seen[0] @ layer.router.T, valid)
    expected = valid.sum(1).double() @ omega if routing == "sample" else valid.sum() * omega[0]
    torch.testing.assert_close(observation.weight[0], expected)


@pytest.mark.parametrize("routing", ROUTINGS)
def test_bfloat16_answers_stay_within_two_percent(routing, adapted):
    layer = next(iter(moe_layers(adapted(routing=routing)).values()))
    x = draw(3, 40, 16).bfloat16()
    exact, half = layer(x.double()), layer.bfloat16()(x).double()
    assert (half - exact).norm() < 0.02 * exact.norm()


def test_flat_top_2_acts_outside_of_training_only(adapted):
    layer = next(iter(moe_layers(adapted(inference="flat_top_2")).values()))
    x = draw(7, 16)
    logits = x @ layer.router.T
    torch.testing.assert_close(layer.train().weigh(logits), logits.softmax(-1))
    best, which = (logits / 4).topk(2, -1)
    expected = torch.zeros(7, 4, dtype=torch.float64).scatter(-1, which, best.softmax(-1))
    torch.testing.assert_close(layer.eval().weigh(logits), expected)
    found = layer(x) - layer.base_layer(x)
    by_hand = sum(
        expected[:, i : i + 1] * (x @ a.T @ b.T)
        for i, (a, b) in enumerate(zip(layer.experts_a, layer.experts_b, strict=True))
    )
    torch.testing.assert_close(found, 8 * by_hand)


@pytest.mark.parametrize("routing", ROUTINGS)
def test_a_loaded_adapter_routes_as_the_saved_one(routing, adapted, make_llava, make_batch, tmp_path):
    model = adapted(routing=routing).float()
    model.save_pretrained(tmp_path, save_embedding_layers=False)
    loaded = PeftModel.from_pretrained(make_llava(), tmp_path)
    assert torch.equal(logits_of(loaded, make_batch()), logits_of(model, make_batch()))


@pytest.mark.parametrize("routing", ["sample", "batch"])
@pytest.mark.parametrize("unpadded", [r".*vision_tower.*", None])
def test_the_padding_of_a_text_as_long_as_a_picture_is_not_the_pictures(unpadded, routing, make_llava):
    torch.manual_seed(1)
    config = MoELoraConfig(target_modules=r".*\.(fc1|fc2)", unpadded=unpadded, num_experts=4, r=2, routing=routing)
    model = get_peft_model(make_llava(), config).double()
    for layer in moe_layers(model).values():
        layer.router.data.mul_(9)
        for factor in layer.experts_b:
            factor.data.normal_(generator=torch.Generator().manual_seed(5))
    tokens = torch.tensor([[39, 39, 39, 39, 7], [0, 39, 39, 39, 39]])  # four patches; with the class token, five

    def seen(mask):
        return model(input_ids=tokens, attention_mask=mask, pixel_values=draw(2, 3, 16, 16)).image_hidden_states

    with torch.no_grad():
        same = torch.equal(seen((tokens != 0).long()), seen(torch.ones_like(tokens)))
    assert same == (unpadded is not None)

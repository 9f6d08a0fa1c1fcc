"""The recipe's packing is exact, and the recipe runs from nothing to a checkpoint that loads like any other."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from same.backbones import load_backbone
from same.backbones._tiny import IMAGE_TOKENS, build_model, build_tokenizer
from same.engine import packing, pretrain
from same.errors import InputError


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_packed_turns_have_the_loss_they_have_alone(attention):
    loaded = load_backbone("tiny")
    tokenizer = loaded.processor.tokenizer
    model = build_model(tokenizer).double().eval()
    model.set_attn_implementation(attention)
    prefix = torch.tensor(tokenizer("USER: ", add_special_tokens=False)["input_ids"])
    turns = [[(tokenizer(q)["input_ids"], tokenizer(a)["input_ids"]) for q, a in talk] for talk in TALK]
    features = torch.randn(2, IMAGE_TOKENS, 192, dtype=torch.float64)
    laid_out = packing.pack(turns, len(prefix) + IMAGE_TOKENS, tokenizer.pad_token_id)
    packed, _ = packing.packed_loss(model, prefix, features, laid_out)
    alone, weights = [], []
    for picture, talk in enumerate(turns):
        for question, answer in talk:
            ids = torch.tensor([*prefix.tolist(), *[model.config.image_token_id] * IMAGE_TOKENS, *question, *answer])
            embedded = model.get_input_embeddings()(ids)[None].clone()
            embedded[0, len(prefix) : len(prefix) + IMAGE_TOKENS] = model.model.multi_modal_projector(features[picture])
            labels = torch.full_like(ids, -100)
            labels[-len(answer) :] = torch.tensor(answer)
            alone.append(model(inputs_embeds=embedded, labels=labels[None]).loss)
            weights.append(len(answer))
    expected = sum(loss * weight for loss, weight in zip(alone, weights, strict=True)) / sum(weights)
    assert torch.allclose(packed.double(), expected.double(), atol=1e-6)


TALK = [
    [("\nWhat is this? ASSISTANT:", " It is a cat.</s>"), ("\nWhere? ASSISTANT:", " At the top left.</s>")],
    [("\nHow many cups are there? ASSISTANT:", " One can count 2 of them.</s>")],
]


def test_the_chat_template_writes_what_the_recipe_trains_on():
    processor = load_backbone("tiny").processor
    content = [{"type": "image"}, {"type": "text", "text": "What is this?"}]
    messages = [{"role": "user", "content": content}]
    assert (
        processor.apply_chat_template(messages, add_generation_prompt=True) == "USER: <image>\nWhat is this? ASSISTANT:"
    )
    messages.append({"role": "assistant", "content": [{"type": "text", "text": "a cat"}]})
    assert processor.apply_chat_template(messages) == "USER: <image>\nWhat is this? ASSISTANT: a cat</s>"


def test_batches_of_like_length_cover_an_epoch_without_repeats():
    talk = [[([0] * (index % 7), [0])] for index in range(512)]
    batches = list(packing.alike(np.random.default_rng(0), talk, 8))
    assert sorted(np.concatenate(batches)) == list(range(512))


def test_a_new_tokenizer_keeps_the_embeddings_of_what_it_has_in_common_with_the_old():
    old, new = build_tokenizer(["a cat sat"] * 9), build_tokenizer(["a cat sat", "the catalogue"] * 9)
    embeddings = torch.randn(len(old), 4)
    found = pretrain.respell(embeddings, old, new)
    known, vocabulary = old.get_vocab(), new.get_vocab()
    assert found.shape == (len(new), 4)
    for token in known.keys() & vocabulary.keys():
        assert torch.equal(found[vocabulary[token]], embeddings[known[token]])
    grown = [token for token in vocabulary if token not in known]
    assert "Ġcatalogue" in grown
    for token in grown:
        pieces = old(new.convert_tokens_to_string([token]), add_special_tokens=False)["input_ids"]
        torch.testing.assert_close(found[vocabulary[token]], embeddings[pieces].mean(0))


def test_too_few_pictures_for_a_batch_are_refused():
    with pytest.raises(InputError, match="pictures must be at least 512"):
        pretrain.Recipe(pictures=100)


@pytest.mark.slow
def test_the_recipe_makes_a_checkpoint_that_loads(tmp_path):
    recipe = pretrain.Recipe(
        pictures=80,
        held_out=16,
        tower_rounds=(2, 2),
        tower_batch=16,
        letter_steps=2,
        language_rounds=(3, 2),
        language_batch=4,
    )
    pretrain.pretrain(tmp_path / "first", recipe)
    pretrain.pretrain(tmp_path / "second", dataclasses.replace(recipe, seed=1), tmp_path / "first")
    loaded = load_backbone("tiny", {"checkpoint": str(tmp_path / "second")})
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())
    runs = json.loads((tmp_path / "second" / "recipe.json").read_text())["runs"]
    assert [run["recipe"]["seed"] for run in runs] == [0, 1]
    for run in runs:
        stages = [row["stage"] for row in run["log"]]
        assert stages[0] == "model"
        assert stages[-1] == "language held-out"


def test_a_folder_without_a_model_is_refused_by_name(tmp_path):
    with pytest.raises(InputError, match=str(tmp_path)):
        load_backbone("tiny", {"checkpoint": str(tmp_path)})


def test_a_family_without_a_shipped_checkpoint_asks_for_one():
    with pytest.raises(InputError, match="checkpoint"):
        load_backbone("llava")


def test_llava_takes_the_same_path_as_the_embedded_checkpoint():
    tiny = load_backbone("tiny")
    again = load_backbone("llava", {"checkpoint": tiny.backbone.SHIPPED})
    assert again.digest == tiny.digest
    assert type(again.model) is type(tiny.model)

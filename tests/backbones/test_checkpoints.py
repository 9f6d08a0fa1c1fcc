"""A checkpoint that a family cannot use is refused with the reason, before its weights are read."""

import json
import shutil

import pytest
import torch

from same.backbones import _base, _tiny, load_backbone
from same.backbones._base import checkpoint_digest
from same.backbones.llava import Llava
from same.errors import InputError


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    torch.manual_seed(0)
    tokenizer = _tiny.build_tokenizer(["What colour is it?"])
    folder = tmp_path_factory.mktemp("checkpoint")
    _tiny.build_model(tokenizer).save_pretrained(folder)
    _tiny.build_processor(tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture
def checkpoint(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "checkpoint")


def load(checkpoint):
    return load_backbone("llava", {"checkpoint": str(checkpoint)})


def weights(checkpoint):
    return checkpoint / "model.safetensors"


def test_a_family_loads_a_folder_in_hugging_face_layout(checkpoint):
    loaded = load(checkpoint)
    assert loaded.digest == checkpoint_digest(str(checkpoint))
    assert not any(weight.requires_grad for weight in loaded.model.parameters())


def of_another_type(checkpoint):
    path = checkpoint / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "model_type": "llava_next"}))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (shutil.rmtree, "does not: .*Give a folder that save_pretrained wrote"),
        (lambda folder: (folder / "config.json").write_text("{"), "does not: "),
        (of_another_type, "must be of type llava; .* is of type llava_next"),
        (lambda folder: (folder / "chat_template.jinja").unlink(), "must have a chat template"),
        (lambda folder: weights(folder).rename(folder / "pytorch_model.bin"), "weights as safetensors"),
    ],
    ids=["missing", "config", "family", "template", "pickle"],
)
def test_an_unusable_checkpoint_is_named_without_its_weights(checkpoint, damage, said):
    damage(checkpoint)
    with pytest.raises(InputError, match=said) as caught:
        Llava.load_processor(Llava.Config(str(checkpoint)))
    assert str(checkpoint) in str(caught.value)


def test_weights_cut_short_are_named(checkpoint):
    weights(checkpoint).write_bytes(weights(checkpoint).read_bytes()[:-8])
    with pytest.raises(InputError, match="does not: "):
        load(checkpoint)


def test_a_family_that_ships_nothing_asks_for_a_checkpoint():
    with pytest.raises(InputError, match="must be given a checkpoint folder"):
        load_backbone("llava")


def test_the_digest_sees_a_changed_byte_and_reads_unchanged_weights_once(checkpoint):
    before = checkpoint_digest(str(checkpoint))
    read = _base._file_digest.cache_info().misses
    assert checkpoint_digest(str(checkpoint)) == before
    assert _base._file_digest.cache_info().misses == read
    content = bytearray(weights(checkpoint).read_bytes())
    content[-1] ^= 1
    weights(checkpoint).write_bytes(content)
    assert checkpoint_digest(str(checkpoint)) != before

"""A text encoder in the place of the backbone's own words."""

import json
import shutil

import pytest
import torch
from transformers import BertConfig, BertModel

from same import registry
from same.backbones import _tiny
from same.engine.job import resolve
from same.engine.session import Session
from same.errors import InputError
from same.methods._base import Method
from same.methods._features import FeatureMethod

NAMES = [
    name
    for name in registry.names("same.methods")
    if issubclass(registry.load_class("same.methods", name, Method), FeatureMethod)
]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A folder with a small text encoder, 12 wide."""
    torch.manual_seed(1)
    tokenizer = _tiny.build_tokenizer(["what colour is it", "red blue green"])
    size = {"hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    folder = tmp_path_factory.mktemp("encoder")
    BertModel(BertConfig(vocab_size=len(tokenizer), **size)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_an_encoder_reads_the_instructions_alone(name, ask, encoder, tmp_path):
    session = Session.open(ask(tmp_path, name, encoder=str(encoder)))
    session.attach()
    method = session.method
    rows = [session.rows.train[task][0] for task in range(2)]
    batch = session.collate_train(rows)
    found = method.features(batch)["instruction"]
    assert found.shape == (2, 12)
    alone = method.features(session.collate_train(rows[1:]))["instruction"]
    torch.testing.assert_close(alone[0], found[1], atol=1e-5, rtol=1e-4)
    answered = {**rows[0], "conversations": [rows[0]["conversations"][0], {"from": "gpt", "value": "green"}]}
    again = method.features(session.collate_train([answered]))["instruction"]
    torch.testing.assert_close(again[0], found[0], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(found[0], found[1], atol=1e-3)


def test_an_encoder_that_is_not_there_is_refused_before_anything_is_written(ask, tmp_path):
    request = ask(tmp_path / "runs", "disco", encoder=str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="encoder must be a text encoder in a folder"):
        Session.open(request)
    assert not resolve(request).folder.path.exists()


def test_an_encoder_counts_by_its_content_wherever_it_lies(ask, encoder, tmp_path, monkeypatch):
    moved = shutil.copytree(encoder, tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    here, there = (resolve(ask(tmp_path / "runs", "disco", encoder=place)) for place in ("moved", str(encoder)))
    assert here.request.settings["encoder"] == str(moved)
    assert here.settings == there.settings
    assert str(tmp_path) not in json.dumps(here.settings)
    (moved / "config.json").write_text("{}")
    assert resolve(here.request).settings != there.settings

"""Layers beyond the FFN: attention and the vision tower are adapted, observed, constrained, audited and saved alike."""

import dataclasses
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from same.engine.job import resolve
from same.engine.session import Session, check
from same.engine.snapshot import ADAPTER, restore
from same.engine.trainer import train
from same.errors import InputError
from same.tuner.observe import moe_layers

GROUPS = "vision_attention,ffn,attention,vision_ffn"
SMALL = {"method": "same_plus", "num_experts": 2, "rank": 2, "learning_rate": 0.02, "probe_rows": 4, "probe_tokens": 24}
PATCHES = 8 * 8 + 1  # of a picture of the tiny backbone, with the class token
BLOCK = {"language_model": "model.language_model.layers.0", "vision_tower": "model.vision_tower.encoder.layers.0"}


@pytest.fixture(scope="module")
def reaching(ask, tmp_path_factory):
    return train(ask(tmp_path_factory.mktemp("reaching"), **SMALL, targets=GROUPS))


def test_every_linear_layer_of_both_towers_is_adapted(ask, tmp_path):
    session = Session.open(ask(tmp_path, **SMALL, targets=GROUPS))
    linear = {
        name
        for name, module in session.model.named_modules()
        if isinstance(module, torch.nn.Linear) and "layers" in name
    }
    session.attach()
    assert set(moe_layers(session.model)) == linear
    assert len(linear) == 7 * 4 + 6 * 5


def test_new_adapters_in_both_towers_change_nothing(ask, tmp_path):
    session = Session.open(ask(tmp_path, **SMALL, targets=GROUPS))
    batch = session.collate_train(session.rows.train[0].select(range(3)).to_list())
    with torch.no_grad():
        before = session.model(**batch).logits
        session.attach()
        assert torch.equal(session.model(**batch).logits, before)


def test_each_distinct_input_has_one_covariance_over_its_own_tokens(reaching):
    spectra = load_file(reaching.snapshot(1).file("spectrum.safetensors"))
    keys = {name.rpartition(".")[0] for name in spectra}
    assert len(keys) == 4 * (4 + 5)
    assert {key for key in keys if ".layers.0." in key} == {
        f"{block}.{part}_{place}"
        for block in BLOCK.values()
        for part in ("mlp", "self_attn")
        for place in ("in", "mid")
    }
    text, pictures = (spectra[f"{block}.self_attn_in.tokens"] for block in BLOCK.values())
    assert pictures == 2 * 10 * PATCHES  # two tasks of ten rows, a picture each, nothing padded
    assert 2 * 10 * 64 < text < pictures + 2 * 10 * 30
    assert all((spectra[f"{key}.eigenvalues"] > 0).any() for key in keys)


def test_adapters_of_both_towers_learn(reaching):
    first, last = (load_file(reaching.snapshot(index).file(ADAPTER)) for index in (0, 2))
    assert all(value.any() for name, value in first.items() if "lora_B" in name)  # they began as zeros
    routers = [name for name in first if "lora_router" in name]
    assert len(routers) == 7 * 4 + 6 * 5
    assert not [name for name in routers if torch.equal(first[name], last[name])]


def test_the_audit_compares_tokens_of_pictures_too(reaching):
    probes = [load_file(reaching.snapshot(index).file("probe.safetensors")) for index in range(3)]
    for block in BLOCK.values():
        assert {len(probe[f"{block}.mlp_in.inputs"]) for probe in probes} == {24}
    table = reaching.snapshot(2).table("audit")
    assert table["layer"].nunique() == 7 * 4 + 6 * 5
    assert (table.query("part == 'router'")["drift"] > 0).all()
    first = table[(table["input_key"] == f"{BLOCK['vision_tower']}.self_attn_in") & (table["part"] == "router")]
    assert (first["representation_drift"] < 1e-6).all()  # nothing before it is adapted: the same tokens again


def test_a_snapshot_of_both_towers_is_restored(ask, reaching):
    session = Session.open(ask(reaching.path.parents[2], **SMALL, targets=GROUPS))
    session.attach()
    restore(session, reaching.snapshot(2))
    saved = load_file(reaching.snapshot(2).file(ADAPTER))
    for name, layer in moe_layers(session.model).items():
        assert torch.equal(layer.router, saved[f"base_model.model.{name}.lora_router"])


def test_the_groups_decide_the_fingerprint_and_their_order_does_not(ask, tmp_path):
    def place(targets):
        return resolve(ask(tmp_path, targets=targets)).folder.path

    assert place("ffn,attention") == place("attention,ffn") == place(["attention", "ffn"])
    assert len({place("ffn"), place("attention"), place("ffn,attention")}) == 3
    assert place("ffn") == resolve(ask(tmp_path)).folder.path


@pytest.mark.parametrize("method", ["hide", "disco", "smolora", "clmoe"])
def test_methods_that_weigh_rows_refuse_layers_that_read_pictures(ask, tmp_path, method):
    with pytest.raises(InputError, match=f"targets must read the rows of a batch for {method}.*; vision_ffn read"):
        resolve(ask(tmp_path, method, targets="ffn,vision_ffn"))
    assert resolve(ask(tmp_path, method, targets="ffn,attention"))


@pytest.mark.parametrize("targets", ["projector", "", []])
def test_a_group_that_does_not_exist_names_the_choices(ask, tmp_path, targets):
    with pytest.raises(InputError, match="ffn, attention, vision_ffn, vision_attention"):
        resolve(ask(tmp_path, targets=targets))


def test_a_cut_vision_tower_must_have_a_picture_in_every_training_row(ask, data, tmp_path):
    shutil.copytree(data, tmp_path / "data")
    file = tmp_path / "data/colours/letter/train.json"
    first, *rest = json.loads(file.read_text())
    first["conversations"][0]["value"] = "Which letter does red begin with?"
    file.write_text(json.dumps([{key: first[key] for key in first if key != "image"}, *rest]))
    settings = {"method": "same", "processes": 2, "targets": "ffn,vision_ffn"}
    whole, cut = (
        dataclasses.replace(ask(tmp_path / "runs", **settings, strategy=strategy), data_root=str(tmp_path / "data"))
        for strategy in ("ddp", "fsdp")
    )
    check(whole)
    with pytest.raises(InputError, match="picture in every training row; 1 of 10 rows of letter have none"):
        check(cut)
    check(ask(tmp_path / "runs", **settings, strategy="fsdp"))

"""Every backbone family through the engine: trained on tasks, saved, read again, evaluated, audited."""

import dataclasses
import json
import shutil
import sys
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file

from same import cli
from same.backbones import load_backbone
from same.engine.evaluate import answer_task, evaluate_run
from same.engine.job import resolve
from same.engine.session import Session
from same.engine.snapshot import ADAPTER, restore
from same.engine.trainer import train
from same.errors import InputError
from same.runs import RunFolder
from same.tuner import load_adapter
from same.tuner.observe import moe_layers
from tests.backbones.families import BACKBONES

GROUPS = ("ffn", "attention", "vision_ffn", "vision_attention")
SETTINGS = {"method": "same", "num_experts": 2, "rank": 2, "learning_rate": 0.02, "probe_rows": 4, "probe_tokens": 24}
TOWER = {"llava": 17, "qwen2_5_vl": 36, "qwen3_vl": 36, "internvl": 5 * 17}  # a picture's tokens, the class's included
TASKS = ("colour", "letter")


@pytest.fixture(scope="module")
def pair(data):
    """The small benchmark's first two tasks."""
    path = data / "pair.yaml"
    tasks = [{"key": key, "title": key, "scorer": "exact", "max_new_tokens": 4} for key in TASKS]
    path.write_text(json.dumps({"title": "Pair", "tasks": tasks}))
    (data / "pair").symlink_to(data / "colours")
    return path


@pytest.fixture(scope="module", params=BACKBONES)
def trained(request, ask, pair, family_checkpoint, tmp_path_factory):
    """A finished run of a family with adapters in both towers."""
    kind = request.param
    place = {"checkpoint": str(family_checkpoint(kind)), "targets": ",".join(GROUPS)}
    asked = ask(tmp_path_factory.mktemp(kind), **SETTINGS, **place)
    asked = dataclasses.replace(asked, benchmark=str(pair), backbone=BACKBONES[kind])
    return SimpleNamespace(kind=kind, asked=asked, place=place, run=train(asked))


def test_two_tasks_are_trained_in_both_towers(trained):
    first, last = (load_file(trained.run.snapshot(index).file(ADAPTER)) for index in range(2))
    changed = [name for name in first if not torch.equal(first[name], last[name])]
    towers = [any(tower in name for name in changed) for tower in ("language_model", "vis")]
    assert towers == [True, True]
    assert all(torch.isfinite(value).all() for value in last.values())
    assert trained.run.scores()["tasks"] == list(TASKS)


def test_every_token_of_a_tower_is_counted_once_and_no_padding(trained):
    spectra = load_file(trained.run.snapshot(1).file("spectrum.safetensors"))
    counted = {name: int(value) for name, value in spectra.items() if name.endswith(".tokens") and "vis" in name}
    assert len(counted) == 2 * 4
    assert set(counted.values()) == {2 * 10 * TOWER[trained.kind]}  # two tasks of ten rows with a picture each


def test_the_audit_finds_the_same_tokens_again(trained):
    probes = [load_file(trained.run.snapshot(index).file("probe.safetensors")) for index in range(2)]
    keys = {name.removesuffix(".inputs") for name in probes[0] if name.endswith(".inputs")}
    assert len(keys) == 4 * 4
    assert {len(probe[f"{key}.inputs"]) for probe in probes for key in keys} == {24}
    table = trained.run.snapshot(1).table("audit")
    first = table["input_key"].str.contains(r"vis.*\.0\.(?:self_)?att\w*_in$") & (table["part"] == "router")
    assert first.sum() in (1, 3)  # a fused layer, or query, key and value
    assert (table[first]["representation_drift"] < 1e-6).all()  # nothing before it is adapted


def test_a_saved_adapter_answers_as_the_run_did(trained):
    session = Session.open(trained.asked)
    session.attach()
    restore(session, trained.run.snapshot(1))
    batch = session.collate_train(session.rows.train[0].select(range(3)).to_list())
    loaded = load_backbone(BACKBONES[trained.kind], {**trained.place, "targets": GROUPS})
    with torch.no_grad():
        before = loaded.model(**batch).logits
        adapted = load_adapter(loaded.model, trained.run.snapshot(1).file(ADAPTER).parent)
        after = adapted(**batch).logits
        assert torch.equal(after, session.model.eval()(**batch).logits)
    assert not torch.allclose(before, after, atol=1e-3)
    assert set(moe_layers(adapted)) == set(moe_layers(session.model))
    answers = answer_task(session, 0, session.method).table["text"]
    assert answers == _predictions(trained.run, 1, "colour")["text"].tolist()
    session.job = dataclasses.replace(session.job, train=dataclasses.replace(session.job.train, eval_batch_size=1))
    assert answer_task(session, 0, session.method).table["text"] == answers


def _predictions(run, stage, key):
    return pd.read_parquet(run.predictions(stage).path / f"{key}.parquet")


def test_an_evaluation_after_the_run_gives_its_scores(trained):
    scores = trained.run.scores()
    before = _predictions(trained.run, 1, "letter")
    shutil.rmtree(trained.run.predictions(1).path)
    evaluate_run(trained.run)
    pd.testing.assert_frame_equal(_predictions(trained.run, 1, "letter"), before)
    assert trained.run.scores() == scores


@pytest.mark.parametrize("kind", BACKBONES)
def test_recomputed_activations_give_the_same_gradients(ask, pair, family_checkpoint, tmp_path, kind):
    place = {"checkpoint": str(family_checkpoint(kind)), "targets": ",".join(GROUPS)}

    def gradients(recomputed):
        asked = ask(tmp_path, **SETTINGS, **place, gradient_checkpointing=recomputed)
        session = Session.open(dataclasses.replace(asked, benchmark=str(pair), backbone=BACKBONES[kind]))
        session.attach()
        session.model.train()
        session.model(**session.collate_train(session.rows.train[0].select(range(3)).to_list())).loss.backward()
        return [weight.grad for weight in session.model.parameters() if weight.grad is not None]

    kept, recomputed = gradients(False), gradients(True)
    assert len(kept) == len(recomputed) > 0
    assert any(gradient.any() for gradient in kept)
    for one, other in zip(kept, recomputed, strict=True):
        torch.testing.assert_close(one, other)


def test_samples_cannot_be_routed_where_pictures_are_packed(ask, family_checkpoint, tmp_path):
    place = {"checkpoint": str(family_checkpoint("qwen3_vl")), "routing": "sample"}

    def place_of(targets):
        asked = ask(tmp_path, **SETTINGS, **place, targets=targets)
        return resolve(dataclasses.replace(asked, backbone="qwen_vl")).folder.path

    assert place_of("ffn,attention")
    with pytest.raises(InputError, match="reads the pictures of a batch as one sequence in vision_ffn"):
        place_of("ffn,vision_ffn")


@pytest.mark.parametrize("kind", BACKBONES)
def test_weights_in_bf16_train_adapters_in_fp32(ask, pair, family_checkpoint, tmp_path, kind):
    place = {"checkpoint": str(family_checkpoint(kind)), "targets": ",".join(GROUPS)}
    asked = ask(tmp_path, **SETTINGS, **place, weights="bf16", precision="bf16")
    session = Session.open(dataclasses.replace(asked, benchmark=str(pair), backbone=BACKBONES[kind]))
    session.attach()
    rows = session.rows.train[0].select(range(3)).to_list()
    trainable = [weight for weight in session.model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=0.02)
    losses = []
    for _ in range(4):
        with session.autocast:
            loss = session.model(**session.collate_train(rows)).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert {weight.dtype for weight in trainable} == {torch.float32}
    frozen = {weight.dtype for weight in session.model.parameters() if not weight.requires_grad}
    assert frozen == {torch.bfloat16}


@pytest.mark.parametrize("named", ["folder", "hub"])
def test_the_command_takes_a_folder_or_a_name_on_the_hub(pair, family_checkpoint, tmp_path, monkeypatch, capsys, named):
    checkpoint = family_checkpoint("llava")
    if named == "hub":  # as it lies in the hub's cache once it was fetched
        place = tmp_path / "hub" / "models--example--llava-tiny"
        shutil.copytree(checkpoint, place / "snapshots" / "abc")
        (place / "refs").mkdir()
        (place / "refs" / "main").write_text("abc")
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        checkpoint = "example/llava-tiny"
    monkeypatch.setenv("SAME_DATA", str(pair.parent))
    arguments = ["--benchmark", pair, "--method", "lora", "--backbone", "llava", "--checkpoint", checkpoint]
    sizes = ["--train-items", 4, "--test-items", 2, "--set", "batch_size=4", "--runs", tmp_path / "runs"]
    monkeypatch.setattr(sys, "argv", ["same", "train", *map(str, [*arguments, *sizes])])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    run = RunFolder(capsys.readouterr().out.splitlines()[-1])
    assert run.finished() == 2
    assert run.config()["settings"]["backbone"]["name"] == "llava"

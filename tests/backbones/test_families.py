"""Each family, as a tiny random checkpoint read by the code that reads the real ones: layers, batches, answers."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import AutoConfig, AutoModelForImageTextToText

from same import registry
from same.backbones import load_backbone
from same.backbones._base import Backbone, Loaded
from same.data.collate import IGNORED, PromptCollator, TrainCollator
from same.errors import InputError
from tests.backbones.families import BACKBONES

GROUPS = ("ffn", "attention", "vision_ffn", "vision_attention")
SECOND = {"down_proj", "o_proj", "fc2", "linear_fc2", "out_proj", "proj", "projection_layer"}
ANSWERS = ("a red thing", "it is  [0.25, 0.50]", "é 中\nno")
PARAMETERS = {  # of the published checkpoints, in billions
    "llava-1.5-7b": 7.06,
    "llava-1.5-13b": 13.35,
    "qwen2.5-vl-3b": 3.75,
    "qwen2.5-vl-7b": 8.29,
    "qwen3-vl-8b": 8.77,
    "internvl3-8b": 7.94,
}
SIZES = [
    (name, size)
    for name in ("llava", "qwen_vl", "internvl")
    for size in registry.load_class("same.backbones", name, Backbone).SIZES
]


@dataclass(frozen=True)
class Family:
    model_type: str
    settings: dict[str, Any]
    loaded: Loaded


@pytest.fixture(scope="module", params=BACKBONES)
def family(request, family_checkpoint):
    settings = {"checkpoint": str(family_checkpoint(request.param)), "targets": GROUPS}
    return Family(request.param, settings, load_backbone(BACKBONES[request.param], settings))


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Rows with a picture, without one, and with one of another shape."""
    folder = tmp_path_factory.mktemp("pictures")
    for name, size, colour in (("square", (64, 64), (220, 30, 30)), ("wide", (90, 40), (40, 60, 220))):
        Image.new("RGB", size, colour).save(folder / f"{name}.png")
    return [
        _row(str(folder / "square.png"), "What colour is it?", ANSWERS[0], "Which letter?", ANSWERS[1]),
        _row(None, "How many letters has it?", ANSWERS[2]),
        _row(str(folder / "wide.png"), "What?", ANSWERS[0]),
        _row(None, "red", "blue"),
    ]


def _row(image, *turns):
    values = [f"<image>\n{turns[0]}" if image else turns[0], *turns[1:]]
    conversations = [{"from": ("human", "gpt")[index % 2], "value": value} for index, value in enumerate(values)]
    return {"id": "x", "question_id": "x", "image": image, "text": turns[0], "conversations": conversations}


def test_the_groups_are_the_linear_layers_of_all_blocks(family):
    linear = {
        name
        for name, module in family.loaded.model.named_modules()
        if isinstance(module, torch.nn.Linear) and any(part.isdigit() for part in name.split("."))
    }
    linear = {name for name in linear if "merger" not in name}
    layout = family.loaded.layout
    adapted = {name for name in linear if _matches(layout, name)}
    assert adapted == linear
    assert {name for name in linear if layout.is_padded(name)} == {name for name in linear if "language_model" in name}
    for name in linear:
        block, _, leaf = name.rpartition(".")
        assert layout.input_key(name) == f"{block}_{'mid' if leaf in SECOND else 'in'}"


def _matches(layout, name):
    try:
        layout.is_padded(name)
    except InputError:
        return False
    return True


def test_layers_of_one_input_key_read_the_same_tensor(family, rows):
    read: dict[str, list[torch.Tensor]] = {}
    layout, hooks = family.loaded.layout, []
    for name, module in family.loaded.model.named_modules():
        if _matches(layout, name):
            keep = read.setdefault(layout.input_key(name), [])
            hooks.append(module.register_forward_pre_hook(lambda _module, given, keep=keep: keep.append(given[0])))
    batch = TrainCollator(family.loaded.processor)(rows)
    with torch.no_grad():
        family.loaded.model(**batch)
    for hook in hooks:
        hook.remove()
    assert len(read) == 4 * 4  # two blocks in each tower
    assert all(torch.equal(first, other) for first, *others in read.values() for other in others)
    assert all(batch["input_ids"].shape == first.shape[:2] for key, (first, *_) in read.items() if "language" in key)


def test_what_is_learnt_reads_as_every_answer_and_its_end(family, rows):
    processor = family.loaded.processor
    end = processor.tokenizer.eos_token
    batch = TrainCollator(processor)(rows)
    for row, labels in zip(rows, batch["labels"], strict=True):
        text = processor.tokenizer.decode(labels[labels != IGNORED])
        answers = [turn["value"] for turn in row["conversations"] if turn["from"] == "gpt"]
        assert [part.strip() for part in text.split(end)] == [*answers, ""]
    assert end == ("</s>" if family.model_type == "llava" else "<|im_end|>")


def test_pictures_stay_with_their_rows(family, rows):
    collate, model = TrainCollator(family.loaded.processor), family.loaded.model
    with torch.no_grad():
        together = collate(rows)
        whole = model(**together).logits
        for index, row in enumerate(rows):
            alone = collate([row])
            count = int(alone["attention_mask"].sum())
            assert torch.equal(alone["input_ids"][0], together["input_ids"][index, :count])
            torch.testing.assert_close(model(**alone).logits[0], whole[index, :count], rtol=1e-4, atol=1e-4)
        seen, other = (
            model(**collate([{**rows[0], "image": row["image"]}])).logits[0, -1] for row in (rows[0], rows[2])
        )
        assert not torch.allclose(seen, other, atol=1e-3)


def test_answers_are_the_same_alone_together_and_without_a_cache(family, rows):
    model, collate = family.loaded.model, PromptCollator(family.loaded.processor)

    def answers(chosen, **options):
        batch = collate(chosen)
        tokens = model.generate(**batch, max_new_tokens=6, min_new_tokens=6, do_sample=False, **options)
        return tokens[:, batch["input_ids"].shape[1] :].tolist()

    together = answers(rows)
    assert len({tuple(answer) for answer in together}) > 1
    assert [answers([row])[0] for row in rows] == together
    assert answers(rows, use_cache=False) == together


def test_the_processor_needs_no_torchvision_and_is_saved_as_the_familys(family, tmp_path):
    processor = family.loaded.processor
    assert "Pil" in type(processor.image_processor).__name__
    assert "video_processor" not in vars(processor)
    processor.save_pretrained(tmp_path)
    family.loaded.model.save_pretrained(tmp_path)
    again = load_backbone(BACKBONES[family.model_type], {**family.settings, "checkpoint": str(tmp_path)})
    assert type(again.processor).__name__ == type(processor).__name__
    assert again.processor.chat_template == processor.chat_template


def test_a_picture_takes_the_tokens_the_plan_says(family, rows):
    backbone, model = family.loaded.backbone, family.loaded.model
    batch = TrainCollator(family.loaded.processor)(rows[:1])
    drawn = int((batch["input_ids"] == family.loaded.processor.image_token_id).sum())
    cell = {"qwen2_5_vl": 28, "qwen3_vl": 32}.get(family.model_type)
    if cell is None:
        assert backbone.image_tokens(model.config, 64) == drawn
    else:  # the tiny checkpoint enlarges pictures to 3 × 3 cells
        assert backbone.image_tokens(model.config, 3 * cell) == drawn == 9


def test_a_checkpoint_of_another_family_is_refused(family_checkpoint):
    with pytest.raises(InputError, match=r"must be of type qwen2_5_vl or qwen3_vl; .* is of type internvl"):
        load_backbone("qwen_vl", {"checkpoint": str(family_checkpoint("internvl"))})


def _drawn(family_checkpoint, model_type, row, **settings):
    backbone = registry.load_class("same.backbones", BACKBONES[model_type], Backbone)
    processor = backbone.load_processor(backbone.Config(str(family_checkpoint(model_type)), **settings))
    return int((TrainCollator(processor)([row])["input_ids"] == processor.image_token_id).sum())


@pytest.mark.parametrize("model_type", ["qwen2_5_vl", "qwen3_vl"])
def test_pictures_are_made_smaller_where_asked(family_checkpoint, model_type, rows):
    assert _drawn(family_checkpoint, model_type, rows[0]) == 9
    assert _drawn(family_checkpoint, model_type, rows[0], max_image_tokens=4) == 4


def test_pictures_are_cut_into_fewer_tiles_where_asked(family_checkpoint, rows):
    assert _drawn(family_checkpoint, "internvl", rows[0]) == 4 * (4 + 1)
    assert _drawn(family_checkpoint, "internvl", rows[0], max_tiles=1) == 4


@pytest.mark.parametrize(("name", "setting"), [("qwen_vl", "max_image_tokens"), ("internvl", "max_tiles")])
def test_no_picture_at_all_cannot_be_asked_for(name, setting):
    with pytest.raises(InputError, match=f"{setting} must be at least 1; got 0"):
        load_backbone(name, {setting: 0})


@pytest.mark.parametrize(("name", "size"), SIZES)
def test_public_sizes_have_their_published_number_of_parameters(name, size):
    backbone = registry.load_class("same.backbones", name, Backbone)
    config = AutoConfig.for_model(**backbone.SIZES[size])
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    assert round(sum(weight.numel() for weight in model.parameters()) / 1e9, 2) == PARAMETERS[size]
    assert config.model_type in backbone.MODEL_TYPES


@pytest.mark.parametrize(
    ("name", "size", "side", "tokens"),
    [
        ("llava", "llava-1.5-7b", None, 576),
        ("llava", "llava-1.5-13b", 1000, 576),
        ("qwen_vl", "qwen2.5-vl-7b", None, 256),
        ("qwen_vl", "qwen2.5-vl-3b", 280, 100),
        ("qwen_vl", "qwen3-vl-8b", 320, 100),
        ("internvl", "internvl3-8b", None, 256),
        ("internvl", "internvl3-8b", 896, 256 * 5),
    ],
)
def test_tokens_of_a_picture_at_the_public_sizes(name, size, side, tokens):
    backbone = registry.load_class("same.backbones", name, Backbone)
    assert backbone.image_tokens(AutoConfig.for_model(**backbone.SIZES[size]), side) == tokens

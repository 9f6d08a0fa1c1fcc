"""Batches: what is learnt is every answer and nothing else, and pictures stay with their rows."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import LlavaProcessor

from same import registry
from same.backbones._base import Backbone
from same.data.collate import IGNORED, PromptCollator, TrainCollator
from same.errors import DataError, InputError

NO_END_TEMPLATE = (
    "{% for message in messages %}{{ message['role'].upper() + ': ' }}"
    "{% for part in message['content'] if part['type'] == 'image' %}{{ '<image>\\n' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] + ' ' }}{% endfor %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Pictures of one grey each, from dark to light."""
    folder = tmp_path_factory.mktemp("pictures")
    for index in range(4):
        Image.new("RGB", (64, 64), (60 * index,) * 3).save(folder / f"{index}.png")
    return [str(folder / f"{index}.png") for index in range(4)]


def _row(image: str | None, *turns: str) -> dict[str, Any]:
    values = [f"<image>\n{turn}" if image and index == 0 else turn for index, turn in enumerate(turns)]
    speakers = ("human", "gpt")
    conversations = [{"from": speakers[index % 2], "value": value} for index, value in enumerate(values)]
    return {"id": "x", "image": image, "conversations": conversations}


def _learnt(processor: LlavaProcessor, labels: torch.Tensor) -> str:
    text: str = processor.tokenizer.decode(labels[labels != IGNORED])
    return text


def test_labels_are_the_answers_with_their_end_tokens(processor: LlavaProcessor, pictures: list[str]) -> None:
    rows = [
        _row(pictures[0], "What is this?", "bird a"),
        _row(None, "Is it blue?", "yes", "How many?", "three, or A."),
        _row(pictures[1], "Where?", "[0.25,0.50]", "Is it blue?", "no"),
    ]
    batch = TrainCollator(processor)(rows)
    learnt = [_learnt(processor, labels) for labels in batch["labels"]]
    assert learnt == [" bird a</s>", " yes</s> three, or A.</s>", " [0.25,0.50]</s> no</s>"]


def test_training_batches_are_padded_on_the_right_and_prompts_on_the_left(
    processor: LlavaProcessor, pictures: list[str]
) -> None:
    mask = TrainCollator(processor)([_row(None, "a", "b"), _row(None, "What is this thing?", "b")])["attention_mask"]
    assert mask[0, 0] == 1
    assert mask[0, -1] == 0
    rows = [{"text": "a", "image": None}, {"text": "What is this?", "image": pictures[0]}]
    batch = PromptCollator(processor)(rows)
    assert batch["attention_mask"][0, 0] == 0
    assert batch["attention_mask"][0, -1] == 1
    assert "labels" not in batch


def test_a_prompt_is_the_beginning_of_its_training_text(processor: LlavaProcessor, pictures: list[str]) -> None:
    for image in (None, pictures[2]):
        trained = TrainCollator(processor)([_row(image, "What is this?", "bird")])
        prompt = PromptCollator(processor)([{"text": "What is this?", "image": image}])
        width = prompt["input_ids"].shape[1]
        assert torch.equal(trained["input_ids"][:, :width], prompt["input_ids"])
        assert trained["labels"][0, width - 1] == IGNORED
        assert trained["labels"][0, width] != IGNORED


@pytest.mark.parametrize("order", [(0, None, 1, 2), (None, 2, None, 3), (3, 2, 1, 0)])
def test_text_only_rows_do_not_shift_pictures(
    processor: LlavaProcessor, pictures: list[str], order: tuple[int | None, ...]
) -> None:
    rows = [_row(None if place is None else pictures[place], "What is this?", "bird") for place in order]
    batch = TrainCollator(processor)(rows)
    alone = [TrainCollator(processor)([row])["pixel_values"] for row in rows if row["image"]]
    assert torch.equal(batch["pixel_values"], torch.cat(alone))
    marks = (batch["input_ids"] == processor.image_token_id).sum(1).tolist()
    assert marks == [0 if place is None else 64 for place in order]


def test_a_batch_of_text_alone_has_no_pictures(processor: LlavaProcessor) -> None:
    assert "pixel_values" not in TrainCollator(processor)([_row(None, "a", "b")])


def test_every_key_of_the_processor_is_passed_on(processor: LlavaProcessor, pictures: list[str]) -> None:
    row = _row(pictures[0], "What is this?", "bird")
    given = set(processor(text=["<image>"], images=[Image.open(pictures[0])], return_tensors="pt"))
    assert set(TrainCollator(processor)([row])) == given | {"labels"}


def test_a_template_without_an_end_token_gets_one_after_each_answer(
    processor: LlavaProcessor, pictures: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processor, "chat_template", NO_END_TEMPLATE)
    batch = TrainCollator(processor)([_row(pictures[0], "What is this?", "bird", "Is it blue?", "no")])
    assert _learnt(processor, batch["labels"][0]) == " bird</s> no</s>"
    assert "USER: <image>" in processor.tokenizer.decode(batch["input_ids"][0])


def test_a_template_that_rewrites_earlier_turns_is_refused(
    processor: LlavaProcessor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processor, "chat_template", "{{ messages | length }}")
    with pytest.raises(InputError, match="a chat template must only append turn by turn"):
        TrainCollator(processor)([_row(None, "a", "b")])


def test_pictures_kept_in_memory_are_the_pictures_on_disk(processor: LlavaProcessor, pictures: list[str]) -> None:
    row = _row(pictures[3], "What is this?", "bird")
    keeping, reading = TrainCollator(processor), TrainCollator(processor, keep_megabytes=0)
    first, again, read = keeping([row]), keeping([row]), reading([row])
    assert torch.equal(first["pixel_values"], again["pixel_values"])
    assert torch.equal(first["pixel_values"], read["pixel_values"])


def test_an_unreadable_picture_is_named(processor: LlavaProcessor, tmp_path: Path) -> None:
    (tmp_path / "torn.png").write_bytes(b"\x89PNG\r\n")
    with pytest.raises(DataError, match=r"torn\.png: an image must be readable"):
        PromptCollator(processor)([{"text": "a", "image": str(tmp_path / "torn.png")}])


WORDS = st.text("abcdeAB ?.,[]0123:é\n", min_size=1, max_size=20).filter(lambda text: text.strip() == text != "")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(turns=st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=3), image=st.booleans())
def test_labels_read_back_as_the_answers_whatever_they_are(
    processor: LlavaProcessor, pictures: list[str], turns: list[tuple[str, str]], image: bool
) -> None:
    row = _row(pictures[0] if image else None, *(text for turn in turns for text in turn))
    batch = TrainCollator(processor)([_row(pictures[1], "Padding makes rows longer than others do", "b"), row])
    assert _learnt(processor, batch["labels"][1]) == "".join(f" {answer}</s>" for _, answer in turns)


def _processor_of(name: str, family_checkpoint: Callable[[str], Path]) -> Any:
    """A small processor with the chat template of a backbone family."""
    family = registry.load_class("same.backbones", name, Backbone)
    if family.SHIPPED:
        return family.load_processor(family.Config())
    return family.load_processor(family.Config(str(family_checkpoint(family.MODEL_TYPES[0]))))


@pytest.mark.parametrize("name", registry.names("same.backbones"))
@pytest.mark.parametrize("with_picture", [False, True])
def test_every_backbones_template_learns_each_assistant_turn_and_nothing_else(
    name: str, with_picture: bool, pictures: list[str], family_checkpoint: Callable[[str], Path]
) -> None:
    theirs = _processor_of(name, family_checkpoint)
    answers = ["A bird.", "no", "[0.25,0.50,0.75,1.00]"]
    turns = [text for answer in answers for text in ("What is this thing?", answer)]
    short = _row(None, "Is it blue?", "yes")
    batch = TrainCollator(theirs)([short, _row(pictures[0] if with_picture else None, *turns)])
    for labels, learnt in zip(batch["labels"], (["yes"], answers), strict=True):
        tokens = labels[labels != IGNORED]
        text = theirs.tokenizer.decode(tokens, skip_special_tokens=True)
        assert "".join(text.split()) == "".join("".join(learnt).split())
        assert (tokens == theirs.tokenizer.eos_token_id).sum() == len(learnt), "each answer ends with the end of text"

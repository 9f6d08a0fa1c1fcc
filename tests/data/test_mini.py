"""What the embedded tasks promise: determinism, formats, right answers, and splits that share little."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from same.data import mini
from same.data.mini import gqa, ocrvqa, textvqa
from same.data.mini._world import KIND_OF, LABELS, SIDE, cell_of, flag_character, icon

FORMATS = {
    "scienceqa": r"[A-D]",
    "textvqa": r"[a-z]+|\d\d",
    "imagenet": r"[a-z]+",
    "gqa": r"[a-z]+",
    "vizwiz": r"[a-z]+",
    "grounding": r"\[(\d\.\d\d,){3}\d\.\d\d\]",
    "vqav2": r"[a-z]+|[1-5]",
    "ocrvqa": r"[A-Z][A-Za-z]+( [A-Z][a-z]*)*",
    "imagenet_r": r"[a-z]+",
    "arxivqa": r"[A-D]",
    "vizwiz_caption": r"A (blurry )?photo of an? ([a-z]+ ){2,6}[a-z]+\.",
    "iconqa": r"[a-z]+|[1-9]",
    "clevr": r"\d",
    "flickr30k": r"(A person is|Two people are) [a-z ]+ next to an? [a-z]+ (on|by) [a-z ]+\.",
    "pmcvqa": r"[A-D]",
    "docvqa": r"[A-Z][a-z]+|[1-9]\d?",
    "chartqa": r"\d\d|\d\.\d|[A-Z]{2}|Yes|No",
    "infographicvqa": r"\d\d|\d\.\d|\d{1,2}M|(19|20)\d\d",
    "roadside": r"[A-Z][a-z]+( [a-z]+)*|[0-3]",
    "chemvqa": r"[0-4]|Yes|No|C\d?H\d*(Cl?\d?)?N?\d?O?\d?S?\d?",
    "floodnetvqa": r"(non )?flooded|[0-4]|Yes|No",
}
TASKS = tuple(FORMATS)
WHOLE_SENTENCE = re.compile(r"[A-Z].* .*\.")


def items(task, split, count=150):
    return [mini.sample(task, split, index, 0) for index in range(count)]


@pytest.mark.parametrize("task", TASKS)
def test_answers_have_the_benchmarks_format_and_talk_does_not(task):
    for sample in items(task, "train"):
        assert re.fullmatch(FORMATS[task], sample.answer), sample.answer
        assert all(WHOLE_SENTENCE.fullmatch(answer) for _, answer in sample.talk), sample.talk
        assert not any(re.fullmatch(FORMATS[task], answer) for _, answer in sample.talk), sample.talk
        assert sample.image.size == (SIDE, SIDE)
        assert sample.image.mode == "RGB"


@pytest.mark.parametrize("task", TASKS)
@settings(max_examples=10, deadline=None)
@given(index=st.integers(0, 10**7), seed=st.integers(0, 100))
def test_an_item_depends_on_its_name_alone(task, index, seed):
    first, second = (mini.sample(task, "test", index, seed) for _ in range(2))
    assert first.question == second.question
    assert first.answer == second.answer
    assert first.image.tobytes() == second.image.tobytes()


@pytest.mark.parametrize("task", TASKS)
def test_no_picture_with_its_question_is_in_both_splits(task):
    train = {(sample.image.tobytes(), sample.question) for sample in items(task, "train")}
    assert not train & {(sample.image.tobytes(), sample.question) for sample in items(task, "test")}


@pytest.mark.parametrize("task", TASKS)
def test_what_is_drawn_lies_in_the_picture(task):
    for sample in items(task, "train", 60):
        for part in sample.parts:
            left, top, right, bottom = part.box
            assert max(left, 0) < min(right, SIDE), part
            assert max(top, 0) < min(bottom, SIDE), part


def test_streams_give_other_items_of_one_seed():
    plain, first, other = (mini.sample("clevr", "test", 3, 0, stream) for stream in (0, 1, 2))
    assert mini.sample("clevr", "test", 3, 0).image.tobytes() == plain.image.tobytes()
    assert len({sample.image.tobytes() for sample in (plain, first, other)}) == 3


@pytest.mark.parametrize("task", ["scienceqa", "arxivqa", "pmcvqa"])
def test_letters_name_the_option_that_the_sentence_names(task):
    for sample in items(task, "train"):
        options = dict(re.findall(r"^([A-E])\. (.+)$", sample.question, re.MULTILINE))
        assert f"The right choice is {sample.answer}, {options[sample.answer]}." in dict(sample.talk).values()
        assert len(set(options.values())) == len(options)


def test_no_film_title_is_in_both_splits_and_every_test_word_was_seen():
    train, test = ocrvqa.titles("train"), ocrvqa.titles("test")
    assert len(test) >= 10
    assert not set(train) & set(test)
    assert {word for title in test for word in title.split()} <= {word for title in train for word in title.split()}


def test_handwritten_digits_of_the_splits_are_different_pictures():
    train, test = ({digit.tobytes() for digit in textvqa._handwriting(split)[0]} for split in ("train", "test"))
    assert len(test) > 300
    assert not train & test


def test_boxes_hold_the_drawing_and_lie_on_the_sixteenth_grid():
    for sample in items("grounding", "train"):
        edges = np.array(sample.box) * 16
        assert np.array_equal(edges, edges.round())
        left, top, right, bottom = sample.box
        assert 0 <= left < right <= 1
        assert 0 <= top < bottom <= 1
        assert sample.answer == "[" + ",".join(f"{edge:.2f}" for edge in sample.box) + "]"


def test_gqa_answers_follow_from_the_layout():
    for sample in items("gqa", "train", 400):
        where = {part.label: cell_of(part) for part in sample.parts}
        found = re.match(r"Is the (\w+) (to the left of|to the right of|above|below) the (\w+)\?", sample.question)
        if found:
            one, relation, two = found.groups()
            axis, sign = {"to the left of": (0, -1), "to the right of": (0, 1), "above": (1, -1), "below": (1, 1)}[
                relation
            ]
            assert (sample.answer == "yes") == (np.sign(where[one][axis] - where[two][axis]) == sign)
        found = re.match(r"What is to the (left|right) of the (\w+)\?", sample.question)
        if found:
            side, label = found.groups()
            column, row = where[label]
            assert where[sample.answer] == (column + (1 if side == "right" else -1), row)
        found = re.match(r"Is there an? (\w+) in the picture\?", sample.question)
        if found:
            assert (sample.answer == "yes") == (found.group(1) in where)


def test_vqav2_counts_what_is_drawn():
    for sample in items("vqav2", "train"):
        if sample.question.startswith("How many objects"):
            assert int(sample.answer) == len(sample.parts)


def test_every_label_has_a_kind_and_flags_are_not_letters():
    assert set(KIND_OF) == set(LABELS)
    pictures = {icon(flag_character(code), 40).tobytes() for code in ("FR", "JP", "BR", "DE")}
    assert len(pictures) == 4
    assert gqa.draw(np.random.default_rng(0), "train").talk[0][0] == "Describe the picture."

"""What mini-UCIT's tasks promise: answers follow from what is drawn, and what can be parted is parted."""

import re
from collections import Counter

import numpy as np
import pytest
from PIL import Image, ImageDraw

from same.data import mini
from same.data.mini import _charts, arxivqa, flickr30k, iconqa
from same.data.mini._captions import PLACES
from same.data.mini._renditions import FINE, RENDITIONS
from same.data.mini._solids import SHAPES, floor, stand
from same.data.mini._world import HUES, LABELS, SIDE, an, icon, joined_character, named, plural


def items(task, split="train", count=200):
    return [mini.sample(task, split, index, 0) for index in range(count)]


def test_no_country_is_in_both_splits_of_the_charts():
    train, test = ({country.tobytes() for country in _charts.tables(split)} for split in ("train", "test"))
    assert (len(train), len(test)) == (161, 41)
    assert not train & test
    for split in ("train", "test"):
        assert _charts.tables(split).shape[1:] == (len(_charts.INDICATORS), _charts.YEARS)
        assert all(len(series) >= 5 for series in _charts.curves(split).values())


def test_the_named_bar_is_the_tallest_or_the_shortest():
    asked = 0
    for sample in items("arxivqa"):
        found = re.match(r"Which bar is the (tallest|shortest)\?", sample.question)
        if found:
            options = dict(re.findall(r"^([A-D])\. (\w+)$", sample.question, re.MULTILINE))
            bars = {part.colour: part.box[3] - part.box[1] for part in sample.parts if part.label == "bar"}
            best = (max if found.group(1) == "tallest" else min)(bars, key=bars.__getitem__)
            assert options[sample.answer] == best
            asked += 1
    assert asked > 5


def test_options_about_a_chart_keep_their_order():
    known = [list(arxivqa.FIGURES), list(arxivqa.CORNERS), list(arxivqa.SIDES), list(arxivqa.AGAINST_LIFE), list(HUES)]
    checked = 0
    for sample in items("arxivqa"):
        options = re.findall(r"^[A-D]\. (.+)$", sample.question, re.MULTILINE)
        for order in known:
            if set(options) <= set(order) and "bar is" not in sample.question:
                assert options == sorted(options, key=order.index)
                checked += 1
    assert checked > 150


def test_the_corner_named_the_brightest_is_the_brightest():
    rng = np.random.default_rng(0)
    for _ in range(20):
        figure = arxivqa.FIGURES["heat map"](rng, "test")
        light = np.asarray(figure.image.convert("L"))[_charts.TOP : _charts.BOTTOM, _charts.LEFT : _charts.RIGHT]
        halves = (light[:17], light[-17:])
        corners = [corner.mean() for half in halves for corner in (half[:, :17], half[:, -17:])]
        assert arxivqa.CORNERS[int(np.argmax(corners))] == figure.right


@pytest.mark.parametrize("kind", arxivqa.FIGURES)
def test_every_right_option_of_a_chart_is_drawn_often(kind):
    rng = np.random.default_rng(1)
    figures = [arxivqa.FIGURES[kind](rng, "test") for _ in range(120)]
    for question in {figure.question for figure in figures}:
        found = Counter(figure.right for figure in figures if figure.question == question)
        assert set(found) <= {option for figure in figures for option in figure.options}
        assert max(found.values()) <= 0.75 * found.total() or found.total() < 10, (question, found)


def test_icons_are_counted_compared_and_continued_as_drawn():
    kinds = Counter()
    for sample in items("iconqa"):
        labels = [part.label for part in sample.parts]
        if sample.question.startswith("How many"):
            kinds["count"] += 1
            assert int(sample.answer) == len(labels) == labels.count(labels[0])
            assert plural(labels[0]) in sample.question
        elif sample.question.startswith("Are there more"):
            kinds["compare"] += 1
            numbers = Counter(plural(label) for label in labels)
            assert set(re.search(r"Choices: (\w+), (\w+), same\.", sample.question).groups()) == set(numbers)
            (first, most), (_, least) = numbers.most_common(2)
            assert sample.answer == ("same" if most == least else first)
        else:
            kinds["continue"] += 1
            row = [*labels[: labels.index("question mark")], sample.answer]
            assert row[:3] == row[3:] or row[:4] == row[2:]
    assert min(kinds.values()) > 40


def test_patterns_can_be_told_from_the_five_icons_shown():
    assert all(pattern[:3] == pattern[3:] or pattern[:4] == pattern[2:] for pattern in iconqa.PATTERNS)


def test_solids_add_up():
    for sample in items("clevr"):
        total = len(sample.parts)
        chosen = re.search(r"(?:all|many) (?:(large|small) )?(?:(\w+) )?(\w+)(?:\.| are there)", sample.question)
        if added := re.match(r"Add (\d) ", sample.question):
            assert int(sample.answer) == total + int(added.group(1))
            continue
        size, colour, noun = chosen.groups()
        alike = [
            part
            for part in sample.parts
            if (not size or part.label.startswith(size))
            and (not colour or part.colour == colour)
            and (noun == "objects" or part.label.endswith(noun.removesuffix("s")))
        ]
        assert alike
        assert int(sample.answer) == (total - len(alike) if "Subtract" in sample.question else len(alike))


def test_solids_differ_by_shape_and_stand_where_they_are_put():
    pictures = {}
    for shape in SHAPES:
        image = floor(np.random.default_rng(0))
        assert stand(image, shape, "red", 20, 32, 50) == (22, 30, 42, 50)
        pictures[shape] = image.tobytes()
        red, green, _ = np.asarray(image)[34:46, 27:34].reshape(-1, 3).mean(0)
        assert red > 2 * green
    assert len(set(pictures.values())) == 3


def test_captions_name_what_is_drawn():
    for sample in items("vizwiz_caption"):
        (part,) = sample.parts
        state = "blurry " if ("Is the picture sharp or blurred?", "It is blurred.") in sample.talk else ""
        assert sample.answer == f"A {state}photo of {an(named(part))} {PLACES[sample.backdrop]}."
    for sample in items("flickr30k"):
        doing = [part.label for part in sample.parts if part.label in flickr30k.ACTIONS]
        (thing,) = (part.label for part in sample.parts if part.label not in flickr30k.ACTIONS)
        people = {1: "A person is", 2: "Two people are"}[len(doing)]
        assert sample.answer == f"{people} {doing[0]} next to {an(thing)} {PLACES[sample.backdrop]}."


def test_people_are_drawn_as_one_and_not_as_letters():
    people = [joined_character(figure + tone) for figure in flickr30k.ACTIONS.values() for tone in flickr30k.SKINS]
    assert len({icon(person, 40).tobytes() for person in people}) == len(people)
    running, plain = (icon(character, 40) for character in (joined_character("🏃🏿"), "🏃"))
    assert running.size == plain.size
    assert np.array_equal(np.asarray(running)[..., 3], np.asarray(plain)[..., 3])


@pytest.mark.parametrize("rendition", RENDITIONS)
def test_a_rendition_keeps_the_shape_where_it_is(rendition):
    page = Image.new("RGB", (FINE * SIDE, FINE * SIDE), "white")
    ImageDraw.Draw(page).rectangle((40, 40, 88, 88), fill=(220, 60, 40), outline="black", width=5)
    drawn = np.asarray(RENDITIONS[rendition](np.random.default_rng(0), page)).astype(int)
    assert drawn.shape == (SIDE, SIDE, 3)
    differs = np.abs(drawn - drawn[2, 2]).sum(-1) > 60
    rows, columns = np.nonzero(differs)
    assert abs(rows.min() - 20) <= 4
    assert abs(columns.max() - 44) <= 4
    assert np.abs(drawn - np.asarray(page.resize((SIDE, SIDE)))).max() > 20


def test_every_label_is_asked_for_in_every_rendition_sooner_or_later():
    found = Counter((sample.answer, sample.backdrop) for sample in items("imagenet_r", count=600))
    assert {label for label, _ in found} == set(LABELS)
    assert {rendition for _, rendition in found} == set(RENDITIONS)
    assert set(HUES) >= {part.colour for sample in items("clevr") for part in sample.parts}

"""What mini-TriGap's own tasks promise: sources that part, and answers that follow from what is drawn."""

import re
from collections import Counter

import pytest
from rdkit import Chem

from same.data import mini
from same.data.manifest import load_benchmark
from same.data.mini import chartqa, chemvqa, docvqa, floodnetvqa, infographicvqa, pmcvqa, roadside

OWN = ("pmcvqa", "docvqa", "chartqa", "infographicvqa", "roadside", "chemvqa", "floodnetvqa")
MOST_WORDS = 60


def items(task, count=200):
    return [mini.sample(task, "train", index, 0) for index in range(count)]


def labels(sample, kind):
    """What follows ``kind`` in the labels of the parts, in the order they are drawn."""
    return [part.label.removeprefix(f"{kind} ") for part in sample.parts if part.label.startswith(f"{kind} ")]


def asked(sample):
    return sample.question.split("\n")[0]


@pytest.mark.parametrize(
    "sources",
    [
        docvqa.orders,
        chartqa.years,
        lambda split: [portrait.code for portrait in infographicvqa.portraits(split)],
        lambda split: [Chem.MolToSmiles(molecule.drawn) for molecule in chemvqa.molecules(split)],
        lambda split: range(*floodnetvqa.region(split).indices(10_000)),
        *(lambda split, axis=axis: pmcvqa.slices(split, axis) for axis in range(3)),
    ],
    ids=["order lines", "years", "countries", "molecules", "terrain", "sagittal", "coronal", "axial"],
)
def test_training_and_test_sources_are_different_ones(sources):
    train, test = set(sources("train")), set(sources("test"))
    assert len(train) > len(test) >= 10
    assert not train & test


@pytest.mark.parametrize("task", OWN)
def test_a_task_has_few_words(task):
    prompt = load_benchmark("mini-trigap").task(task).prompt
    said = " ".join(f"{sample.question.removesuffix(prompt)} {sample.answer}" for sample in items(task, 300))
    assert len(set(re.findall(r"[A-Za-z-]+", said))) <= MOST_WORDS


def test_a_form_prints_the_answer():
    names = {name: printed for printed, name in docvqa.NAMES.items()}
    for sample in items("docvqa"):
        found = re.fullmatch(r"What is the (\w+)\?", asked(sample))
        if not found:
            assert labels(sample, "paper") == [sample.answer]
            continue
        written = re.sub(r"(\d) (?=\d)", r"\1", " ".join(_values(sample)[names[found[1]]]))
        assert written == sample.answer


def _values(sample):
    """What a form prints, by the printed name on its left."""
    values, name = {}, ""
    for part in sample.parts:
        kind, _, label = part.label.partition(" ")
        if kind == "key":
            name = label
        elif kind in ("word", "digit"):
            values.setdefault(name, []).append(label)
    return values


def test_the_highest_bar_is_drawn_highest():
    for sample in items("chartqa"):
        bars = [part for part in sample.parts if part.label == "bar"]
        height = dict(zip(labels(sample, "code"), (bar.box[3] - bar.box[1] for bar in bars), strict=True))
        assert len(height) == chartqa.BARS
        if "est bar" in asked(sample):
            end = max if "highest" in asked(sample) else min
            assert sample.answer == end(height, key=height.__getitem__)
        if found := re.fullmatch(r"Is the value of (..) higher than that of (..)\?", asked(sample)):
            assert (sample.answer == "Yes") == (height[found[1]] > height[found[2]])


def test_an_infographic_prints_the_answers_digits():
    for sample in items("infographicvqa"):
        printed = "".join(labels(sample, "digit"))
        assert re.sub(r"\D", "", sample.answer) in printed
        assert len(labels(sample, "icon of")) == len(infographicvqa.ICONS)


def test_vehicles_are_counted_and_the_sign_stands_on_the_side_that_is_told():
    for sample in items("roadside"):
        *others, sign = sample.parts
        count = sum(part.label in roadside.VEHICLES for part in others)
        if asked(sample).startswith("How many"):
            assert int(sample.answer) == count
        if asked(sample).startswith("Is the road clear"):
            assert (sample.answer == "Yes") == (count == 0)
        if asked(sample).startswith("On which side"):
            assert (sample.answer == "Left") == (sign.box[0] == 0)


def test_atoms_rings_and_formulas_are_those_that_are_drawn():
    for sample in items("chemvqa"):
        atoms, rings = Counter(labels(sample, "atom")), [part for part in sample.parts if part.label.endswith("ring")]
        if asked(sample).startswith("How many rings"):
            assert int(sample.answer) == len(rings)
        if asked(sample).startswith("How many oxygen"):
            assert int(sample.answer) == atoms["oxygen"]
        if found := re.fullmatch(r"Does the molecule contain (\w+)\?", asked(sample)):
            assert (sample.answer == "Yes") == (atoms[found[1]] > 0)
        if asked(sample).startswith("What is the molecular formula"):
            assert ("N" in sample.answer) == (atoms["nitrogen"] > 0)


def test_every_formula_of_the_tests_was_seen_with_another_molecule():
    train = {molecule.formula for molecule in chemvqa.molecules("train")}
    test = {molecule.formula for molecule in chemvqa.molecules("test")} & chemvqa._shared_formulas()
    assert len(test) > 10
    assert test <= train


def test_buildings_are_counted_and_drowned_where_there_is_water():
    for sample in items("floodnetvqa"):
        states = Counter(labels(sample, "building"))
        if asked(sample) == "How many buildings are in the image?":
            assert int(sample.answer) == states.total()
        if asked(sample) == "How many buildings are flooded?":
            assert int(sample.answer) == states["flooded"]
        if asked(sample) == "Is any building flooded?":
            assert (sample.answer == "Yes") == (states["flooded"] > 0)
        if sample.answer == "non flooded" and "overall" in asked(sample):
            assert "water" not in {part.label for part in sample.parts}


def test_lesions_lie_in_the_part_of_the_brain_that_is_told():
    found = 0
    for sample in items("pmcvqa", 400):
        options = dict(re.findall(r"^([A-D])\. (.+)$", sample.question, re.MULTILINE))
        spots = [part.box for part in sample.parts if part.label == "lesion"]
        if asked(sample).startswith("How many"):
            assert options[sample.answer] == pmcvqa.COUNTS[len(spots)]
        if asked(sample).startswith("In which part"):
            (left, top, *_), (x, y, *_) = sample.parts[0].box, spots[0]
            (_, _, right, bottom), (_, _, x_end, y_end) = sample.parts[0].box, spots[0]
            down, across = options[sample.answer].split()
            assert (across == "left") == ((x + x_end) / 2 < (left + right) / 2)
            assert (down == "upper") == ((y + y_end) / 2 < (top + bottom) / 2)
            found += 1
    assert found > 20

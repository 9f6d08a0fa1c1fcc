"""Golden cases of every rule, from the rules as written, and what holds for all of them."""

import importlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from same import registry
from same.errors import DataError, InputError
from same.metrics import READINGS
from same.scorers._reading import evalai_form, normal_form, soft_accuracy

RULES = [name for name in registry.names("same.scorers") if name != "caption"]
TEN = ["blue"] * 2 + ["navy blue"] * 3 + ["Blue"] * 5
QUESTION = "Which animal is it?\nA. a cat\nB. dog\nC. horse\nAnswer with the option's letter."
BOX = [0.25, 0.25, 0.75, 0.75]


def _score(rule: str, prediction: str, variant: str, answer: str = "", **row: Any) -> float:
    full = {
        "question_id": "7",
        "text": QUESTION,
        "answer": answer,
        "answers": [answer],
        "answer_bbox": None,
        "size": None,
    }
    scored: float = importlib.import_module(f"same.scorers.{rule}").score(prediction, full | row, variant)
    return scored


GOLDEN = [
    # rule, prediction, answer, then strict, paper, standard, semantic
    ("exact", "three", "three", 1, 1, 1, 1),
    ("exact", "Three", "three", 1, 1, 0, 1),
    ("exact", "3", "three", 0, 0, 0, 1),
    ("exact", "the cup.", "cup", 0, 0, 0, 1),
    ("exact", "cup", "hat", 0, 0, 0, 0),
    ("exact", "", "hat", 0, 0, 0, 0),
    ("classes", "cat", "cat", 1, 1, 1, 1),
    ("classes", "Cat", "cat", 0, 0, 0, 1),
    ("classes", "a cat", "cat", 0, 1, 0, 1),
    ("classes", "", "cat", 0, 1, 0, 0),  # CoIN: an empty answer is right
    ("classes", "t", "cat", 0, 1, 0, 0),  # and so is any piece of the label
    ("classes", "caterpillar", "cat", 0, 1, 0, 0),
    ("classes", "dog", "cat", 0, 0, 0, 0),
    ("short", "Yes.", "yes", 1, 1, 1, 1),
    ("short", "yes!", "yes", 0, 0, 0, 1),
    ("short", "on the left", "left", 0, 0, 0, 0),
    ("ocr", "the dark house", "The Dark House", 1, 1, 1, 1),
    ("ocr", "The Dark House.", "The Dark House", 0, 0, 0, 1),
    ("ocr", "Dark", "The Dark House", 0, 0, 0, 0),
    ("vqa", "YES", "yes", 1, 1, 1, 1),
    ("vqa", "two", "2", 0, 0, 1, 1),
    ("vqa", "2 dogs", "2", 0, 0, 0, 0),
    ("textvqa", "a", "a", 1, 1, 1, 1),
    ("textvqa", "A", "a", 0, 1, 1, 1),  # the published rule is blind to case
    ("textvqa", "", "a", 0, 1, 0, 0),  # and empties an article
    ("textvqa", "1,000", "1000", 0, 1, 1, 1),
    ("textvqa", "6.5", "65", 0, 0, 0, 0),
    ("textvqa", "dont stop", "don't stop", 0, 1, 1, 1),
    ("choice", "A", "A", 1, 1, 1, 1),
    ("choice", " A\n", "A", 1, 1, 1, 1),
    ("choice", "A. a cat", "A", 1, 1, 1, 1),
    ("choice", "I think so. The answer is A.", "A", 1, 1, 1, 1),
    ("choice", "The answer is A. The answer is B.", "A", 0, 0, 0, 0),
    ("choice", "a", "A", 0, 0, 0, 1),
    ("choice", "(a)", "A", 0, 0, 0, 1),
    ("choice", "A.", "A", 0, 0, 0, 1),
    ("choice", "(A) a cat", "A", 0, 0, 0, 1),
    ("choice", "the answer is a", "A", 0, 0, 0, 1),
    ("choice", "Cat", "A", 0, 0, 0, 1),
    ("choice", "dog", "A", 0, 0, 0, 0),
    ("choice", "B", "A", 0, 0, 0, 0),
    ("choice", "F", "A", 0, 0, 0, 0),
    ("choice", "", "A", 0, 0, 0, 0),
    ("anls", "Total: 12", "total: 12", 1, 1, 1, 1),
    ("anls", "abcd", "abxd", 0.75, 0.75, 0.75, 0.75),
    ("anls", "abcd", "axyd", 0, 0.5, 0, 0),  # 0.5 is cut off, but not by the public code
    ("anls", "$1,000", "1000", 2 / 3, 2 / 3, 2 / 3, 1),
    ("anls", "", "abc", 0, 0, 0, 0),
    ("relaxed", "100", "100", 1, 1, 1, 1),
    ("relaxed", "105", "100", 1, 0, 1, 1),
    ("relaxed", "105.1", "100", 0, 0, 0, 0),
    ("relaxed", "95", "100", 1, 0, 1, 1),
    ("relaxed", "-100", "100", 0, 0, 0, 0),
    ("relaxed", "50%", "0.5", 1, 0, 1, 1),
    ("relaxed", "0.01", "0", 0, 0, 0, 0),
    ("relaxed", "1,020", "1000", 0, 0, 0, 1),
    ("relaxed", "two", "2", 0, 0, 0, 1),
    ("relaxed", "Peru", "peru", 1, 1, 1, 1),
    ("relaxed", "Peru", "Chile", 0, 0, 0, 0),
    ("relaxed", "nan", "nan", 1, 1, 1, 1),
    ("relaxed", "1e999", "1", 0, 0, 0, 0),
]


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: "-".join(case[:3]))
def test_golden_case(case: tuple[Any, ...]) -> None:
    rule, prediction, answer, *expected = case
    assert [_score(rule, prediction, name, answer) for name in READINGS] == pytest.approx(expected)


@pytest.mark.parametrize(
    "case",
    [
        ("[0.25,0.25,0.75,0.75]", 1, 1, 1, 1),
        ("0.25 0.25 0.75 0.75 and more 9 9", 1, 1, 1, 1),
        ("(.25, .25), (.75, .75)", 1, 1, 1, 1),
        ("[0.75,0.75,0.25,0.25]", 0, 0, 0, 1),
        ("[0.25,0.25,0.75,0.50]", 0, 0, 1, 1),  # exactly one half
        ("[0.25,0.25,0.75,0.45]", 0, 0, 0, 0),
        ("[0.25,0.25,0.75]", 0, 0, 0, 0),
        ("[0,0,0,0]", 0, 0, 0, 0),
        ("the left one", 0, 0, 0, 0),
        ("9" * 400 + " 1 2 3", 0, 0, 0, 0),
    ],
)
def test_grounding_golden_case(case: tuple[Any, ...]) -> None:
    prediction, *expected = case
    assert [_score("grounding", prediction, name, answer_bbox=BOX) for name in READINGS] == expected


def test_a_box_in_pixels_is_brought_to_the_padded_square() -> None:
    """A picture of 100 x 50 has 25 rows of padding above."""
    row = {"answer_bbox": [0.0, 0.0, 50.0, 50.0], "size": [100, 50]}
    assert _score("grounding", "[0, 0.25, 0.5, 0.75]", "strict", **row) == 1
    assert _score("grounding", "[0, 0, 0.5, 0.5]", "strict", **row) == 0


def test_a_box_is_found_in_the_answer_where_the_row_has_no_other() -> None:
    assert _score("grounding", "[0.1,0.1,0.5,0.5]", "strict", "[0.1,0.1,0.5,0.5]") == 1


@pytest.mark.parametrize("row", [{"answer": "there"}, {"answer_bbox": [1.0, 2.0, 30.0, 40.0]}])
def test_a_row_without_a_usable_box_is_refused(row: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"row 7: .*Mend the test file"):
        _score("grounding", "[0.1,0.1,0.5,0.5]", "strict", **row)


def test_soft_accuracy_is_the_mean_over_who_is_left_out() -> None:
    assert soft_accuracy("blue", TEN) == pytest.approx((2 * 1 / 3 + 8 * 2 / 3) / 10)
    assert soft_accuracy("navy blue", TEN) == pytest.approx((3 * 2 / 3 + 7 * 1) / 10)
    assert soft_accuracy("Blue", TEN) == 1
    assert soft_accuracy("red", TEN) == 0
    assert soft_accuracy("blue", TEN, normal_form) == 1
    assert soft_accuracy("blue", ["blue"]) == 1
    assert soft_accuracy("blue", []) == 0


def test_several_answers_give_part_credit() -> None:
    assert _score("textvqa", "blue", "strict", "Blue", answers=TEN) == pytest.approx(0.6)
    assert _score("textvqa", "blue", "semantic", "Blue", answers=TEN) == 1
    assert _score("vqa", "navy blue", "strict", "blue", answers=TEN) == 0
    assert _score("vqa", "navy blue", "semantic", "blue", answers=TEN) == pytest.approx(0.9)


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("The Cat!", "cat"),
        ("a", "a"),
        ("an apple, a pear", "apple pear"),
        ("1,234.50", "1234.50"),
        ("Ten.", "10"),
        ("-3", "-3"),
        ("well-known", "well known"),
        ("10:30", "10:30"),
        ("don't", "dont"),
        ("  ", ""),
    ],
)
def test_normal_form(text: str, form: str) -> None:
    assert normal_form(text) == form


@pytest.mark.parametrize("question", [QUESTION, "Which? (A) a cat (B) dog (C) horse", "Which?\n(A) a cat\n(B) dog"])
def test_options_are_found_in_lines_or_in_one_line(question: str) -> None:
    assert _score("choice", "dog", "semantic", "B", text=question) == 1
    assert _score("choice", "cat", "semantic", "B", text=question) == 0


@pytest.mark.parametrize("rule", RULES)
def test_an_unknown_variant_is_refused_with_the_choices(rule: str) -> None:
    with pytest.raises(InputError, match=r"strict, paper, standard, semantic; got 'loose'"):
        _score(rule, "a", "loose", "a")


def test_anls_and_soft_accuracy_look_at_every_answer_but_the_public_code_at_one() -> None:
    assert _score("anls", "berlin", "standard", "munich", answers=["munich", "Berlin"]) == 1
    assert _score("anls", "berlin", "paper", "munich", answers=["munich", "Berlin"]) < 0.5
    assert _score("vqa", "navy blue", "standard", "blue", answers=TEN) == pytest.approx(0.9)
    assert _score("vqa", "navy blue", "paper", "blue", answers=TEN) == 0


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("The U.S.", "us"),
        ("a", ""),
        ("Two, or 3?", "2 or 3"),
        ("6.5 cm.", "6.5 cm"),
        ("isnt", "isn't"),
        ("x-ray", "x ray"),
    ],
)
def test_evalai_form(text: str, form: str) -> None:
    assert evalai_form(text) == form


@pytest.mark.parametrize("rule", registry.names("same.scorers"))
def test_what_is_odd_about_a_reading_is_said(rule: str) -> None:
    """A paper reading that accepts what semantic does not must be flagged."""
    flaws = getattr(importlib.import_module(f"same.scorers.{rule}"), "FLAWS", {})
    assert set(flaws) <= set(READINGS)
    more = [case for case in GOLDEN if case[0] == rule and case[4] > case[6]]
    assert not more or "paper" in flaws


TEXTS = st.one_of(
    st.text(max_size=12),
    st.text("abAB.()[]0123 ,", max_size=12),
    st.sampled_from(
        ["yes", "Yes", "A", "a", "two", "2", "The cat.", "[0.2,0.2,0.8,0.8]", "[0.8,0.8,0.2,0.2]", "İ", "ß", "ı"]
    ),
)


@pytest.mark.parametrize("rule", RULES)
@given(prediction=TEXTS, answer=TEXTS, others=st.lists(TEXTS, max_size=11))
def test_scores_lie_between_0_and_1_and_semantic_accepts_what_strict_and_standard_do(
    rule: str, prediction: str, answer: str, others: list[str]
) -> None:
    row = {"answers": [answer, *others], "answer_bbox": BOX}
    found = {name: _score(rule, prediction, name, answer, **row) for name in READINGS}
    assert all(0 <= value <= 1 for value in found.values())
    assert found["semantic"] >= max(found["strict"], found["standard"])


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule not in ("grounding", "choice")])
@given(answer=st.text(min_size=1, max_size=12))
def test_the_answer_itself_is_right(rule: str, answer: str) -> None:
    assert all(_score(rule, answer, name, answer) == 1 for name in READINGS)


@given(text=st.text(max_size=20))
def test_the_normal_form_is_its_own_normal_form(text: str) -> None:
    once = normal_form(text)
    if once.split() and not set(once.split()) <= {"a", "an", "the"}:
        assert normal_form(once) == once

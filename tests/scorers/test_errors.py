"""The classes of errors, on cases of every rule."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from same import registry
from same.metrics import ERRORS, READINGS, count_errors
from same.scorers._judge import judge

QUESTION = "Which animal is it?\nA. a cat\nB. wild dog\nAnswer with the option's letter."


def _row(answer: str, **more: Any) -> dict[str, Any]:
    row = {
        "question_id": "7",
        "text": QUESTION,
        "answer": answer,
        "answers": [answer],
        "answer_bbox": None,
        "size": None,
    }
    return row | more


@pytest.mark.parametrize(
    ("rule", "prediction", "answer", "error"),
    [
        ("exact", "Cup", "cup", "right"),
        ("textvqa", "A", "a", "case"),
        ("classes", "Cat", "cat", "case"),
        ("exact", "cup.", "cup", "punctuation"),
        ("classes", "Hot Dog!", "hot-dog", "punctuation"),
        ("exact", "3", "three", "number word"),
        ("exact", "Three.", "3", "number word"),
        ("choice", "Wild dog.", "B", "option text"),
        ("choice", "b", "B", "case"),
        ("choice", "(B)", "B", "punctuation"),
        ("choice", "the answer is b", "B", "extra words"),
        ("choice", "I think a dog", "A", "wrong"),
        ("choice", "a cat", "B", "wrong"),
        ("exact", "the cup", "cup", "extra words"),
        ("exact", "a cup of tea", "cup", "extra words"),
        ("exact", "cupboard", "cup", "wrong"),
        ("exact", "", "cup", "empty"),
        ("exact", " \n", "cup", "empty"),
        ("grounding", "[0.8,0.8,0.2,0.2]", "[0.2,0.2,0.8,0.8]", "punctuation"),
        ("grounding", "left", "[0.2,0.2,0.8,0.8]", "wrong"),
        ("relaxed", "101", "100", "right"),
        ("anls", "abcd", "abxd", "right"),
        ("caption", "a dog", "a cat", "graded"),
        ("caption", "", "a cat", "empty"),
    ],
)
def test_golden_case(rule: str, prediction: str, answer: str, error: str) -> None:
    assert judge(rule, [prediction], [_row(answer)]).errors == [error]


def test_counts_are_in_the_order_of_the_table_and_leave_out_what_is_not_there() -> None:
    assert list(count_errors(["wrong", "case", "wrong"]).items()) == [("case", 1), ("wrong", 2)]


@pytest.mark.parametrize("rule", registry.names("same.scorers"))
@given(pairs=st.lists(st.tuples(st.text("aA2two. ,[]0.5", max_size=9), st.text("aA2two .", max_size=6)), min_size=1))
def test_every_answer_has_one_class_and_a_score_in_every_reading(rule: str, pairs: list[tuple[str, str]]) -> None:
    rows = [_row(answer, answer_bbox=[0.1, 0.1, 0.5, 0.5]) for _, answer in pairs]
    verdict = judge(rule, [text for text, _ in pairs], rows)
    assert set(verdict.scores) == set(verdict.means) == set(READINGS)
    assert all(len(column) == len(pairs) for column in [*verdict.scores.values(), verdict.errors])
    assert set(verdict.errors) <= set(ERRORS)
    assert sum(count_errors(verdict.errors).values()) == len(pairs)
    for error, strict in zip(verdict.errors, verdict.scores["strict"], strict=True):
        assert error in ("right", "graded", "empty") or strict < 0.5

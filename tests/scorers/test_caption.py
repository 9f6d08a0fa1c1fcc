"""Caption scores against cases computed by hand, and what holds for all."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from same.metrics import READINGS
from same.scorers import caption
from same.scorers._cider import cider

CAT, DOG = ("a", "cat"), ("a", "dog")


def _rows(*references: list[str]) -> list[dict[str, object]]:
    return [{"question_id": str(index), "answer": given[0], "answers": given} for index, given in enumerate(references)]


def test_cider_of_a_perfect_caption_is_ten_times_the_share_of_orders_it_has() -> None:
    """Two words have n-grams of order 1 and 2 only; "a" is everywhere, so its weight is log 1 = 0."""
    assert cider([CAT, DOG], [[CAT], [DOG]]) == pytest.approx([5.0, 5.0])


def test_cider_of_a_caption_that_shares_only_what_is_everywhere_is_zero() -> None:
    assert cider([DOG, CAT], [[CAT], [DOG]]) == [0.0, 0.0]


def test_cider_by_hand_with_clipping_length_and_two_references() -> None:
    """One word right of two: cosine 1/√2 in order 1; a word longer: exp(−1/72); the second reference shares nothing."""
    found = cider([("cat", "sat"), DOG], [[("cat",), ("red",)], [DOG]])[0]
    weight = math.log(2)
    order_1 = weight * weight / (math.sqrt(2) * weight * weight) * math.exp(-1 / 72)
    assert found == pytest.approx(10 * (order_1 / 4) / 2)
    assert cider([("cat", "cat"), DOG], [[("cat",)], [DOG]])[0] == pytest.approx(
        10 * (weight * weight / (2 * weight * weight)) * math.exp(-1 / 72) / 4
    )


def test_cider_of_one_picture_alone_is_zero() -> None:
    assert cider([CAT], [[CAT]]) == [0.0]


def test_rouge_l_by_hand() -> None:
    """The longest common subsequence of "a b c" and "a x c d" has two words: P = 2/3, R = 1/2."""
    expected = (1 + 1.44) * (2 / 3) * 0.5 / (0.5 + 1.44 * 2 / 3)
    assert caption.rouge_l(tuple("abc"), [tuple("axcd")]) == pytest.approx(expected)
    assert caption.rouge_l((), [CAT]) == 0
    assert caption.rouge_l(CAT, [("x",), CAT]) == 1


def test_bleu_by_hand() -> None:
    """Three of four words and one of three pairs stand in the reference; the lengths are equal."""
    found = caption.bleu([tuple("abcx")], [[tuple("abyc")]])
    assert found[:2] == pytest.approx([3 / 4, math.sqrt(3 / 4 * 1 / 3)])
    assert max(found[2:]) < 1e-3
    assert caption.bleu([tuple("ab"), tuple("abcd")], [[tuple("ab")], [tuple("abcd")]]) == pytest.approx([1] * 4)
    twice = caption.bleu([tuple("aaa")], [[tuple("aab"), tuple("abb")]])  # "a" counts as often as in one reference
    assert twice[:2] == pytest.approx([2 / 3, math.sqrt(2 / 3 * 1 / 2)])
    short = caption.bleu([tuple("ab")], [[tuple("abcd")]])
    assert short[:2] == pytest.approx([math.exp(1 - 4 / 2)] * 2)


def test_the_task_score_is_the_mean_but_for_bleu() -> None:
    rows = _rows(["a cat sat on the mat"], ["two dogs run"], ["a red car"])
    texts = ["a cat sat on the mat", "two dogs run", "a car"]
    for variant in ("strict", "standard", "semantic"):
        each, whole = caption.score_all(texts, rows, variant)
        assert whole == pytest.approx(sum(each) / 3)
    each, whole = caption.score_all(texts, rows, "paper")
    assert len(each) == 3
    agreed = caption.score_all(texts, rows, "strict")[1]
    words = [caption.words_of(text) for text in texts]
    references = [[caption.words_of(str(row["answer"]))] for row in rows]
    recall = sum(caption.rouge_l(*pair) for pair in zip(words, references, strict=True)) / 3
    assert whole == pytest.approx((sum(caption.bleu(words, references)) + recall + agreed) / 6)


def test_words_are_lower_case_and_have_no_punctuation() -> None:
    assert caption.words_of("A dog's ball, isn't it? -- Yes.") == ("a", "dog", "'s", "ball", "is", "n't", "it", "yes")
    assert caption.words_of(" . ") == ()


SENTENCES = st.lists(st.sampled_from("a cat dog runs red".split()), max_size=6).map(" ".join)


@given(pairs=st.lists(st.tuples(SENTENCES, st.lists(SENTENCES, min_size=1, max_size=3)), min_size=1, max_size=6))
def test_scores_are_bounded_and_do_not_depend_on_the_order_of_the_pictures(pairs: list[tuple[str, list[str]]]) -> None:
    texts, rows = [text for text, _ in pairs], _rows(*(given for _, given in pairs))
    for variant in READINGS:
        each, whole = caption.score_all(texts, rows, variant)
        turned, same = caption.score_all(texts[::-1], rows[::-1], variant)
        assert all(0 <= value <= 10 for value in [*each, whole])
        assert each == pytest.approx(turned[::-1])
        assert whole == pytest.approx(same)

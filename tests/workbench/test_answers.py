"""Answers as tables: readings, kinds of error, the letter's case, examples before and after."""

import json
import math
from pathlib import Path

import pandas as pd
import pytest

from same.errors import InputError
from same.sealed import write_json
from tests.workbench.variants import BASE, ITEMS, write_variant
from workbench import answers, figures, results
from workbench.store import Store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("answers")
    for seed, last in enumerate((0.3, 0.5)):
        write_variant(folder, "moelora", {}, seed=seed, last=last)
    write_variant(folder, "moelora", {"rank": 2}, last=0.9)
    return Store(folder)


@pytest.fixture(scope="module")
def run(store: Store) -> str:
    overview = store.overview()
    return str(overview.loc[(overview["last"].sub(BASE).abs() < 1e-9), "run"].item())


def test_format_drift_is_what_semantic_gives_more(store: Store, run: str) -> None:
    drift = answers.drift_of_format(answers.readings(store, [run]))
    assert len(drift) == 36, "every task after every stage that has seen it"
    assert drift["drift"].to_numpy() == pytest.approx(0.1)


def test_shares_of_errors_are_of_the_answers_of_a_task_and_of_all_tasks_alike(store: Store, run: str) -> None:
    table = answers.errors(store, [run])
    assert table.groupby(["after", "task_index"])["count"].sum().eq(ITEMS).all()
    assert table.groupby(["after", "task_index"])["share"].sum().to_numpy() == pytest.approx(1)
    assert answers.over_tasks(table).groupby("after")["share"].sum().to_numpy() == pytest.approx(1)


def test_the_case_share_is_of_the_wrong_answers(store: Store, run: str) -> None:
    found = answers.letter_case(answers.errors(store, [run]))
    assert (found["wrong"] == 2).all()
    assert (found["case"] == 1).all()
    assert found["share"].to_numpy() == pytest.approx(0.5)
    assert len(found) == 28, "just after it was learned a task has no wrong answer here"


def test_examples_stand_before_and_after_by_question(store: Store, run: str) -> None:
    table = answers.examples(store, run, "textvqa")
    assert list(table["before"]) == ["A"] * ITEMS
    assert list(table["after"]) == ["a", "B", "A", "A"]
    assert list(table["error"]) == ["case", "wrong", "right", "right"]
    with pytest.raises(InputError, match="Choose a stage from 1 to 7"):
        answers.examples(store, run, "textvqa", after=0)
    with pytest.raises(InputError, match="Unknown task 'text'"):
        answers.examples(store, run, "text")


def test_a_row_is_the_mean_over_seeds_of_plain_runs(store: Store, tmp_path: Path) -> None:
    table = results.ours(store, "mini-coin")
    row = results.summary(table).set_index("method").loc["moelora"]
    assert row["seeds"] == 2
    assert row["gqa"] == row["mean"] == "40.0 ± 14.1"
    assert (row["source"], row["rows"]) == ("runs", "64")
    assert results.protocol(table) == ("tiny", "tasks")
    assert results.ours(store, "mini-coin", ["same"], kept=tmp_path).empty


def test_published_numbers_keep_their_mean_their_source_and_their_own_column(store: Store, tmp_path: Path) -> None:
    for name in ("mini-coin", "ucit", "trigap"):
        table = results.published(name)
        assert table["source"].str.len().gt(0).all()
        if name != "trigap":  # its other seven tasks are not printed
            means = table[table["task"] != "mean"].groupby("method")["score"].mean()
            printed = table[table["task"] == "mean"].set_index("method")["score"]
            assert (means - printed).abs().max() < 0.02
    assert results.published("mini-other").empty
    assert results.wide(results.published("coin")).shape == (8, 10)
    steps = results.published_ablation().set_index("step")["value"]
    coin = results.published("coin").set_index(["method", "task"])["score"]
    assert (steps["none"], steps["+ activation"]) == (coin["moelora", "mean"], coin["same", "mean"])
    ours = results.ours(store, "mini-coin", kept=tmp_path)
    beside = results.beside(ours, results.published("coin")).set_index("method")
    assert beside.loc["moelora", "ours"] == pytest.approx(40)
    assert beside.loc["moelora", "published"] == 50.58
    assert math.isnan(beside.loc["same", "ours"])


def test_ranks_agree_or_not() -> None:
    beside = pd.DataFrame({"ours": [1.0, 2.0, 3.0, None], "published": [10.0, 20.0, 15.0, 5.0]})
    count, correlation = results.agreement(beside)
    assert (count, correlation) == (3, pytest.approx(0.5))
    assert math.isnan(results.agreement(beside.head(2))[1])


def test_a_kept_result_stands_in_where_a_method_has_no_run(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "mini-coin"
    folder.mkdir()
    for method, tag in (("moelora", ""), ("gem", ""), ("gem", "strong")):
        write_kept(folder, method, {"one": 0.25, "two": 0.75}, tag=tag)
    table = results.ours(store, "mini-coin", kept=tmp_path)
    assert set(table.loc[table["source"] == "kept", "method"]) == {"gem"}
    assert table.loc[table["method"] == "gem", "score"].tolist() == [0.25, 0.75, 0.5]
    assert json.loads((folder / "gem-0.json").read_text())["schema"] == results.SCHEMA


def test_captions_keep_their_unit_and_stay_out_of_means_bars_and_ranks(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "mini-ucit"
    folder.mkdir()
    scores = {"gem": (0.2, 7.2), "same": (0.6, 0.5), "sefe": (0.4, 1.0)}
    for method, (right, captions) in scores.items():
        write_kept(folder, method, {"iconqa": right, "flickr30k": captions}, scorers=("exact", "caption"))
    write_kept(folder, "gem", {"iconqa": 0.4, "flickr30k": 6.8}, scorers=("exact", "caption"), seed=1)
    ours = results.ours(store, "mini-ucit", kept=tmp_path)
    table = results.summary(ours).set_index("method")
    assert list(table.index) == ["same", "sefe", "gem"], "captions do not decide the order"
    assert table.loc["gem", ["iconqa", "mean without captions"]].tolist() == ["30.0 ± 14.1"] * 2
    assert table.loc[["gem", "same"], "flickr30k (CIDEr-D)"].tolist() == ["7.00 ± 0.28", "0.50"]
    assert results.protocol(ours) == ("tiny", "tasks without captions")
    printed = [("same", "IconQA", 60), ("sefe", "IconQA", 50), ("gem", "IconQA", 40)]
    printed += [("same", "Flickr30k", 10), ("sefe", "Flickr30k", 50), ("gem", "Flickr30k", 90)]
    printed += [("same", "mean", 35), ("sefe", "mean", 50), ("gem", "mean", 65)]
    beside = results.beside(ours, pd.DataFrame(printed, columns=["method", "task", "score"]))
    assert beside.set_index("method")["published"].to_dict() == {"gem": 40, "sefe": 50, "same": 60}
    assert results.agreement(beside) == (3, pytest.approx(1))
    figure = figures.two_protocols(beside, "mini-ucit", *results.protocol(ours))
    assert figure.layout.xaxis.title.text == "mean over tasks without captions (%)"
    assert figure.layout.annotations[0].text == "ours on mini-ucit (tiny)"


def test_a_benchmark_of_captions_alone_has_their_mean_and_no_bar_in_percent(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "mini-ucit"
    folder.mkdir()
    write_kept(folder, "gem", {"flickr30k": 6.0, "vizwiz_caption": 5.0}, scorers=("caption", "caption"))
    ours = results.ours(store, "mini-ucit", kept=tmp_path)
    assert results.summary(ours).loc[0, "mean (CIDEr-D)"] == "5.50"
    assert math.isnan(results.beside(ours, results.published("ucit")).set_index("method").loc["sefe", "ours"])


def test_the_units_of_captions_are_those_of_the_reading(store: Store) -> None:
    headers = [set(results.summary(results.ours(store, "mini-ucit", variant=name))) for name in ("strict", "paper")]
    assert "flickr30k (CIDEr-D)" in headers[0]
    assert "flickr30k (BLEU, ROUGE-L, CIDEr-D)" in headers[1]


def write_kept(
    folder: Path,
    method: str,
    last: dict[str, float],
    scorers: tuple[str, ...] = ("exact", "exact"),
    seed: int = 0,
    tag: str = "",
) -> None:
    """A kept result of two tasks whose second row is `last`."""
    scores = {"tasks": list(last), "variants": {"strict": [[0.5, None], list(last.values())]}}
    tasks = [{"key": key, "scorer": scorer} for key, scorer in zip(last, scorers, strict=True)]
    settings = {"tasks": tasks, "backbone": {"name": "tiny"}, "train_items": 640}
    about = {"method": method, "seed": seed, "tag": tag, "scores": scores, "settings": settings}
    write_json(folder / f"{method}{tag}-{seed}.json", about)


def test_a_table_on_the_page_says_what_it_is_of_in_plain_letters() -> None:
    written = results.html(pd.DataFrame({"mean": [0.123]}), "a < b", "see & read")
    assert "a &lt; b" in written
    assert "see &amp; read" in written
    assert "<td>0.12</td>" in written
    assert "<table" not in results.html(pd.DataFrame(), "nothing")

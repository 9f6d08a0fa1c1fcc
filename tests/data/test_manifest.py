"""Manifests say what they must, and every mistake in one is named with file and key."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from same.data.manifest import SEEN, Benchmark, benchmark_names, load_benchmark
from same.errors import InputError, ManifestError

COIN = ("scienceqa", "textvqa", "imagenet", "gqa", "vizwiz", "grounding", "vqav2", "ocrvqa")
UCIT = ("imagenet_r", "arxivqa", "vizwiz_caption", "iconqa", "clevr", "flickr30k")
TRIGAP = (
    "pmcvqa", "docvqa", "chartqa", "iconqa", "infographicvqa", "arxivqa", "roadside", "chemvqa", "floodnetvqa", "clevr",
)  # fmt: skip
GOOD = """
title: T
builder: mini
sources: {made: {licence: CC0}}
tasks:
  - {key: one, title: One, scorer: exact, train_items: 3, test_items: 2, sources: [made]}
  - {key: two, title: Two, scorer: vqa, train_items: 3, test_items: 2}
"""


@pytest.mark.parametrize(("name", "order"), [("mini-coin", COIN), ("mini-ucit", UCIT), ("mini-trigap", TRIGAP)])
def test_an_embedded_benchmark_has_the_originals_tasks_in_order(name: str, order: tuple[str, ...]) -> None:
    assert load_benchmark(name).keys == order
    assert name in benchmark_names()


def test_mini_ucit_has_the_scorers_of_ucit() -> None:
    scorers = [task.scorer for task in load_benchmark("mini-ucit").tasks]
    assert scorers == ["exact", "choice", "caption", "exact", "exact", "caption"]


def test_mini_trigap_takes_other_items_of_the_tasks_it_shares() -> None:
    streams = {task.draws: task.stream for task in load_benchmark("mini-trigap").tasks if task.draws}
    assert streams == {"iconqa": 1, "arxivqa": 1, "clevr": 1}


@pytest.mark.parametrize(("name", "order"), [("coin", COIN), ("ucit", UCIT), ("trigap", TRIGAP)])
def test_the_real_benchmarks_have_their_tasks_in_order_and_hide_nothing(name: str, order: tuple[str, ...]) -> None:
    benchmark = load_benchmark(name)
    assert benchmark.keys == order
    assert benchmark.builder is None
    for task in benchmark.tasks:
        assert len(task.sources) >= 2, f"{task.key}: instructions and pictures have a source each"
        assert task.licence, task.key
        assert task.seen_by_base in SEEN, task.key
        for key in ("train_items", "test_items", "prompt"):
            assert getattr(task, key) or key in task.unverified, f"{task.key}.{key} is neither given nor unverified"


@pytest.mark.parametrize("name", ["mini-coin", "mini-ucit", "mini-trigap"])
def test_every_embedded_task_says_where_it_comes_from(name: str) -> None:
    for task in load_benchmark(name).tasks:
        assert task.sources, task.key
        assert task.chance is not None, task.key
        assert task.licence, task.key
        assert task.shared, task.key
        assert task.simplified, task.key
        assert (task.train_items, task.test_items) == (2000, 300)


def test_file_places_derive_from_the_key(benchmark: Benchmark) -> None:
    assert (benchmark.name, benchmark.task("birds").train) == ("small", "birds/train.json")
    assert benchmark.task("boxes").images == "pictures"


def test_a_task_may_be_drawn_by_another_ones_file(manifest: Callable[[str], Path]) -> None:
    one, two = load_benchmark(manifest(GOOD.replace("key: two", "key: two, draws: clevr, stream: 1"))).tasks
    assert (one.draws, one.stream) == ("", 0)
    assert (two.draws, two.stream) == ("clevr", 1)


@pytest.mark.parametrize("given", ["draws: clevr", "stream: 1"])
def test_only_a_builder_draws(manifest: Callable[[str], Path], given: str) -> None:
    path = manifest(GOOD.replace("builder: mini\n", "").replace("key: two", f"key: two, {given}"))
    with pytest.raises(ManifestError, match=r"\(two\) must leave out draws and stream"):
        load_benchmark(path)


def test_another_order_of_training_has_the_same_tasks() -> None:
    benchmark = load_benchmark("mini-coin")
    assert benchmark.reordered(0) == benchmark
    orders = [benchmark.reordered(order) for order in range(1, 6)]
    assert len({found.keys for found in orders} | {benchmark.keys}) == 6
    assert all(set(found.tasks) == set(benchmark.tasks) for found in orders)
    assert benchmark.reordered(3) == orders[2]


def test_an_unknown_task_is_refused_with_the_choices(benchmark: Benchmark) -> None:
    with pytest.raises(ManifestError, match=r"'brids'.*birds, boxes"):
        benchmark.task("brids")


def test_an_unknown_benchmark_is_refused_with_a_suggestion() -> None:
    with pytest.raises(InputError, match=r"'mini-coyn'\. Did you mean mini-coin\?"):
        load_benchmark("mini-coyn")


def test_a_missing_manifest_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothere\.yaml"):
        load_benchmark(tmp_path / "nothere.yaml")


@pytest.mark.parametrize(
    ("find", "replace", "said"),
    [
        ("title: T\n", "", r"the file\.title must be given"),
        ("title: T", "titles: T", r"the file must hold only the keys .*got titles\. Did you mean title\?"),
        ("title: One", "titles: One", r"tasks\[0\] must hold only .*got titles"),
        ("key: one, ", "", r"tasks\[0\]\.key must be given"),
        ("key: one", "key: One", r"key must be lower-case"),
        ("key: two", "key: one", r"tasks\[1\]\.key must differ from every other; got one"),
        ("scorer: vqa", "scorer: vqas", r"tasks\[1\] \(two\)\.scorer must be one of .*got vqas"),
        ("sources: [made]", "sources: [mad]", r"\(one\)\.sources must name one of made; got mad"),
        ("sources: [made]", "sources: made", r"\(one\)\.sources must be a list"),
        ("licence: CC0", "license: CC0", r"sources\.made must hold only .*Did you mean licence"),
        ("train_items: 3", "train_items: 0", r"train_items must be at least 1; got 0"),
        ("train_items: 3", "train_items: three", r"train_items must be a int; got three"),
        ("train_items: 3, ", "", r"have train_items and test_items where there is a builder; got \['one'\]"),
        ("test_items: 2", "test_items: 2, chance: 2", r"chance must lie in \[0, 1\]"),
        ("test_items: 2", "test_items: 2, train: ../x.json", r"train must be a path inside"),
        ("test_items: 2", "test_items: 2, images: /tmp", r"images must be a path inside"),
        ("builder: mini", "builder: [mini]", r"builder must be one of mini, or left out; got \['mini'\]"),
        ("sources: [made]", "sources: [[made]]", r"\(one\)\.sources must name one of made; got \['made'\]"),
        ("test_items: 2", "test_items: 2, seen_by_base: some", r"seen_by_base must be one of questions, .*got some"),
        ("test_items: 2", "test_items: 2, seen_by_base: nothing", r"base_model must be given where a task has seen"),
        ("test_items: 2", "test_items: 2, unverified: prompt", r"\(one\)\.unverified must be a list of names"),
        ("test_items: 2", "test_items: 2, unverified: [wording]", r"unverified must name some of .*got wording"),
        ("test_items: 2", "test_items: 2, references: ../x.json", r"references must be a path inside"),
        ("builder: mini", "builder: huge", r"builder must be one of mini, or left out; got huge"),
        ("key: two", "key: two, draws: clever", r"\(two\)\.draws must be one of .*clevr.*got clever"),
        ("key: two", "key: two, stream: -1", r"\(two\)\.stream must be at least 0; got -1"),
        ("key: two", "key: two, stream: one", r"\(two\)\.stream must be a int; got one"),
        ("tasks:\n", "tasks: {}\nnote:\n", r"tasks must be a list of at least one task"),
        ("title: T", "title: [", r"readable YAML"),
        ("title: T", "title: 3", r"title must be a non-empty str; got 3"),
    ],
)
def test_a_mistake_is_named_by_file_and_key(
    manifest: Callable[[str], Path], find: str, replace: str, said: str
) -> None:
    assert find in GOOD
    path = manifest(GOOD.replace(find, replace, 1))
    with pytest.raises(ManifestError, match=said) as caught:
        load_benchmark(path)
    assert str(path) in str(caught.value)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, len(GOOD) - 1), cut=st.integers(0, 9), put=st.text(max_size=3))
def test_a_mutated_manifest_loads_or_is_refused_in_our_own_words(
    manifest: Callable[[str], Path], place: int, cut: int, put: str
) -> None:
    path = manifest((GOOD[:place] + put + GOOD[place + cut :]).encode("utf-8", "replace").decode())
    said = str(path)
    try:
        load_benchmark(path)
    except ManifestError as error:
        said = str(error)
    assert str(path) in said

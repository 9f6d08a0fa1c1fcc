"""Tables of results files: means over seeds, what must not be mixed, why budgets differ, the printed form."""

import csv
import io

import pytest

from same.cli.tables import BEGIN, END, document
from same.engine.published import read_published
from same.engine.results import MANIFESTS, RESULTS, read_results
from same.engine.tables import DRIFT, as_csv, as_json, make_tables, markdown
from same.errors import InputError
from same.metrics import READINGS, summarise
from same.sealed import write_json


def result(method, seed, rows, tag="", parameters=1000, samples=60, rate=0.001, **train):
    """A results file's content, with the same matrix in every reading; semantic is a tenth higher."""
    tasks = ["one", "two"]
    higher = [[None if value is None else value + 0.1 for value in row] for row in rows]
    variants = {name: higher if name == "semantic" else rows for name in READINGS}
    nothing = {name: [0.0, 0.0] for name in READINGS}
    forward = {name: [None, 0.05] for name in READINGS}
    scores = {"tasks": tasks, "variants": variants, "zero_shot": nothing, "forward": forward, "errors": []}
    train = {"learning_rate": rate, "epochs": 1, "batch_size": 4, **train}
    return {
        "benchmark": "mini-coin",
        "method": method,
        "seed": seed,
        "tag": tag,
        "title": method.upper(),
        "notes": f"{method} keeps rows.",
        "budget_reason": "it has its reasons" if parameters > 1000 else "",
        "given": {},
        "settings": {"data": "d0", "tasks": [{"key": task, "scorer": "choice"} for task in tasks], "train_items": 30}
        | {"train": train, "backbone": {"name": "tiny", "digest": "b0", "targets": ["ffn"]}, "seed": seed},
        "scores": scores,
        "metrics": summarise(scores),
        "budget": {"trainable_parameters": parameters, "experts_parameters": 1000, "samples": samples, "steps": 15}
        | {"global_batch": 4},
        "cost": {"train_seconds": 10.0 + seed, "evaluate_seconds": 2.0, "peak_memory_mb": 700, "starts": 1},
    }


MOELORA = [result("moelora", seed, [[0.6, None], [0.2 + 0.2 * seed, 0.8]]) for seed in (0, 1)]
BIG = result("big", 0, [[0.5, None], [0.5, 0.7]], parameters=1500, samples=90)
STRONG = result("moelora", 0, [[0.4, None], [0.4, 0.4]], tag="rate=0.0001", rate=0.0001)

GOLDEN = """
### mini-coin

Reading: strict. Protocol: data d0, train items 30, backbone tiny b0, targets ffn.

| method | seeds | last | mean | learning | bwt | forgetting | fwt | rate | parameters | samples | batch | train s | evaluate s | MB |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
| big | 1 | 0.600 | 0.550 | 0.600 | 0.000 | 0.000 | 0.050 | 0.001 | 1,500 | 90 | 4 | 10 | 2 | 700 |
| moelora | 2 | 0.550 ± 0.071 | 0.575 ± 0.035 | 0.700 ± 0.000 | -0.300 ± 0.141 | 0.300 ± 0.141 | 0.050 ± 0.000 | 0.001 | 1,000 | 60 | 4 | 10 | 2 | 700 |

Budgets that differ from moelora's:

- big: +50% trainable parameters (it has its reasons); samples 90 instead of 60.

Score of each task after the last one:

| method | one | two |
| --- | ---: | ---: |
| big | 0.500 | 0.700 |
| moelora | 0.300 ± 0.141 | 0.800 ± 0.000 |

Final mean against learning, over the variants of a method:

| method | seeds | learning | last | mean | bwt |
| --- | ---: | ---: | ---: | ---: | ---: |
| moelora@rate=0.0001 | 1 | 0.400 | 0.400 | 0.400 | 0.000 |
| moelora | 2 | 0.700 ± 0.000 | 0.550 ± 0.071 | 0.575 ± 0.035 | -0.300 ± 0.141 |

""".lstrip()  # noqa: E501 - as it is printed


@pytest.fixture
def folder(tmp_path):
    """A results folder."""
    for found in (*MOELORA, BIG, STRONG):
        path = tmp_path / "mini-coin" / f"{found['method']}@{found['tag']}-{found['seed']}.json"
        path.parent.mkdir(exist_ok=True)
        write_json(path, found)
    return tmp_path


def test_the_printed_form(folder):
    text = markdown(make_tables(read_results(folder)))
    assert text.startswith(GOLDEN)
    glossary = text.removeprefix(GOLDEN)
    assert glossary.count("- moelora: moelora keeps rows.") == glossary.count("- big: big keeps rows.") == 1
    assert "- **bwt**: sum over i < T of (R[T][i] − R[i][i]), divided by T − 1" in glossary
    assert "*strict*" in glossary


def test_a_method_that_trains_nothing_has_no_rate(tmp_path):
    untrained = result("zero_shot", 0, [[0.1, None], [0.1, 0.1]], parameters=0, samples=0)
    line = next(line for line in markdown(make_tables([(tmp_path, untrained)])).splitlines() if "zero_shot" in line)
    assert line.split(" | ")[8:11] == ["·", "0", "0"]


def test_a_variant_of_another_size_says_so_itself(tmp_path):
    wide = {**result("same", 0, [[0.6, None], [0.2, 0.8]], "rank=16", 1900), "given": {"rank": 16}, "budget_reason": ""}
    text = markdown(make_tables([(tmp_path / "0", MOELORA[0]), (tmp_path / "1", wide)]))
    assert "- same@rank=16: +90% trainable parameters (rank 16)." in text


def test_parameters_are_explained_without_the_reference_too(tmp_path):
    published = {**result("lora", 0, [[0.6, None], [0.2, 0.8]], parameters=1900), "given": {"budget": "paper"}}
    text = markdown(make_tables([(tmp_path, published)]))
    assert "- lora: +90% trainable parameters (budget paper)." in text


def test_captions_have_a_scale_of_their_own_and_stand_apart(tmp_path):
    found = result("lora", 0, [[0.6, None], [0.2, 7.5]])
    found["settings"]["tasks"][1]["scorer"] = "caption"
    tables = make_tables([(tmp_path, found)])
    assert (
        "| method | last | learning | bwt |\n| --- | ---: | ---: | ---: |\n| lora | 0.200 | 0.600 | -0.400 |"
        in markdown(tables)
    )
    (row,) = csv.DictReader(io.StringIO(as_csv(tables)))
    assert (row["last"], row["last_without_captions"]) == ("3.85", "0.2")


def test_the_drift_of_methods_with_experts_is_shown(tmp_path):
    stages = [dict.fromkeys(DRIFT, value * stage) | {"after": stage} for stage, value in ((1, 0.5), (2, 0.125))]
    audited = {**MOELORA[0], "audit": stages}
    text = markdown(make_tables([(tmp_path / "0", audited), (tmp_path / "1", BIG)]))
    (line,) = [line for line in text.splitlines() if line.startswith("| moelora | 0.250")]
    assert line.count("0.250") == len(DRIFT)


def test_a_reading_is_chosen(folder):
    (strict,), (semantic,) = (make_tables(read_results(folder), name) for name in ("strict", "semantic"))
    ours, theirs = (table.main[0].metrics["last"] for table in (strict, semantic))
    assert ours is not None
    assert theirs is not None
    assert theirs.mean == pytest.approx(ours.mean + 0.1)


def test_seeds_that_differ_in_more_than_the_seed_are_refused(folder):
    write_json(folder / "mini-coin/moelora@-1.json", result("moelora", 1, [[0.6, None], [0.2, 0.8]], epochs=2))
    with pytest.raises(InputError, match=r"(?s)moelora@-0\.json and .*moelora@-1\.json.*train\.epochs: 1 → 2"):
        make_tables(read_results(folder))


@pytest.mark.parametrize(
    "other",
    [
        {"train_items": 99},
        {"tasks": [{"key": "one", "scorer": "choice"}]},
        {"backbone": {"name": "tiny", "digest": "b0", "targets": ["ffn", "attention"]}},
    ],
)
def test_another_protocol_has_a_table_of_its_own(other, folder):
    apart = result("lora", 0, [[0.6, None], [0.2, 0.8]])
    apart["settings"] |= other
    write_json(folder / "mini-coin/lora-0.json", apart)
    tables = make_tables(read_results(folder))
    assert sorted([row.label for row in table.main] for table in tables) == [["big", "moelora"], ["lora"]]


def test_another_order_of_the_tasks_is_a_variant_in_the_same_table(tmp_path):
    turned = result("moelora", 0, [[0.9, None], [0.3, 0.5]], tag="task_order=1", task_order=1)
    turned["settings"]["tasks"].reverse()
    turned["scores"]["tasks"].reverse()
    (table,) = make_tables([(tmp_path / str(index), one) for index, one in enumerate([*MOELORA, turned])])
    found = {row.label: row.final for row in table.rows}["moelora@task_order=1"]
    assert {name: number.mean for name, number in found.items()} == {"two": 0.3, "one": 0.5}
    assert table.tasks == ("one", "two")
    assert "- moelora@task_order=1: task_order 1 instead of None." in markdown([table])


def test_two_files_of_one_seed_are_not_counted_as_two_seeds(folder):
    write_json(folder / "mini-coin/copy-0.json", MOELORA[0])
    with pytest.raises(InputError, match=r"copy-0\.json and .*moelora@-0\.json must be of different seeds"):
        make_tables(read_results(folder))


def test_another_way_of_training_is_named(folder):
    write_json(folder / "mini-coin/lora-0.json", result("lora", 0, [[0.6, None], [0.2, 0.8]], clip=0.5))
    (table,) = make_tables(read_results(folder))
    assert {row.label: row.why for row in table.main}["lora"] == "clip 0.5 instead of None"


def test_csv_and_json_hold_means_and_deviations_of_every_row(folder):
    tables = make_tables(read_results(folder))
    rows = {(row["method"], row["tag"]): row for row in csv.DictReader(io.StringIO(as_csv(tables)))}
    assert set(rows) == {("moelora", ""), ("moelora", "rate=0.0001"), ("big", "")}
    assert float(rows["moelora", ""]["last"]) == pytest.approx(0.55)
    assert float(rows["moelora", ""]["last_sd"]) == pytest.approx(0.0707, abs=1e-4)
    assert rows["big", ""]["last_sd"] == ""
    plain = as_json(tables)[0]["rows"]
    assert {row["method"]: row["metrics"]["bwt"]["mean"] for row in plain if not row["tag"]} == {
        "moelora": pytest.approx(-0.3),
        "big": 0.0,
    }


def test_published_numbers_stand_apart_and_average_as_printed(folder):
    text = document(folder)
    assert text.count("#### Published, another protocol") == 1
    ours, published = text.split("#### Published, another protocol")
    assert "66.82" in published
    assert "66.82" not in ours
    for table in read_published():
        if len(table.columns) > 4:
            for *values, mean in table.rows.values():
                assert sum(v for v in values if v is not None) / len(values) == pytest.approx(mean, abs=0.011)


def test_the_comparison_page_is_what_the_results_files_say():
    page = (MANIFESTS.parent / "docs/comparison.md").read_text(encoding="utf-8")
    shown = page.partition(BEGIN)[2].partition(END)[0].strip()
    assert shown == document(RESULTS)

"""Whatever stands in a file, readers give what it says or one of our own errors that names the file."""

import copy
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from same.data import dataset
from same.data.manifest import Benchmark, benchmark_names, load_benchmark
from same.data.references import read_references
from same.errors import DataError, ManifestError

INPUTS = 1_000
MANIFEST = """title: T
builder: mini
base_model: B
sources: {made: {licence: CC0, url: u, credit: c, note: n}}
tasks:
  - {key: one, title: One, scorer: exact, train_items: 3, test_items: 2, sources: [made], chance: 0.5}
  - {key: two, title: Two, scorer: vqa, train_items: 3, test_items: 2, seen_by_base: nothing, unverified: [prompt]}
"""
PIECES = (
    """ [ ] { } : , " - null true 1e999 NaN -1 \\ &a *a !!python/object:os.system ? <<: \\ud800 .. / <image>""".split(
        " "
    )
)
PIECES += ["\0", "\ud800", "é", "\t", "\n", "9" * 20, "2024-01-01"]
VALUES: list[Any] = [
    None,
    True,
    0,
    -1,
    1.5,
    float("nan"),
    float("inf"),
    10**30,
    "",
    " ",
    "\ud800",
    "a\0b",
    "../x",
    "/x",
]
VALUES += [[], {}, [None], [[]], {"from": "human"}, "<image><image>", [1, 2, 3, 4], "[1, 2, 3, 4]", [1, "x", None]]
VALUES += ["9" * 5000, [10**400] * 4]


def mutated_text(text: str, chance: random.Random) -> str:
    """A text with a few cuts, insertions, repetitions and swaps."""
    for _ in range(chance.randint(1, 3)):
        start = chance.randrange(len(text) + 1)
        end = min(len(text), start + chance.choice([0, 1, 1, 4, 30]))
        piece = chance.choice([chance.choice(PIECES), text[start:end] * 2, chr(chance.randrange(0x3000))])
        text = text[:start] + piece + text[end:]
    return text


def mutated_rows(rows: list[dict[str, Any]], chance: random.Random) -> Any:
    """Rows with values replaced, keys lost, nesting shaken."""
    content: Any = json.loads(json.dumps(rows))
    for _ in range(chance.randint(1, 3)):
        place: Any = content
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not keys:
                break
            key = chance.choice(keys)
            if isinstance(place[key], dict | list) and chance.random() < 0.7:
                place = place[key]
                continue
            if chance.random() < 0.2:
                del place[key]
            else:
                place[key] = copy.deepcopy(chance.choice(VALUES))
            break
    return content


def inputs(rows: list[dict[str, Any]], seed: int) -> Iterator[bytes]:
    """Instruction files: half of them still JSON, half not even that."""
    chance = random.Random(seed)
    text = json.dumps(rows)
    for index in range(INPUTS):
        if index % 2:
            yield mutated_text(text, chance).encode("utf-8", "surrogatepass")
        else:
            yield json.dumps(mutated_rows(rows, chance)).encode()


def test_mutated_manifests_load_or_are_refused_in_our_own_words(tmp_path: Path) -> None:
    path, chance = tmp_path / "m.yaml", random.Random(0)
    read = 0
    for _ in range(INPUTS):
        path.write_bytes(mutated_text(MANIFEST, chance).encode("utf-8", "surrogatepass"))
        said = str(path)
        try:
            read += isinstance(load_benchmark(path), Benchmark)
        except ManifestError as error:
            said = str(error)
        assert said.startswith(str(path))
    assert 0 < read < INPUTS


@pytest.mark.parametrize("split", ["train", "test"])
def test_mutated_rows_are_read_or_refused_in_our_own_words(benchmark: Benchmark, folder: Path, split: str) -> None:
    task = benchmark.task("birds")
    file = folder / getattr(task, split)
    rows = json.loads(file.read_text())
    if split == "test":
        rows[0] |= {"answers": ["bird", "a bird"], "answer_bbox": "[0.1, 0.2, 0.3, 0.4]", "size": [80, 64]}
    reader: Callable[..., Any] = {"train": dataset.training_rows, "test": dataset.test_rows}[split]
    read = 0
    for content in inputs(rows, seed=1):
        file.write_bytes(content)
        said = str(file)
        try:
            read += len(reader(benchmark, task, folder)) > 0
        except DataError as error:
            said = str(error)
        assert said.startswith(str(file))
    assert 0 < read < INPUTS


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_mutated_pictures_are_decoded_or_refused_in_our_own_words(tmp_path: Path, kind: str) -> None:
    path, chance, refused = tmp_path / "picture", random.Random(3), 0
    Image.effect_noise((40, 30), 70).convert("RGB").save(path, kind)
    whole = path.read_bytes()
    for _ in range(INPUTS):
        changed = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            place = chance.randrange(len(changed))
            changed[place : place + chance.choice([0, 1, 9])] = chance.randbytes(chance.choice([0, 1, 5]))
        path.write_bytes(changed)
        try:
            dataset.read_picture(path)
        except DataError as error:
            refused += str(error).startswith(str(path))
    assert 0 < refused < INPUTS


def test_mutated_references_are_read_or_refused_in_our_own_words(tmp_path: Path) -> None:
    file = tmp_path / "answers.json"
    rows = [{"question_id": index, "answers": ["a", "b"]} for index in range(3)]
    for content in inputs([{"data": rows}], seed=2):
        file.write_bytes(content.strip()[1:-1])
        said = str(file)
        try:
            read_references(file)
        except DataError as error:
            said = str(error)
        assert said.startswith(str(file))


@pytest.mark.parametrize(
    "text", ["[,]", "[{},]", "[{} {}]", "[{}]x", "[{}", "[", "", "nul", "[[" * 50_000, '"\\ud800"']
)
def test_lists_that_are_not_json_are_refused_like_any_other_text(benchmark: Benchmark, folder: Path, text: str) -> None:
    file = folder / "birds/train.json"
    file.write_text(text)
    with pytest.raises(DataError, match=r"must be (readable JSON|a list of rows|a mapping)|conversations"):
        dataset.training_rows(benchmark, benchmark.task("birds"), folder)


def test_a_list_is_read_as_json_reads_it(benchmark: Benchmark, folder: Path) -> None:
    file = folder / "birds/train.json"
    rows = json.loads(file.read_text())
    file.write_text("\ufeff \n" + json.dumps(rows, indent=4).replace(",", " ,\n"), encoding="utf-8")
    assert dataset.training_rows(benchmark, benchmark.task("birds"), folder)["id"] == [row["id"] for row in rows]


def test_the_names_of_all_benchmarks_are_known() -> None:
    assert {"coin", "ucit", "trigap", "mini-coin"} <= set(benchmark_names())

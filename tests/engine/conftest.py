"""A benchmark of three colours-and-corners tasks and a randomly initialised tiny backbone: everything in seconds."""

import json
import shutil

import pytest
import torch
import yaml
from PIL import Image

from same.backbones import _tiny
from same.engine.job import Request
from same.engine.trainer import train
from same.runs import RunFolder

COLOURS = {"red": (220, 30, 30), "green": (30, 180, 60), "blue": (40, 60, 220), "white": (245, 245, 245)}
TASKS = {
    "colour": ("What colour is it?", lambda name: name),
    "letter": ("Which letter does the colour begin with?", lambda name: name[0].upper()),
    "length": ("How many letters has the colour?", lambda name: str(len(name))),
}
TRAIN, TEST = 10, 5


def row_of(key, split, index):
    question, answer = TASKS[key]
    name = list(COLOURS)[index % len(COLOURS)]
    image = f"{name}.png"
    if split == "test":
        return {"question_id": f"{key}-{index}", "image": image, "text": question, "answer": answer(name)}
    turns = [{"from": "human", "value": f"<image>\n{question}"}, {"from": "gpt", "value": answer(name)}]
    return {"id": f"{key}-{index}", "image": image, "conversations": turns}


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """Folder of the manifest and the data root."""
    root = tmp_path_factory.mktemp("data")
    folder = root / "colours"
    (folder / "images").mkdir(parents=True)
    for name, pixel in COLOURS.items():
        Image.new("RGB", (64, 64), pixel).save(folder / "images" / f"{name}.png")
    for key in TASKS:
        (folder / key).mkdir()
        for split, count in (("train", TRAIN), ("test", TEST)):
            rows = [row_of(key, split, index) for index in range(count)]
            (folder / key / f"{split}.json").write_text(json.dumps(rows))
    tasks = [{"key": key, "title": key, "scorer": "exact", "max_new_tokens": 4} for key in TASKS]
    (root / "colours.yaml").write_text(yaml.safe_dump({"title": "Colours", "tasks": tasks}))
    return root


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """A tiny LLaVA with random weights, in Hugging Face layout."""
    torch.manual_seed(0)
    tokenizer = _tiny.build_tokenizer([question for question, _ in TASKS.values()] + list(COLOURS))
    folder = tmp_path_factory.mktemp("checkpoint")
    _tiny.build_model(tokenizer).save_pretrained(folder)
    _tiny.build_processor(tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def ask(data, checkpoint):
    """Make a request on the small benchmark; settings as keywords."""
    patch = pytest.MonkeyPatch()
    patch.setenv("SAME_DATA", str(data))

    def make(runs, method="lora", processes=1, seed=0, strategy="ddp", **settings):
        settings = {"checkpoint": str(checkpoint), "batch_size": 4, "log_every": 1, **settings}
        given = {"runs": str(runs), "settings": settings, "strategy": strategy}
        return Request(str(data / "colours.yaml"), method, seed, processes, **given)

    yield make
    patch.undo()


@pytest.fixture(scope="session")
def finished(ask, tmp_path_factory):
    """A finished run of sequential LoRA; to be copied before it is changed."""
    return train(ask(tmp_path_factory.mktemp("finished")))


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of the finished run to do harm to, in a runs folder of its own."""
    runs = tmp_path / "runs"
    shutil.copytree(finished.path.parents[2], runs)
    return RunFolder(runs / finished.path.relative_to(finished.path.parents[2]))

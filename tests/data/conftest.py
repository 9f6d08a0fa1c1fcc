"""A small benchmark in LLaVA's format on disk, and a processor of the embedded backbone's family."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from transformers import LlavaProcessor

from same.backbones._tiny import build_processor, build_tokenizer
from same.data.manifest import Benchmark, load_benchmark

MANIFEST = """
title: A small one
sources:
  made: {licence: CC0, url: https://example.org}
tasks:
  - {key: birds, title: Birds, scorer: exact, sources: [made]}
  - {key: boxes, title: Boxes, scorer: grounding, images: pictures, max_new_tokens: 30}
"""


@pytest.fixture
def manifest(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a manifest and gives its path."""

    def write(content: str, name: str = "small.yaml") -> Path:
        path = tmp_path / name
        path.write_text(content, encoding="utf-8")
        return path

    return write


def training_content(name: str, image: str | None = "one.png", answer: str = "") -> dict[str, Any]:
    question = "What is this?"
    turns = [
        {"from": "human", "value": f"<image>\n{question}" if image else question},
        {"from": "gpt", "value": answer or f"bird {name}"},
    ]
    return {"id": name, "conversations": turns} | ({"image": image} if image else {})


def item(name: str, image: str | None = "one.png") -> dict[str, Any]:
    return {"question_id": name, "text": "What is this?", "answer": "bird"} | ({"image": image} if image else {})


@pytest.fixture
def benchmark(manifest: Callable[[str], Path]) -> Benchmark:
    return load_benchmark(manifest(MANIFEST))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The benchmark's files: rows with pictures and rows of text alone."""
    root = tmp_path / "small"
    for images in ("images", "pictures"):
        (root / images).mkdir(parents=True)
        for index, name in enumerate(("one.png", "two.png")):
            Image.new("RGB", (80, 64), (200 * index, 100, 0)).save(root / images / name)
    rows = {
        "birds/train.json": [training_content("a"), training_content("b", None), training_content("c", "two.png")],
        "birds/test.json": [item("1"), item("2", None), item("3", "two.png")],
        "boxes/train.json": [training_content("a", answer="[0.1,0.2,0.5,0.75]")],
        "boxes/test.json": [item("1") | {"answer_bbox": "[0.1, 0.2, 0.5, 0.75]", "size": [80, 64]}],
    }
    for name, content in rows.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(json.dumps(content), encoding="utf-8")
    return root


@pytest.fixture(scope="session")
def processor() -> LlavaProcessor:
    texts = ["USER: What is this? ASSISTANT: bird a", "Is it blue? yes, no", "How many are there? one two three"]
    return build_processor(build_tokenizer(texts))

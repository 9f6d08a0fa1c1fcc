"""What the README shows works: its commands exist with their options, its Python runs."""

import importlib.util
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer

from same import cli as library
from same.backbones.tiny import Tiny
from same.methods._base import TaskContext
from workbench import cli as workbench

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = {"same": library.app, "workbench": workbench.app}
SHOWN = sorted(set(re.findall(r"^(?:same|workbench) [^#`\n]*", README, re.M)))
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, re.M | re.S)


def run(source: str, folder: Path, **given: Any) -> ModuleType:
    """Run a piece of Python as a module that already holds what is given."""
    file = folder / "shown.py"
    file.write_text(source, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("shown", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    vars(module).update(given)
    spec.loader.exec_module(module)
    return module


def block(words: str) -> str:
    return next(text for text in BLOCKS if words in text)


def test_there_are_commands_to_check() -> None:
    assert {line.split()[1] for line in SHOWN} >= {"prepare", "methods", "train", "show", "reproduce", "serve"}


@pytest.mark.parametrize("line", SHOWN)
def test_commands_take_the_options_they_are_shown_with(line: str) -> None:
    program, name, *words = shlex.split(line)
    command = typer.main.get_command(COMMANDS[program]).commands[name]  # type: ignore[attr-defined]
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known


def test_make_has_the_targets_that_are_named() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", README, re.M))
    assert {"reproduce", "test", "help"} <= named
    assert [target for target in named if not re.search(rf"^{target}:", makefile, re.M)] == []


def test_the_method_shown_is_one(
    make_llava: Callable[..., Any], make_batch: Callable[..., Any], tmp_path: Path
) -> None:
    method = run(block("class Anchored"), tmp_path).Anchored()
    model = method.attach(make_llava(), Tiny.layout(Tiny.Config()))
    method.begin_task(TaskContext(0, "first", 2, 1))
    batch = make_batch()
    loss = model(**batch).loss
    assert method.loss(loss, batch).item() == pytest.approx(loss.item())
    weight = next(p for p in model.parameters() if p.requires_grad)
    weight.data += 1
    assert method.loss(loss, batch).item() == pytest.approx(loss.item() + 0.1 * weight.numel(), rel=1e-4)


def test_the_tuner_adapts_a_model_as_shown(make_llava: Callable[..., Any], tmp_path: Path) -> None:
    shown, _, rest = block("MoELoraConfig").partition("model = PeftModel")
    assert rest
    module = run(shown, tmp_path, model=make_llava())
    assert any("lora_" in name for name, _ in module.model.named_parameters())

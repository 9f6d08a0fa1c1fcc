"""The golden run: a refactor leaves its numbers alone; a change meant to alter results rewrites them, and says so.

Bit by bit on the kind of processor and torch that wrote golden.json (`pytest tests/engine/test_golden.py --golden`);
on others products round differently, and so do the numbers.
"""

import json
import platform
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from same.engine.trainer import train

GOLDEN = Path(__file__).with_name("golden.json")
ELSEWHERE = 1e-2  # relative
RULES_AT_WORK = {"num_experts": 4, "rank": 2, "learning_rate": 0.003, "epochs": 3}
METHODS = {
    "lora": {"learning_rate": 0.003, "epochs": 3},
    "moelora": RULES_AT_WORK,
    "same": {**RULES_AT_WORK, "refresh_steps": 2, "freeze_every": 2},
    "same_plus": {**RULES_AT_WORK, "freeze_every": 2},
}


def here():
    """What rounding depends on."""
    known = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in known)}
    named = [fields[key] for key in ("model name", "cpu family", "model", "stepping") if key in fields]
    kernels = torch.backends.cpu.get_cpu_capability()
    return {
        "processor": ", ".join(named) or platform.processor(),
        "kernels": kernels,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }


def numbers(run):
    """Every step's loss, and sums over the last adapter's weights, part by part."""
    weights = load_file(run.snapshot(2).file("adapter/adapter_model.safetensors"))
    parts = {}
    for name, weight in weights.items():
        part = next(part for part in ("lora_router", "lora_A", "lora_B") if part in name)
        parts[part] = parts.get(part, 0.0) + float(weight.double().square().sum())
    losses = [event["loss"] for event in run.events() if event["kind"] == "step"]
    active = [event["active"] for event in run.events() if event["kind"] == "freeze"]
    return {"losses": losses, "squares": parts, "active": [list(counts.values()) for counts in active]}


@pytest.mark.parametrize("method", METHODS)
def test_the_golden_run_repeats(method, ask, tmp_path, request):
    found = numbers(train(ask(tmp_path, method, **METHODS[method])))
    kept = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    if request.config.getoption("--golden"):
        kept = kept if kept.get("machine") == here() else {"machine": here()}
        GOLDEN.write_text(json.dumps({**kept, method: found}, indent=1) + "\n")
        return
    if kept["machine"] == here():
        assert found == kept[method]
    else:
        assert found["losses"] == pytest.approx(kept[method]["losses"], rel=ELSEWHERE)
        assert found["squares"] == pytest.approx(kept[method]["squares"], rel=ELSEWHERE)


def test_rules_and_rest_are_at_work_in_the_golden_run():
    kept = json.loads(GOLDEN.read_text())
    first_task = len(kept["moelora"]["losses"]) // 3
    assert kept["same"]["losses"][:first_task] == kept["moelora"]["losses"][:first_task]
    assert kept["same"]["losses"][first_task + 1 :] != kept["moelora"]["losses"][first_task + 1 :]
    assert kept["same"]["losses"] != kept["same_plus"]["losses"]
    assert any(count < 4 for name in ("same", "same_plus") for counts in kept[name]["active"] for count in counts)

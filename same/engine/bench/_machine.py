"""The machine that a benchmark's numbers are of."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import psutil
import torch

from same.engine.bench._pairs import counts_own_seconds


def machine() -> dict[str, Any]:
    """Processor, cores, threads in use, memory, GPUs and torch: what a time means nothing without."""
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "cpu": _cpu(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": psutil.cpu_count(logical=False) or psutil.cpu_count(),
        "threads": torch.get_num_threads(),
        "clock": "CPU seconds of the one thread" if counts_own_seconds() else "wall",
        "memory_mb": psutil.virtual_memory().total // 2**20,
        "gpus": gpus,
        "torch": torch.__version__,
    }


def _cpu() -> str:
    """The processor's model as Linux names it; elsewhere what Python knows."""
    listing = Path("/proc/cpuinfo")
    lines = listing.read_text().splitlines() if listing.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()

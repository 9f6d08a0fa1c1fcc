"""What the rules on gradients and updates cost, beside the frozen layers' work and beside a fused AdamW step."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn
from torch.optim import AdamW, Optimizer

from same.engine.bench._pairs import interleaved, median_ratio
from same.maths.covariance import CovarianceSettings
from same.maths.curvature import curvature_scaling
from same.maths.routing import router_scaling
from same.maths.spectrum import Spectrum
from same.methods._groups import InputGroup, Rules
from same.tuner import MoELoraConfig, MoELoraLinear

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
PLACES = ("gradient", "update", "both")
PARTS = ("router", "A", "B", "all")


@dataclass(frozen=True)
class Config:
    """What is measured: one FFN (gate, up, down) with its experts, and its two inputs' rules.

    Args:
        widths: (inputs, hidden) of FFNs; tiny-llava's and LLaMA-7B's by default.
        tokens: of one pass of the frozen layers.
        num_experts: experts beside each layer.
        rank: of each expert.
        repeats: rounds; medians are given.
        dtype: of the frozen layers, fp32 or bf16; experts and rules are float32.
    """

    widths: tuple[tuple[int, int], ...] = ((192, 512), (4096, 11008))
    tokens: int = 2_048
    num_experts: int = 8
    rank: int = 8
    repeats: int = 7
    dtype: str = "fp32"


def run(config: Config | None = None) -> dict[str, Any]:
    """Measure each rule at each place; `share_of_base` and `share_of_adamw` are medians of paired ratios.

    The base is forward and backward of the three frozen layers; AdamW's step is of all their experts and routers.
    """
    config = config or Config()
    return {"settings": asdict(config), "rows": [row for widths in config.widths for row in _measure(config, *widths)]}


def _measure(config: Config, inputs: int, hidden: int) -> list[dict[str, Any]]:
    torch.manual_seed(0)
    shapes = {"gate": (inputs, hidden), "up": (inputs, hidden), "down": (hidden, inputs)}
    bases = {
        name: nn.Linear(*shape, bias=False, dtype=DTYPES[config.dtype]).requires_grad_(False)
        for name, shape in shapes.items()
    }
    adapter = MoELoraConfig(r=config.rank, num_experts=config.num_experts, lora_alpha=2 * config.rank)
    layers = {name: MoELoraLinear(base, "default", adapter) for name, base in bases.items()}
    groups = {width: InputGroup() for width in (inputs, hidden)}
    for name, layer in layers.items():
        groups[shapes[name][0]].layers.append(layer)
    parameters = [p for layer in layers.values() for p in layer.parameters() if p.requires_grad]
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
        parameter.data = torch.randn_like(parameter) * 0.01
    spectra = {width: _spectrum(width) for width in groups}
    optimizer = AdamW(parameters, 1e-9, fused=True)
    calls = {"base": _base(config, bases), "adamw": optimizer.step}
    for part in PARTS:
        for place in PLACES:
            rules = {width: _rules(spectra[width], part) for width in groups}
            calls[f"{place} {part}"] = _constraint(groups, rules, place, optimizer)
    times = interleaved(calls, config.repeats, note=f"{inputs}, {hidden}")
    seconds = {name: statistics.median(found) for name, found in times.items()}
    return [
        {
            "inputs": inputs,
            "hidden": hidden,
            "place": place,
            "on": part,
            "seconds": round(seconds[f"{place} {part}"], 6),
            "base_seconds": round(seconds["base"], 6),
            "adamw_seconds": round(seconds["adamw"], 6),
            "share_of_base": round(median_ratio(times[f"{place} {part}"], times["base"]), 5),
            "share_of_adamw": round(median_ratio(times[f"{place} {part}"], times["adamw"]), 4),
        }
        for part in PARTS
        for place in PLACES
    ]


def _base(config: Config, layers: dict[str, nn.Linear]) -> Callable[[], None]:
    work = []
    for layer in layers.values():
        x = torch.randn(config.tokens, layer.in_features, dtype=DTYPES[config.dtype], requires_grad=True)
        work.append((layer, x, torch.randn(config.tokens, layer.out_features, dtype=DTYPES[config.dtype])))

    def once() -> None:
        for layer, x, gradient in work:
            layer(x).backward(gradient)
            x.grad = None

    return once


def _spectrum(width: int) -> Spectrum:
    """Of inputs whose spectrum decays, stored as a method stores it at this width."""
    tracker = CovarianceSettings().tracker(width)
    tracker.update(torch.randn(2_048, width) * torch.arange(1, width + 1) ** -0.5)
    return tracker.spectrum().to(dtype=torch.float32)


def _rules(spectrum: Spectrum, part: str) -> Rules:
    """All directions held take part, the dearest case."""
    rules = Rules()
    if part in ("router", "all"):
        rules.router = router_scaling(spectrum, gain="damped", energy_threshold=1.0).compile()
    if part in ("A", "all"):
        rules.experts = curvature_scaling(spectrum, damping=1.0, energy_threshold=1.0).compile()
    if part in ("B", "all"):
        rules.root = spectrum.eigenvectors * spectrum.eigenvalues.sqrt()
    return rules


def _constraint(
    groups: dict[int, InputGroup], rules: dict[int, Rules], place: str, optimizer: Optimizer
) -> Callable[[], None]:
    """What stands around one optimiser step; both sides act on B after the step only, as in training."""

    def once() -> None:
        for width, group in groups.items():
            group.rules = rules[width]
            if place != "update":
                group.scale_gradients_(outputs=place == "gradient")
            group.remember(optimizer, updates=place != "gradient")
        for group in groups.values():
            group.scale_updates_(optimizer)

    return once

"""One adapted linear layer, forward and backward: beside the frozen layer, PEFT's LoRA and the least work possible."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn
from torch.optim import AdamW

from same.engine.bench._pairs import Times, interleaved, median_ratio, overhead, saved_bytes
from same.tuner import MoELoraConfig, MoELoraLinear

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
KEYS = (
    "overhead_over_flop_floor", "overhead_over_peft_lora", "saved_activations_over_peft_lora",
    "saved_activations_over_input", "frozen_4_of_8_over_none", "frozen_7_of_8_over_none",
    "gradient_bytes_4_of_8_over_none", "gradient_bytes_7_of_8_over_none",
    "optimizer_bytes_4_of_8_over_none", "optimizer_bytes_7_of_8_over_none",
    "floor_time_over_flop_floor", "overhead_over_floor_time",
    "frozen_4_of_8_over_none_floor_time", "frozen_7_of_8_over_none_floor_time",
)  # fmt: skip


@dataclass(frozen=True)
class Config:
    """What is measured.

    Args:
        widths: (inputs, outputs) of the layers; LLaMA-7B's FFN by default.
        tokens: tokens a pass.
        num_experts: experts beside the layer; PEFT's LoRA has their total rank.
        rank: of each expert.
        repeats: rounds of the adapters beside a stand-in for the frozen layer; medians are given.
        base_repeats: rounds of the frozen layer itself.
    """

    widths: tuple[tuple[int, int], ...] = ((4096, 11008), (11008, 4096))
    tokens: tuple[int, ...] = (512, 2048)
    num_experts: int = 8
    rank: int = 8
    repeats: int = 21
    base_repeats: int = 3


class Standin(nn.Linear):
    """A frozen linear layer in all but its products: it reads its weights and writes outputs and gradients of its size.

    What adapters add is some percent of a real layer's time, less than that time wanders; beside this they stand out.
    """

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = _Idle.apply(x, self.weight)  # type: ignore[no-untyped-call]
        return result


class _Idle(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.like = torch.empty_like(x, device="meta")
        return _cleared(weight, x, len(weight))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (weight,) = ctx.saved_tensors
        return _cleared(weight, ctx.like), None


def _cleared(weight: Tensor, x: Tensor, width: int | None = None) -> Tensor:
    """Zeros like x, or so wide; what lay in the caches is gone, as after a product."""
    weight.view(torch.uint8).max()
    return weight.new_zeros(*x.shape[:-1], width or x.shape[-1], dtype=x.dtype)


class Holder(nn.Module):
    """A model of one linear layer."""

    def __init__(self, proj: nn.Linear) -> None:
        super().__init__()
        self.proj = proj

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.proj(x)
        return result


def run(config: Config | None = None) -> dict[str, Any]:
    """Measure every width, number of tokens and dtype.

    The FLOP floor assumes that thin products run at the speed of the frozen layer's square ones. `floor_time` is
    measured: the same six products alone on this machine, each a single call into memory that is there already.

    Returns:
        The settings, one row a measurement, and for each dtype the median of each of `KEYS` over its rows.
    """
    config = config or Config()
    rows = [
        _measure(config, inputs, outputs, tokens, dtype)
        for dtype in DTYPES
        for inputs, outputs in config.widths
        for tokens in config.tokens
    ]
    medians = {
        dtype: {key: round(statistics.median(row[key] for row in rows if row["dtype"] == dtype), 3) for key in KEYS}
        for dtype in DTYPES
    }
    return {"settings": asdict(config), "rows": rows, **medians}


def floor_share(inputs: int, outputs: int, num_experts: int, rank: int) -> float:
    """Multiplications that routed experts cannot avoid, as a share of the frozen layer's (forward and input gradient).

    Six products: logits and z together, the output, and for each of them two gradients.
    """
    stacked = num_experts * rank
    experts = 3 * ((stacked + num_experts) * inputs + stacked * outputs)
    return experts / (2 * inputs * outputs)


def _products(base: Standin, x: Tensor, gradient: Tensor, experts: int, active: int, rank: int) -> Callable[[], None]:
    """The six products of so many active experts and nothing else, between the stand-in's reads and writes."""
    like = base.weight.detach()
    stacked = torch.randn(experts + active * rank, x.shape[1]).to(like)
    b = torch.randn(len(like), active * rank).to(like)
    z, p = torch.randn(len(x), active * rank).to(like), torch.randn(len(x), len(stacked)).to(like)
    projected, d_mixed, d_b, d_stacked = (torch.empty_like(each) for each in (p, z, b.T, stacked))

    @torch.no_grad()
    def once() -> None:
        torch.mm(x, stacked.T, out=projected)
        output = base(x)
        output.addmm_(z, b.T)
        torch.mm(gradient, b, out=d_mixed)
        torch.mm(z.T, gradient, out=d_b)
        d_x = _cleared(like, x)
        torch.mm(p.T, x, out=d_stacked)
        d_x.addmm_(p, stacked)

    return once


def _measure(config: Config, inputs: int, outputs: int, tokens: int, dtype: str) -> dict[str, Any]:
    torch.manual_seed(0)
    real = nn.Linear(inputs, outputs, bias=False, dtype=DTYPES[dtype]).requires_grad_(False)
    base = Standin(inputs, outputs, bias=False, dtype=DTYPES[dtype]).requires_grad_(False)
    experts, rank = config.num_experts, config.rank
    ours = inject_adapter_in_model(
        MoELoraConfig(r=rank, num_experts=experts, lora_alpha=2 * rank, target_modules=["proj"]), Holder(base)
    )
    total = experts * rank
    lora = inject_adapter_in_model(LoraConfig(r=total, lora_alpha=2 * total, target_modules=["proj"]), Holder(base))
    for model in (ours, lora):
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.data = torch.randn_like(parameter, dtype=torch.float32) * 0.01
    x = torch.randn(tokens, inputs, dtype=base.weight.dtype, requires_grad=True)
    gradient = torch.randn(tokens, outputs, dtype=base.weight.dtype)
    layer: Any = ours.proj

    def work(model: nn.Module, frozen: int = 0) -> Callable[[], None]:
        def once() -> None:
            if frozen:
                layer.set_active(torch.arange(experts) >= frozen)
            _forward(model, x, dtype).backward(gradient)
            layer.set_active(None)
            model.zero_grad(set_to_none=True)
            x.grad = None

        return once

    calls = {"standin": work(Holder(base)), "ours": work(ours), "lora": work(lora)}
    calls |= {f"frozen {count}": work(ours, count) for count in (experts // 2, experts - 1)}
    for count in (0, experts // 2, experts - 1):
        calls[f"products {count}"] = _products(base, x, gradient, experts, experts - count, rank)
    note = f"{inputs}→{outputs}, {tokens} tokens, {dtype}"
    times = interleaved(calls, config.repeats, note=note, again=True)
    times |= interleaved({"base": work(Holder(real))}, config.base_repeats, note=f"{note}, base")
    ours_saved = saved_bytes(lambda: _forward(ours, x, dtype), ours)
    lora_saved = saved_bytes(lambda: _forward(lora, x, dtype), lora)
    numbers = _numbers(times, floor_share(inputs, outputs, experts, rank), experts)
    numbers["saved_activations_over_peft_lora"] = ours_saved / lora_saved
    numbers["saved_activations_over_input"] = ours_saved / (x.numel() * x.element_size())
    sizes = {count: _sizes(ours, layer, count, x, gradient) for count in (0, experts // 2, experts - 1)}
    for count, name in ((experts // 2, "4_of_8"), (experts - 1, "7_of_8")):
        for kind in ("gradient_bytes", "optimizer_bytes"):
            numbers[f"{kind}_{name}_over_none"] = sizes[count][kind] / sizes[0][kind]
    place = {"dtype": dtype, "inputs": inputs, "outputs": outputs, "tokens": tokens}
    seconds = {name: round(statistics.median(found), 5) for name, found in times.items()}
    found = {name: round(value, 3) for name, value in numbers.items()}
    return {**place, **found, "seconds": seconds, "bytes": {f"frozen {count}": size for count, size in sizes.items()}}


def _sizes(model: nn.Module, layer: MoELoraLinear, frozen: int, x: Tensor, gradient: Tensor) -> dict[str, int]:
    """Bytes of gradients and optimiser state after a step from fresh moments with so many experts at rest."""
    model.zero_grad(set_to_none=True)
    layer.set_active(torch.arange(layer.num_experts) >= frozen)
    _forward(model, x, "bf16" if x.dtype == torch.bfloat16 else "fp32").backward(gradient)
    layer.set_active(None)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = AdamW(parameters, 0.0)
    optimizer.step()
    gradients = sum(parameter.grad.nbytes for parameter in parameters if parameter.grad is not None)
    kept = [value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor)]
    model.zero_grad(set_to_none=True)
    return {"gradient_bytes": gradients, "optimizer_bytes": sum(value.nbytes for value in kept)}


def _forward(model: nn.Module, x: Tensor, dtype: str) -> Tensor:
    """As training runs it: adapters in float32, products in the compute dtype."""
    with torch.autocast(x.device.type, torch.bfloat16, enabled=dtype == "bf16"):
        result: Tensor = model(x)
    return result


def _numbers(times: Times, floor: float, experts: int) -> dict[str, float]:
    ours, lora = overhead(times, "ours", "standin"), overhead(times, "lora", "standin")
    half, most = (overhead(times, f"frozen {count}", "standin") for count in (experts // 2, experts - 1))
    products, *resting = (overhead(times, f"products {count}", "standin") for count in (0, experts // 2, experts - 1))
    floor_time, flop_floor = statistics.median(products), floor * statistics.median(times["base"])
    return {
        "floor_time_over_flop_floor": floor_time / flop_floor,
        "overhead_over_floor_time": statistics.median(ours) / floor_time,
        "frozen_4_of_8_over_none_floor_time": statistics.median(resting[0]) / floor_time,
        "frozen_7_of_8_over_none_floor_time": statistics.median(resting[1]) / floor_time,
        "overhead_over_flop_floor": statistics.median(ours) / flop_floor,
        "overhead_over_peft_lora": median_ratio(ours, lora),
        "frozen_4_of_8_over_none": median_ratio(half, ours),
        "frozen_7_of_8_over_none": median_ratio(most, ours),
    }

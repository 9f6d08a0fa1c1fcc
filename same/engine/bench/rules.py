"""What each update rule keeps of an old task at equal progress on a new one: a router and experts on known inputs.

Two linear problems of two tasks whose inputs share a part of their energy. A rule trains on the new task until its
loss has fallen to the same share of where it began; then old routing, or the old output of the experts, is compared
with what it was.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.optim import AdamW
from tqdm.auto import tqdm

from same.maths.covariance import CovarianceTracker, Spectrum
from same.maths.curvature import curvature_scaling, scale_output_factors
from same.maths.routing import router_scaling
from same.maths.scaling import DirectionScaling

PLACES = {  # whether a rule acts before the step, and after it
    "none": (False, False),
    "gradient": (True, False),
    "update": (False, True),
    "both": (True, True),
    "coordinates": (True, True),  # the rule's root on each side
}
DIRECTIONS = 32  # of the shared inputs, and of each task's own


@dataclass(frozen=True)
class Config:
    """What is measured.

    Args:
        width: of the inputs.
        num_experts: of the router and beside the layer.
        rank: of each expert.
        tokens: inputs of each task.
        batch: inputs a step.
        seeds: problems; means over those that were reached are given.
        steps: at most, before a rule counts as not reaching the loss.
        rate: learning rate of AdamW.
        damping: μ in units of the mean eigenvalue.
        energy_threshold: δ of the rules that need a subspace.
    """

    width: int = 256
    num_experts: int = 8
    rank: int = 8
    tokens: int = 4_096
    batch: int = 512
    seeds: int = 3
    steps: int = 3_000
    rate: float = 3e-3
    damping: float = 1.0
    energy_threshold: float = 0.95


@dataclass(frozen=True)
class Problem:
    """How alike the two tasks' inputs are, and when the new task counts as learnt.

    Args:
        shared: share of the input energy in directions of both tasks.
        mean: share of the input energy in a mean of both tasks.
        router_goal: share of the router's initial loss on the new task to reach.
        expert_goal: the same for the experts.
        known: share of the experts' initial loss on the old task to reach before, so that there is something to lose.
    """

    name: str
    shared: float
    mean: float
    router_goal: float
    expert_goal: float
    known: float = 0.05


PROBLEMS = (Problem("conflict", 0.2, 0.3, 0.5, 0.6), Problem("mild", 0.12, 0.03, 0.25, 0.6))
Restrict = tuple[Callable[[Tensor], Tensor], str]  # a rule, and its place


@dataclass(frozen=True)
class RouterRule:
    """A rule for the router: its gain g, whose covariance it takes, and where it acts."""

    name: str
    gain: str
    geometry: str
    place: str


@dataclass(frozen=True)
class ExpertRule:
    """A rule for the experts: whether the damping is that of public code, whether B has it too, where it acts."""

    name: str
    public: bool
    outputs: bool
    place: str


ROUTER_RULES = (
    RouterRule("none", "", "history", "none"),
    RouterRule("clamped", "clamped", "running", "gradient"),
    RouterRule("inverse sliding mean, running C", "inverse", "running", "gradient"),
    RouterRule("blocked, running C", "zero", "running", "gradient"),
    RouterRule("blocked, history C", "zero", "history", "both"),
    RouterRule("damped, history C", "damped", "history", "gradient"),
    RouterRule("damped, history C", "damped", "history", "update"),
    RouterRule("damped, history C", "damped", "history", "coordinates"),
    RouterRule("damped, history C", "damped", "history", "both"),
)
EXPERT_RULES = (
    ExpertRule("none", False, False, "none"),
    ExpertRule("1 / (√σ + 0.9) on A", True, False, "gradient"),
    ExpertRule("damped inverse on A", False, False, "gradient"),
    ExpertRule("damped inverse on A", False, False, "both"),
    ExpertRule("damped inverse on A and B", False, True, "coordinates"),
    ExpertRule("damped inverse on A and B", False, True, "both"),
)


def run(config: Config | None = None) -> dict[str, Any]:
    """Measure all rules on all problems; a rule that never reaches the loss has no numbers."""
    config = config or Config()
    seeds = range(config.seeds)
    routers, experts = [], []
    for problem in PROBLEMS:
        for router_rule in tqdm(ROUTER_RULES, desc=f"{problem.name}: router", leave=False):
            found = [_route(config, problem, router_rule, seed) for seed in seeds]
            about = {"problem": problem.name, "rule": router_rule.name, "place": router_rule.place}
            routers.append(about | _means(found))
        for expert_rule in tqdm(EXPERT_RULES, desc=f"{problem.name}: experts", leave=False):
            found = [_specialise(config, problem, expert_rule, seed) for seed in seeds]
            about = {"problem": problem.name, "rule": expert_rule.name, "place": expert_rule.place}
            experts.append(about | _means(found))
    return {"settings": asdict(config), "routers": routers, "experts": experts}


def _means(found: list[dict[str, float] | None]) -> dict[str, Any]:
    reached = [values for values in found if values is not None]
    names = reached[0] if reached else {}
    means = {name: round(statistics.mean(values[name] for values in reached), 5) for name in names}
    return {"reached": len(reached), **means}


def _inputs(config: Config, problem: Problem, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Inputs of the old and the new task [tokens, width]: decaying spectra, unit energy a coordinate on average."""
    square = torch.randn(config.width, config.width, generator=generator, dtype=torch.float64)
    basis = torch.linalg.qr(square).Q
    decay = 1 / torch.arange(1, DIRECTIONS + 1, dtype=torch.float64)
    scale = (decay / decay.sum()).sqrt()

    def part(place: int) -> Tensor:
        directions = basis[:, place * DIRECTIONS : (place + 1) * DIRECTIONS]
        noise = torch.randn(config.tokens, DIRECTIONS, generator=generator, dtype=torch.float64)
        drawn: Tensor = (noise * scale) @ directions.T
        return drawn

    def task(place: int) -> Tensor:
        own = 1 - problem.shared - problem.mean
        mixed = problem.shared**0.5 * part(0) + own**0.5 * part(place) + problem.mean**0.5 * basis[:, -1]
        scaled: Tensor = config.width**0.5 * mixed
        return scaled

    return task(1), task(2)


def _spectrum(inputs: Tensor) -> Spectrum:
    tracker = CovarianceTracker(inputs.shape[1], dtype=torch.float64)
    tracker.update(inputs)
    return tracker.spectrum()


def _train(
    config: Config, parameters: list[Tensor], rules: list[Restrict], loss: Callable[[Tensor | slice], Tensor],
    goal: float, generator: torch.Generator,
) -> bool:  # fmt: skip
    """AdamW under a rule for each parameter until the loss over all inputs is at most `goal`; whether it got there."""
    optimizer = AdamW(parameters, config.rate, weight_decay=0.0)
    batches = _batches(config, generator)
    for step in range(config.steps):
        if step % 10 == 0:
            with torch.no_grad():
                if float(loss(slice(None))) <= goal:
                    return True
        optimizer.zero_grad()
        loss(next(batches)).backward()
        with torch.no_grad():
            old = [parameter.clone() for parameter in parameters]
            for parameter, (rule, place) in zip(parameters, rules, strict=True):
                if PLACES[place][0] and parameter.grad is not None:
                    parameter.grad.copy_(rule(parameter.grad))
            optimizer.step()
            for parameter, was, (rule, place) in zip(parameters, old, rules, strict=True):
                if PLACES[place][1]:
                    parameter.copy_(was + rule(parameter - was))
    return False


def _batches(config: Config, generator: torch.Generator) -> Iterator[Tensor]:
    while True:
        yield from torch.randperm(config.tokens, generator=generator).split(config.batch)


def _nothing(rows: Tensor) -> Tensor:
    return rows


def _route(config: Config, problem: Problem, rule: RouterRule, seed: int) -> dict[str, float] | None:
    """A router that knows the old task's routing exactly learns the new task's."""
    generator = torch.Generator().manual_seed(seed)
    old, new = _inputs(config, problem, generator)
    shape = (2, config.num_experts, config.width)
    known, wanted = 2 * torch.randn(shape, generator=generator, dtype=torch.float64) / config.width**0.5
    router = known.clone().requires_grad_()
    targets = (new @ wanted.T).softmax(-1)

    def loss(rows: Tensor | slice) -> Tensor:
        logits = (new[rows] @ router.T).log_softmax(-1)
        return functional.kl_div(logits, targets[rows], reduction="batchmean")

    restrict: Restrict = (_nothing, "none")
    if rule.gain:
        seen = old if rule.geometry == "history" else torch.cat([old, new])
        scaling = router_scaling(
            _spectrum(seen), gain=rule.gain, energy_threshold=_threshold(config, rule.gain), damping=config.damping
        )
        restrict = (_on_each_side(scaling, rule.place).apply, rule.place)
    goal = problem.router_goal * float(loss(slice(None)).detach())
    if not _train(config, [router], [restrict], loss, goal, generator):
        return None
    before, after = ((old @ weight.detach().T).log_softmax(-1) for weight in (known, router))
    return {
        "old_routing_kl": float(functional.kl_div(after, before, reduction="batchmean", log_target=True)),
        "old_argmax_flips": float((before.argmax(-1) != after.argmax(-1)).double().mean()),
    }


def _on_each_side(scaling: DirectionScaling, place: str) -> DirectionScaling:
    return scaling.root() if place == "coordinates" else scaling


def _threshold(config: Config, gain: str) -> float:
    """A damped gain needs no subspace; the others act on the leading directions."""
    return 1.0 if gain == "damped" else config.energy_threshold


def _specialise(config: Config, problem: Problem, rule: ExpertRule, seed: int) -> dict[str, float] | None:
    """Experts behind a fixed router learn the old task's linear map, then the new task's."""
    generator = torch.Generator().manual_seed(seed)
    old, new = _inputs(config, problem, generator)
    d, n, r = config.width, config.num_experts, config.rank

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    router, maps = 2 * normal(n, d) / d**0.5, normal(2, d // 4, d) / d**0.5
    a, b = (normal(n, r, d) / d**0.5).requires_grad_(), torch.zeros(n, d // 4, r, dtype=torch.float64).requires_grad_()

    def output(x: Tensor) -> Tensor:
        z = torch.einsum("td,nrd->tnr", x, a) * (x @ router.T).softmax(-1)[..., None]
        return torch.einsum("tnr,nmr->tm", z, b)

    def squared_error(x: Tensor, target: Tensor) -> Callable[[Tensor | slice], Tensor]:
        return lambda rows: functional.mse_loss(output(x[rows]), x[rows] @ target.T)

    def learn(x: Tensor, target: Tensor, rules: list[Restrict], share: float) -> bool:
        loss = squared_error(x, target)
        goal = share * float(loss(slice(None)).detach())
        return _train(config, [a, b], rules, loss, goal, generator)

    free: list[Restrict] = [(_nothing, "none"), (_nothing, "none")]
    if not learn(old, maps[0], free, problem.known):
        return None
    before = output(old).detach()
    rules = free if rule.place == "none" else _expert_rules(config, rule, _spectrum(old), a)
    if not learn(new, maps[1], rules, problem.expert_goal):
        return None
    change = (output(old).detach() - before).square().sum()
    return {"degradation": float(change / before.square().sum())}


def _expert_rules(config: Config, rule: ExpertRule, spectrum: Spectrum, a: Tensor) -> list[Restrict]:
    if rule.public:
        scaling = DirectionScaling(spectrum.eigenvectors, 0.9 / (spectrum.eigenvalues.sqrt() + 0.9))
    else:
        scaling = curvature_scaling(spectrum, damping=config.damping, energy_threshold=1.0)
    scaling = _on_each_side(scaling, rule.place)
    root = spectrum.eigenvectors * spectrum.eigenvalues.sqrt()

    def on_inputs(rows: Tensor) -> Tensor:
        return scaling.apply(rows.flatten(0, 1)).view_as(rows)

    def on_outputs(deltas: Tensor) -> Tensor:
        return scale_output_factors(deltas, a.detach(), root, damping=0.1)

    # B's own rule changes with A at every step, so it acts on the finished update only, as in training.
    return [(on_inputs, rule.place), (on_outputs, "update") if rule.outputs else (_nothing, "none")]

"""What each update rule keeps of an old task at equal progress on a new one: a router and experts on known inputs.

Two problems of two tasks each, whose inputs share a part of their energy. The router routes the old task, and the
experts have learnt its linear map, before a rule is asked for. Every rule then starts from that same state and trains
on the new task until its loss has fallen to the same share of where it began; old routing, or the old output of the
experts, is compared with what it was.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.optim import AdamW
from tqdm.auto import tqdm

from same.errors import RunFailed
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
        outputs: of the experts.
        num_experts: of the router and beside the layer.
        rank: of each expert, and of the maps that they learn.
        tokens: inputs of each task.
        batch: inputs a step.
        seeds: problems; mean and standard deviation over those where the loss was reached are given.
        steps: at most, before a rule counts as not reaching the loss.
        check_steps: steps between looks at the loss over all inputs.
        known_rate: learning rate of AdamW on the old task.
        rate: learning rate of AdamW on the new task.
        known: share of the experts' initial loss on the old task that is left, so that there is something to lose.
        damping: μ in units of the mean eigenvalue.
        energy_threshold: δ of the rules that need a subspace.
    """

    width: int = 256
    outputs: int = 64
    num_experts: int = 8
    rank: int = 8
    tokens: int = 4_096
    batch: int = 512
    seeds: int = 3
    steps: int = 1_000
    check_steps: int = 2
    known_rate: float = 3e-3
    rate: float = 1e-3
    known: float = 0.02
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
    """

    name: str
    shared: float
    mean: float
    router_goal: float
    expert_goal: float


PROBLEMS = (Problem("conflict", 0.2, 0.3, 0.5, 0.6), Problem("mild", 0.12, 0.03, 0.25, 0.6))
Restrict = tuple[Callable[[Tensor], Tensor], str]  # a rule, and its place
Loss = Callable[[Tensor | slice], Tensor]  # of some of the inputs
Found = dict[str, float] | None  # what one rule left of one problem; None where it did not learn the new task


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
    routers, experts = [], []
    for problem in PROBLEMS:
        routed = _over_seeds(config, f"{problem.name}: router", partial(_route, config, problem))
        specialised = _over_seeds(config, f"{problem.name}: experts", partial(_specialise, config, problem))
        routers += _rows(problem, ROUTER_RULES, routed)
        experts += _rows(problem, EXPERT_RULES, specialised)
    return {"settings": asdict(config), "routers": routers, "experts": experts}


def _over_seeds(config: Config, label: str, measure: Callable[[int], list[Found]]) -> list[list[Found]]:
    return [measure(seed) for seed in tqdm(range(config.seeds), desc=label, leave=False)]


def _rows(problem: Problem, rules: Sequence[RouterRule | ExpertRule], seeds: list[list[Found]]) -> list[dict[str, Any]]:
    return [
        {"problem": problem.name, "rule": rule.name, "place": rule.place} | _summary(list(found))
        for rule, found in zip(rules, zip(*seeds, strict=True), strict=True)
    ]


def _summary(found: list[Found]) -> dict[str, Any]:
    """Mean and standard deviation over the seeds where the loss was reached."""
    reached = [values for values in found if values is not None]
    row: dict[str, Any] = {"reached": len(reached)}
    for name in reached[0] if reached else {}:
        values = [seed[name] for seed in reached]
        row[name] = round(statistics.mean(values), 5)
        if len(values) > 1:
            row[f"{name}_std"] = round(statistics.stdev(values), 5)
    return row


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

    return task(1).float(), task(2).float()


def _spectrum(inputs: Tensor) -> Spectrum:
    tracker = CovarianceTracker(inputs.shape[1], dtype=torch.float64)
    tracker.update(inputs)
    return tracker.spectrum().to(dtype=inputs.dtype)


def _train(
    config: Config, parameters: list[Tensor], rules: list[Restrict], loss: Loss, share: float, rate: float,
) -> int | None:  # fmt: skip
    """AdamW under a rule for each parameter until `share` of the loss is left; the steps it took, None if too many."""
    optimizer = AdamW(parameters, rate, weight_decay=0.0)
    batches = _batches(config)
    with torch.no_grad():
        goal = share * float(loss(slice(None)))
    for step in range(config.steps + 1):
        if step % config.check_steps == 0:
            with torch.no_grad():
                if float(loss(slice(None))) <= goal:
                    return step
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
    return None


def _batches(config: Config) -> Iterator[Tensor]:
    """The same batches whenever they are asked for, so that rules differ by nothing else."""
    generator = torch.Generator().manual_seed(0)
    while True:
        yield from torch.randperm(config.tokens, generator=generator).split(config.batch)


def _nothing(rows: Tensor) -> Tensor:
    return rows


FREE: Restrict = (_nothing, "none")


def _route(config: Config, problem: Problem, seed: int) -> list[Found]:
    """A router that knows the old task's routing exactly learns the new task's, under each rule."""
    generator = torch.Generator().manual_seed(seed)
    old, new = _inputs(config, problem, generator)
    known, wanted = 2 * torch.randn(2, config.num_experts, config.width, generator=generator) / config.width**0.5
    targets = (new @ wanted.T).softmax(-1)
    spectra = {"history": _spectrum(old), "running": _spectrum(torch.cat([old, new]))}
    before = (old @ known.T).log_softmax(-1)

    def learnt(rule: RouterRule) -> Found:
        router = known.clone().requires_grad_()

        def loss(rows: Tensor | slice) -> Tensor:
            logits = (new[rows] @ router.T).log_softmax(-1)
            return functional.kl_div(logits, targets[rows], reduction="batchmean")

        restrict = [_router_rule(config, rule, spectra[rule.geometry])]
        steps = _train(config, [router], restrict, loss, problem.router_goal, config.rate)
        if steps is None:
            return None
        after = (old @ router.detach().T).log_softmax(-1)
        return {
            "old_routing_kl": float(functional.kl_div(after, before, reduction="batchmean", log_target=True)),
            "old_argmax_flips": float((before.argmax(-1) != after.argmax(-1)).double().mean()),
            "steps": steps,
        }

    return [learnt(rule) for rule in ROUTER_RULES]


def _router_rule(config: Config, rule: RouterRule, spectrum: Spectrum) -> Restrict:
    if not rule.gain:
        return FREE
    # A damped gain needs no subspace; the others act on the leading directions.
    threshold = 1.0 if rule.gain == "damped" else config.energy_threshold
    scaling = router_scaling(spectrum, gain=rule.gain, energy_threshold=threshold, damping=config.damping)
    return _on_each_side(scaling, rule.place).apply, rule.place


def _on_each_side(scaling: DirectionScaling, place: str) -> DirectionScaling:
    return scaling.root() if place == "coordinates" else scaling


@dataclass(frozen=True)
class Experts:
    """LoRA experts behind a fixed router: A [n, r, d] as LoRA starts it, B [n, m, r] at 0."""

    router: Tensor
    a: Tensor
    b: Tensor

    @classmethod
    def new(cls, config: Config, generator: torch.Generator) -> Experts:
        n, r, d = config.num_experts, config.rank, config.width
        router = 2 * torch.randn(n, d, generator=generator) / d**0.5
        a = torch.randn(n, r, d, generator=generator) / d**0.5
        return cls(router, a.requires_grad_(), torch.zeros(n, config.outputs, r).requires_grad_())

    def copy(self) -> Experts:
        return Experts(self.router, *(factor.detach().clone().requires_grad_() for factor in (self.a, self.b)))

    def output(self, x: Tensor) -> Tensor:
        z = (x @ self.a.flatten(0, 1).T).unflatten(1, self.a.shape[:2])
        weighted: Tensor = z * (x @ self.router.T).softmax(-1)[..., None]
        return weighted.flatten(1) @ self.b.mT.flatten(0, 1)

    def loss(self, x: Tensor, target: Tensor) -> Loss:
        return lambda rows: functional.mse_loss(self.output(x[rows]), target[rows])


def _specialise(config: Config, problem: Problem, seed: int) -> list[Found]:
    """Experts that have learnt the old map learn the new one, under each rule; maps are of an expert's rank."""
    generator = torch.Generator().manual_seed(seed)
    old, new = _inputs(config, problem, generator)
    experts = Experts.new(config, generator)
    left = torch.randn(2, config.outputs, config.rank, generator=generator) / config.rank**0.5
    old_map, new_map = left @ torch.randn(2, config.rank, config.width, generator=generator) / config.width**0.5
    lesson = experts.loss(old, old @ old_map.T)
    if _train(config, [experts.a, experts.b], [FREE, FREE], lesson, config.known, config.known_rate) is None:
        raise RunFailed(
            f"the old task must be known before a rule may lose it; {config.steps} steps left more than "
            f"{config.known:.0%} of its loss. Give more steps."
        )
    before, spectrum = experts.output(old).detach(), _spectrum(old)

    def learnt(rule: ExpertRule) -> Found:
        trained = experts.copy()
        rules = [FREE, FREE] if rule.place == "none" else _expert_rules(config, rule, spectrum, trained.a)
        loss = trained.loss(new, new @ new_map.T)
        steps = _train(config, [trained.a, trained.b], rules, loss, problem.expert_goal, config.rate)
        if steps is None:
            return None
        change = (trained.output(old).detach() - before).square().sum()
        return {"degradation": float(change / before.square().sum()), "steps": steps}

    return [learnt(rule) for rule in EXPERT_RULES]


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

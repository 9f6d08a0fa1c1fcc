"""The three mechanisms under `same` and `same_plus`: spectral routing, curvature scaling, adaptive activation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from same.errors import InputError, SnapshotError
from same.maths.covariance import CovarianceSettings, CovarianceTracker, StorageName
from same.maths.curvature import curvature_scaling
from same.maths.freezing import active_experts, expert_scores
from same.maths.routing import router_scaling
from same.maths.scaling import Scaling
from same.maths.spectrum import Energy, Spectrum
from same.methods._base import Batch, Layout, Reduce, SnapshotTables, Step, TaskContext, reduce_nothing
from same.methods._experts import ExpertConfig, ExpertMethod
from same.methods._groups import InputGroup, Rules
from same.tuner import Observation
from same.tuner.observe import moe_layers


@dataclass(frozen=True)
class StabilisedConfig(ExpertConfig):
    """Settings of the three mechanisms; the values here are the paper's reading.

    Args:
        covariance: how Σ x xᵀ is stored above `exact_max_dim`; "exact" stores it in full at every width.
        exact_max_dim: widest input whose Σ x xᵀ is stored in full.
        sketch_size: directions that a sketch holds; 128 is cheap, 256 accurate.
        token_stride: one in so many valid tokens counts in a sketch.
        centered: remove the mean from the covariance.
        energy_threshold: δ, share of the energy that the protected directions hold (1: all directions).
        energy: "squared" sums σ²; "eigenvalue" sums σ, the fraction of variance.
        router_geometry: "history" C of past tasks, fixed in a task; "running" the current task included.
        refresh_steps: optimiser steps between two refreshes of the running geometry.
        gain: g of the protected directions; "none" leaves the router to the optimiser.
        window: ρ, eigenvalues averaged by the inverse gain.
        curvature_on: factors whose changes the past inputs' curvature scales.
        damping: μ, in units of the mean eigenvalue.
        damping_absolute: μ in the unit of the eigenvalues instead.
        output_damping: μ_z of the rule on B, in units of its own mean eigenvalue.
        normalise: scale the damped inverse by μ, so that unseen directions keep their full step.
        apply_to: the gradient before the step, the finished update after it, or both (B then after it only).
        freeze_threshold: τ, experts that score below it rest (scores lie in [−1, 1]).
        freeze_warmup: share of a task's steps before the first score.
        freeze_every: optimiser steps between two scores.
        frozen_forward: "skip" leaves resting experts out of the product; "keep" lets them contribute unchanged.
    """

    covariance: StorageName = CovarianceSettings.storage
    exact_max_dim: int = CovarianceSettings.exact_max_dim
    sketch_size: int = CovarianceSettings.sketch_size
    token_stride: int = CovarianceSettings.token_stride
    centered: bool = CovarianceSettings.centered
    energy_threshold: float = 0.95
    energy: Energy = "squared"
    router_geometry: Literal["history", "running"] = "running"
    refresh_steps: int = 50
    gain: Literal["inverse", "damped", "zero", "clamped", "none"] = "inverse"
    window: int = 3
    curvature_on: Literal["A", "AB", "none"] = "A"
    damping: float = 1.0
    damping_absolute: bool = False
    output_damping: float = 0.1
    normalise: bool = True
    apply_to: Literal["gradient", "update", "both"] = "gradient"
    freeze_threshold: float = 0.0
    freeze_warmup: float = 0.1
    freeze_every: int = 50
    frozen_forward: Literal["skip", "keep"] = "skip"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("sketch_size", "token_stride", "refresh_steps", "window", "freeze_every"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1; got {getattr(self, name)}.")
        if self.exact_max_dim < 0:
            raise InputError(f"exact_max_dim must be at least 0 (a sketch always); got {self.exact_max_dim}.")
        for name in ("damping", "output_damping"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"{name} must be positive and finite; got {getattr(self, name)}.")
        if not 0 < self.energy_threshold <= 1:
            raise InputError(f"energy_threshold must lie in (0, 1]; got {self.energy_threshold}.")
        if not 0 <= self.freeze_warmup <= 1:
            raise InputError(f"freeze_warmup must lie in [0, 1]; got {self.freeze_warmup}.")
        if math.isnan(self.freeze_threshold):
            raise InputError("freeze_threshold must be a number; got nan. −1 freezes nothing.")

    def gradient_only(self) -> dict[str, Any]:
        wanted = {"apply_to": "gradient"} if self.apply_to != "gradient" else {}
        return wanted | ({"freeze_threshold": -1} if self.freeze_threshold > -1 else {})


class StabilisedMethod(ExpertMethod):
    """Routed experts whose changes are held back where past inputs were strong."""

    shardable = True
    Config = StabilisedConfig

    def attach(self, model: nn.Module, backbone: Layout) -> nn.Module:
        attached = super().attach(model, backbone)
        self.layers = moe_layers(attached)
        self.groups: dict[str, InputGroup] = {}
        for name, layer in self.layers.items():
            self.groups.setdefault(self.input_key(name), InputGroup()).layers.append(layer)
        self.past: dict[str, CovarianceTracker] = {}
        self.past_energy: Tensor | None = None
        self.past_tokens: Tensor | None = None
        self.spectra: dict[str, Spectrum] = {}
        self.current: Observation | None = None
        self.active = torch.ones(len(self.layers), self.config.num_experts, dtype=torch.bool)
        self._reduce: Reduce = reduce_nothing
        self._place = (0, 1)  # rank and number of processes
        self._first = True
        self._activation: list[dict[str, Any]] = []
        self._events: list[tuple[str, dict[str, Any]]] = []
        return attached

    # -- the task ----------------------------------------------------------------------------------

    def begin_task(self, task: TaskContext) -> None:
        self.current = self._observation()
        self._join(task)
        self._first = not self.spectra
        self._activation = []
        self._set_active(torch.ones_like(self.active))
        for key, group in self.groups.items():
            group.rules = Rules() if self._first else self._rules(self.spectra[key])

    def forward_context(self, batch: Batch) -> AbstractContextManager[None]:
        return self._observed.watching(batch["attention_mask"])

    def before_step(self, step: Step) -> None:
        if self._first:
            return
        if self.config.router_geometry == "running" and step.index % self.config.refresh_steps == 0:
            self._refresh_routers()
        for group in self.groups.values():
            group.rest_gradients_()
            if self.config.apply_to != "update":
                group.scale_gradients_(outputs=self.config.apply_to == "gradient")
            group.remember(updates=self.config.apply_to != "gradient")

    def after_step(self, step: Step) -> None:
        if self._first:
            return
        for group in self.groups.values():
            group.scale_updates_()
        done = step.index + 1
        since = done - max(1, math.ceil(self.config.freeze_warmup * step.total))
        if since >= 0 and since % self.config.freeze_every == 0 and done < step.total:
            self._score_experts(done)

    def end_task(self, task: TaskContext) -> None:
        self._join(task)
        current = self._observed
        utilization, scores = self._scores()
        self._add_activation(utilization, scores, task.steps)
        current.reduce(self._reduce, *self._place)
        if self.past_energy is None or self.past_tokens is None:
            self.past_energy, self.past_tokens = current.energy, current.tokens
            self.past = current.trackers
        else:
            self.past_energy, self.past_tokens = self.past_energy + current.energy, self.past_tokens + current.tokens
            for key, tracker in current.trackers.items():
                self.past[key].merge(tracker)
        self.spectra = {key: tracker.spectrum() for key, tracker in self.past.items()}
        self.current = None
        self._set_active(torch.ones_like(self.active))

    # -- the mechanisms ----------------------------------------------------------------------------

    def _rules(self, spectrum: Spectrum) -> Rules:
        """What the covariance of past tasks asks of the layers that read one input."""
        config, rules = self.config, Rules(output_damping=self.config.output_damping)
        held = self._on_device(spectrum)
        if config.gain != "none":
            rules.router = self._router_rule(held)
        if config.curvature_on != "none":
            rules.experts = curvature_scaling(
                held,
                damping=config.damping,
                energy_threshold=config.energy_threshold,
                energy=config.energy,
                damping_absolute=config.damping_absolute,
                normalise=config.normalise,
            ).compile()
        if config.curvature_on == "AB":
            rules.root = held.eigenvectors * held.eigenvalues.sqrt()
        return rules

    def _router_rule(self, held: Spectrum) -> Scaling:
        config = self.config
        return router_scaling(
            held,
            gain=config.gain,
            energy_threshold=config.energy_threshold,
            energy=config.energy,
            window=config.window,
            damping=config.damping,
            damping_absolute=config.damping_absolute,
        ).compile()

    def _refresh_routers(self) -> None:
        """Router rules from C^t, the current task's tokens so far included."""
        if self.config.gain == "none":
            return
        for key, group in self.groups.items():
            running = self._observed.trackers[key].clone()
            running.reduce(self._reduce, *self._place)
            running.merge(self.past[key])
            group.rules.router = self._router_rule(self._on_device(running.spectrum()))

    def _scores(self) -> tuple[Tensor, Tensor]:
        """Utilisation in the task so far and the scores, equal on every process [layers, n]."""
        weight, tokens = self._observed.weight.clone(), self._observed.tokens.clone()
        self._reduce(weight)
        self._reduce(tokens)
        utilization = weight / tokens.clamp_min(1)[:, None]
        return utilization, expert_scores(utilization, self.importance().to(utilization))

    def importance(self) -> Tensor:
        """F(i): token-weighted mean over past tasks of ω_i(x)·‖x‖² [layers, n]; 0 before the first task ended."""
        if self.past_energy is None or self.past_tokens is None:
            return torch.zeros(self.active.shape, dtype=torch.float64)
        return self.past_energy / self.past_tokens.clamp_min(1)[:, None]

    def _score_experts(self, done: int) -> None:
        """Choose which experts train from now on (waits for the device; a few times a task)."""
        utilization, scores = self._scores()
        self._set_active(active_experts(scores, self.config.freeze_threshold).cpu())
        self._add_activation(utilization, scores, done)
        counts = dict(zip(self.layers, self.active.sum(-1).tolist(), strict=True))
        self._events.append(("freeze", {"step": done, "experts": self.config.num_experts, "active": counts}))

    def _set_active(self, active: Tensor) -> None:
        self.active = active
        masks = dict(zip(self.layers.values(), active, strict=True))
        for group in self.groups.values():
            for position, layer in enumerate(group.layers):
                group.set_active(position, masks[layer], keep=self.config.frozen_forward == "keep")

    # -- what is shown and kept --------------------------------------------------------------------

    def _add_activation(self, utilization: Tensor, scores: Tensor, step: int) -> None:
        columns = [values.tolist() for values in (utilization, self.importance(), scores, ~self.active)]
        self._activation += [
            {
                "layer": layer,
                "expert": expert,
                "utilization": columns[0][row][expert],
                "importance": columns[1][row][expert],
                "score": columns[2][row][expert],
                "frozen": columns[3][row][expert],
                "step": step,
            }
            for row, layer in enumerate(self.layers)
            for expert in range(self.config.num_experts)
        ]

    def step_metrics(self) -> dict[str, Any]:
        return {"active_experts": self.active.sum(-1).tolist()}

    def drain_events(self) -> list[tuple[str, dict[str, Any]]]:
        events, self._events = self._events, []
        return events

    def snapshot_tables(self) -> SnapshotTables:
        tables = SnapshotTables(activation=list(self._activation))
        for key, spectrum in self.spectra.items():
            tables.spectra[f"{key}.eigenvalues"] = spectrum.eigenvalues
            tables.spectra[f"{key}.eigenvectors"] = spectrum.eigenvectors.float()
            tables.spectra[f"{key}.tokens"] = torch.tensor(spectrum.tokens, dtype=torch.float64)
            tables.spectra[f"{key}.trace"] = torch.tensor(spectrum.trace, dtype=torch.float64)
        return tables

    def state_dict(self) -> dict[str, Tensor]:
        """Sums over past tasks: Σ x xᵀ and tokens of each input, Σ ω‖x‖² and tokens of each layer."""
        if self.past_energy is None or self.past_tokens is None:
            return {}
        state = {"importance.energy": self.past_energy.clone(), "importance.tokens": self.past_tokens.clone()}
        for key, tracker in self.past.items():
            state |= {f"covariance.{key}.{name}": tensor for name, tensor in tracker.state_dict().items()}
        return state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        fresh = self._observation()
        expected = {"importance.energy": fresh.energy, "importance.tokens": fresh.tokens}
        for key, tracker in fresh.trackers.items():
            expected |= {f"covariance.{key}.{name}": tensor for name, tensor in tracker.state_dict().items()}
        wrong = [name for name, like in expected.items() if name not in state or state[name].shape != like.shape]
        if wrong:
            raise SnapshotError(
                f"the method's state must hold the past tasks' statistics of these adapters; {wrong[0]} is missing or "
                f"of another shape ({len(wrong)} such). Use the snapshot of a run with the same method and settings."
            )
        for key, tracker in fresh.trackers.items():
            tracker.load_state_dict({name: state[f"covariance.{key}.{name}"] for name in tracker.state_dict()})
        self.past = fresh.trackers
        self.past_energy = state["importance.energy"].to(fresh.energy)
        self.past_tokens = state["importance.tokens"].to(fresh.tokens)
        self.spectra = {key: tracker.spectrum() for key, tracker in self.past.items()}

    # -- where it lives ----------------------------------------------------------------------------

    @property
    def _observed(self) -> Observation:
        if self.current is None:
            raise RuntimeError("begin_task(task) must be called before training.")
        return self.current

    def _join(self, task: TaskContext) -> None:
        self._reduce, self._place = task.reduce, (task.rank, task.world)

    def _observation(self) -> Observation:
        config = self.config
        settings = CovarianceSettings(
            storage=config.covariance,
            exact_max_dim=config.exact_max_dim,
            sketch_size=config.sketch_size,
            token_stride=config.token_stride,
            centered=config.centered,
        )
        return Observation(self.attached, self.input_key, covariance=settings, is_padded=self.layout.is_padded)

    def _on_device(self, spectrum: Spectrum) -> Spectrum:
        router = next(iter(self.layers.values())).router
        return spectrum.to(router.device, router.dtype)

"""The three mechanisms under `same` and `same_plus`: spectral routing, curvature scaling, adaptive activation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from same.errors import SnapshotError
from same.maths.covariance import CovarianceTracker
from same.maths.freezing import active_experts, expert_scores
from same.maths.spectrum import Spectrum
from same.methods._base import ROWS, Batch, Layout, Needs, Reduce, SnapshotTables, Step, TaskContext, reduce_nothing
from same.methods._experts import ExpertMethod
from same.methods._groups import InputGroup, Rules
from same.methods._parking import Parking
from same.methods._rules import StabilisedConfig, covariance_settings, input_rules, router_rule, rule_numbers
from same.tuner import Observation
from same.tuner.observe import moe_layers


class StabilisedMethod(ExpertMethod):
    """Routed experts whose changes are held back where past inputs were strong."""

    shardable = True
    parity = "moelora"
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
        self.parking = Parking()
        self.active = torch.ones(len(self.layers), self.config.num_experts, dtype=torch.bool)
        self._reduce: Reduce = reduce_nothing
        self._place = (0, 1)  # rank and number of processes
        self._first = True
        self._spent = False  # the next forward pass begins a new covariance
        self._scored: tuple[Tensor, Tensor] | None = None  # Σω‖x‖² and tokens of the task at the last score
        self._activation: list[dict[str, Any]] = []
        self._events: list[tuple[str, dict[str, Any]]] = []
        return attached

    # -- the task ----------------------------------------------------------------------------------

    def begin_task(self, task: TaskContext) -> None:
        self.current = self._observation()
        self._join(task)
        self._first = not self.spectra
        self._activation, self._scored, self._spent = [], None, False
        self.parking = Parking()  # the task's optimiser is a new one
        self.set_active(torch.ones_like(self.active))
        for key, group in self.groups.items():
            held = self.spectra.get(key)
            group.rules = Rules() if held is None else input_rules(self.config, self._on_device(held))

    def forward_context(self, batch: Batch) -> AbstractContextManager[None]:
        if self._spent:
            self._observed.trackers, self._spent = self._observation().trackers, False
        return self._observed.watching(batch["attention_mask"], batch.get(ROWS))

    def before_step(self, step: Step) -> None:
        due = self.config.router_geometry != "history" and step.index % self.config.refresh_steps == 0
        self._spent = due and self.config.router_geometry == "batch"
        if self._first:
            return
        if due:
            self.refresh()
        for group in self.groups.values():
            group.rest_gradients_()
            if self.config.apply_to != "update":
                group.scale_gradients_(outputs=self.config.apply_to == "gradient")
            group.remember(step.optimizer, updates=self.config.apply_to != "gradient")

    def after_step(self, step: Step) -> None:
        if self._first:
            return
        for group in self.groups.values():
            group.scale_updates_(step.optimizer)
        done = step.index + 1
        since = done - max(1, math.ceil(self.config.freeze_warmup * step.total))
        if since >= 0 and since % self.config.freeze_every == 0 and done < step.total:
            self.score_experts(done)
            self.park_moments(step.optimizer)

    def end_task(self, task: TaskContext) -> None:
        self._join(task)
        current = self._observed
        self._add_activation(*self._scores(), task.steps)
        current.reduce(self._reduce, *self._place)
        if self.past_energy is None or self.past_tokens is None:
            self.past_energy, self.past_tokens = current.energy, current.tokens
            self.past = current.trackers
        else:
            self.past_energy, self.past_tokens = self.past_energy + current.energy, self.past_tokens + current.tokens
            if self.config.router_geometry == "batch":
                self.past = self._observation().trackers
            for key, tracker in current.trackers.items():
                self.past[key].merge(tracker)
        self.spectra = self._past_spectra()
        self.current = None
        self.set_active(torch.ones_like(self.active))

    # -- the mechanisms ----------------------------------------------------------------------------

    def refresh(self) -> None:
        """Rules from the current task's tokens so far, beside those of past tasks or alone.

        Where there are none (a vision tower's, without a picture), the rules stay as they are.
        """
        for key, group in self.groups.items():
            seen = self._observed.trackers[key].clone()
            seen.reduce(self._reduce, *self._place)
            if not seen.counted:
                continue
            if self.config.router_geometry == "batch":
                group.rules = input_rules(self.config, self._on_device(seen.spectrum()))
            elif self.config.gain != "none":
                seen.merge(self.past[key])
                group.rules.router = router_rule(self.config, self._on_device(seen.spectrum()))

    def _past_spectra(self) -> dict[str, Spectrum]:
        """The spectrum of each input that past tasks had: those of a vision tower may have come without a picture."""
        return {key: tracker.spectrum() for key, tracker in self.past.items() if tracker.counted}

    def _scores(self) -> tuple[Tensor, Tensor, Tensor]:
        """Utilisation in the task so far, importance and scores, equal on every process [layers, n]."""
        weight, energy, tokens = (
            values.clone() for values in (self._observed.weight, self._observed.energy, self._observed.tokens)
        )
        for values in (weight, energy, tokens):
            self._reduce(values)
        utilization, importance = weight / tokens.clamp_min(1)[:, None], self.importance().to(weight)
        if self.config.importance == "recent":
            scored_energy, scored_tokens = self._scored or (0.0, 0.0)
            importance = (energy - scored_energy) / (tokens - scored_tokens).clamp_min(1)[:, None]
            self._scored = energy, tokens
        return utilization, importance, expert_scores(utilization, importance)

    def importance(self) -> Tensor:
        """F(i): token-weighted mean over past tasks of ω_i(x)·‖x‖² [layers, n]; 0 before the first task ended."""
        if self.past_energy is None or self.past_tokens is None:
            return torch.zeros(self.active.shape, dtype=torch.float64)
        return self.past_energy / self.past_tokens.clamp_min(1)[:, None]

    def score_experts(self, done: int) -> None:
        """Choose which experts train from now on (waits for the device; a few times a task)."""
        found = self._scores()
        self.set_active(active_experts(found[-1], self.config.freeze_threshold).cpu())
        self._add_activation(*found, done)
        counts = dict(zip(self.layers, self.active.sum(-1).tolist(), strict=True))
        self._events.append(("freeze", {"step": done, "experts": self.config.num_experts, "active": counts}))

    def park_moments(self, optimizer: Optimizer) -> None:
        """Keep the optimiser's state of the experts that rest now on the host; put back that of those that woke."""
        self.parking.settle(optimizer, [factor for group in self.groups.values() for factor in group.resting_factors()])

    def set_active(self, active: Tensor) -> None:
        """Let only the experts marked True train from now on [layers, n]."""
        self.active = active
        masks = dict(zip(self.layers.values(), active, strict=True))
        for group in self.groups.values():
            for position, layer in enumerate(group.layers):
                group.set_active(position, masks[layer], keep=self.config.frozen_forward == "keep")

    # -- what is shown and kept --------------------------------------------------------------------

    def _add_activation(self, utilization: Tensor, importance: Tensor, scores: Tensor, step: int) -> None:
        columns = [values.tolist() for values in (utilization, importance, scores, ~self.active)]
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

    def needs(self) -> Needs:
        trackers, settings = self._observation().trackers, covariance_settings(self.config)
        kept = sum(tensor.nbytes for tracker in trackers.values() for tensor in tracker.state_dict().values())
        shared = sum({tracker.dim: tracker.shared_bytes(tracker.dtype) for tracker in trackers.values()}.values())
        spectra, rules = 0, 0
        for tracker in trackers.values():
            held = settings.directions(tracker.dim)
            spectra += held * (1 + tracker.dim)
            rules += rule_numbers(self.config, tracker.dim, held)
        # The past's sums and the present's; spectra in float64 there, their vectors in float32 on disk.
        return Needs(device=2 * kept + shared + 8 * spectra + 4 * rules, snapshot=kept + 4 * spectra)

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
        self.spectra = self._past_spectra()

    # -- where it lives ----------------------------------------------------------------------------

    @property
    def _observed(self) -> Observation:
        if self.current is None:
            raise RuntimeError("begin_task(task) must be called before training.")
        return self.current

    def _join(self, task: TaskContext) -> None:
        self._reduce, self._place = task.reduce, (task.rank, task.world)

    def _observation(self) -> Observation:
        settings = covariance_settings(self.config)
        return Observation(self.attached, self.input_key, covariance=settings, argmax=False)

    def _on_device(self, spectrum: Spectrum) -> Spectrum:
        router = next(iter(self.layers.values())).router
        return spectrum.to(router.device, router.dtype)

"""Statistics of what flows through MoE-LoRA layers, over valid tokens only and without waiting for the device."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import ref

import torch
from torch import Tensor, nn

from same.maths.covariance import CovarianceSettings, CovarianceTracker, squared_norms
from same.maths.drift import entropy
from same.tuner.kernel import at_full_precision
from same.tuner.routing import spread

if TYPE_CHECKING:
    from same.tuner.layer import MoELoraLinear

Found = TypeVar("Found")
_current: ContextVar[Watch | None] = ContextVar("observation", default=None)


def current_observation() -> Observation | None:
    """The observation that forward passes now report to."""
    watched = _current.get()
    return None if watched is None else watched.observation


@dataclass(frozen=True)
class Watch:
    """What an observation knows of the pass that it watches, and what all its layers need of that, found once."""

    observation: Observation
    valid: Tensor | None
    numbers: Tensor | None
    found: dict[tuple[object, ...], Any] = field(default_factory=dict)

    def once(self, key: tuple[object, ...], make: Callable[[], Found]) -> Found:
        """What `make` gave for the key first."""
        if key not in self.found:
            self.found[key] = make()
        kept: Found = self.found[key]
        return kept


@dataclass(frozen=True)
class ObservedLayer:
    """Where a layer's statistics go: its name, the input it reads, its row in the tables."""

    name: str
    input_key: str
    row: int
    first_of_input: bool


@dataclass(frozen=True)
class Counted:
    """Which tokens of a pass count [tokens], the same as 1 and 0 in float64, and how many they are."""

    valid: Tensor
    ones: Tensor
    number: Tensor

    @classmethod
    def of(cls, valid: Tensor) -> Counted:
        return cls(valid, valid.to(torch.float64), valid.sum())


def moe_layers(model: nn.Module) -> dict[str, MoELoraLinear]:
    """The MoE-LoRA layers of a model by module name, as the model without adapters names them."""
    from same.tuner.layer import MoELoraLinear

    base = getattr(model, "get_base_model", lambda: model)()
    return {name: module for name, module in base.named_modules() if isinstance(module, MoELoraLinear)}


class Observation:
    """Sums over tokens: Σω, how often an expert is the largest, Σω‖x‖², tokens; and Σxxᵀ once per distinct input.

    ω is what the router says of all experts, also of those that rest, so that a resting expert can be wanted back: of
    each token, or of the sample or the batch it is in where the layer routes those.

    Args:
        model: holds MoE-LoRA layers.
        input_key: names the input a layer reads.
        covariance: how to store the covariance of each distinct input; None does not track it.
        argmax: count how often an expert is the largest; training never asks.
    """

    FIELDS: tuple[str, ...] = ("weight", "largest", "energy", "tokens")

    def __init__(
        self,
        model: nn.Module,
        input_key: Callable[[str], str],
        *,
        covariance: CovarianceSettings | None = None,
        argmax: bool = True,
    ) -> None:
        layers = moe_layers(model)
        seen: set[str] = set()
        self.argmax = argmax
        self.layers: dict[int, ObservedLayer] = {}
        self.trackers: dict[str, CovarianceTracker] = {}
        for row, (name, layer) in enumerate(layers.items()):
            key = input_key(name)
            self.layers[id(layer)] = ObservedLayer(name, key, row, key not in seen)
            if covariance is not None and key not in seen:
                dtype = torch.promote_types(layer.router.dtype, torch.float32)
                self.trackers[key] = covariance.tracker(layer.in_features, dtype=dtype, device=layer.router.device)
            seen.add(key)
        first = next(iter(layers.values()))
        shape = (len(layers), first.num_experts)
        table = torch.zeros(shape, dtype=torch.float64, device=first.router.device)
        self.weight, self.largest, self.energy = table, table.clone(), table.clone()
        self.tokens = table[:, 0].clone()
        self._read: tuple[ref[Tensor], Tensor] | None = None  # the tensor read last, and ‖x‖² of its tokens

    @property
    def names(self) -> list[str]:
        return [layer.name for layer in self.layers.values()]

    @contextmanager
    def watching(self, valid: Tensor | None, numbers: Tensor | None = None) -> Iterator[None]:
        """Count the forward passes inside, but not their backward: a recomputed forward would count twice.

        Args:
            valid: True (or 1) for tokens that are not padding [batch, tokens]; layers that read these count passes of
                this shape only, not the later steps of a cached generation; others, such as a vision tower's, count
                every token. None counts everything.
            numbers: of the rows [batch]; which of a row's tokens count in the covariances then depends on the row
                alone. None makes one stream of all.
        """
        token = _current.set(Watch(self, None if valid is None else valid.bool(), numbers))
        try:
            yield
        finally:
            _current.reset(token)

    @torch.no_grad()
    def record(self, layer: MoELoraLinear, x: Tensor, omega: Tensor) -> None:
        """Count one layer's inputs and what its router says of them; called by the layer.

        Args:
            layer: whose inputs they are.
            x: the inputs [..., d].
            omega: ω over all experts, a row for each group of as many tokens in a row [groups, n].
        """
        place, watched = self.layers.get(id(layer)), _current.get()
        if place is None or watched is None:
            return
        valid = watched.valid if layer.padded else None
        if valid is not None and valid.shape != x.shape[:-1]:
            return
        with at_full_precision(x):
            energy = self._energy_of(x)
            if place.first_of_input and place.input_key in self.trackers:
                self._track(self.trackers[place.input_key], x, valid, energy, watched)
            counted = watched.once(
                ("tokens", valid is None, len(energy)),
                lambda: Counted.of(torch.ones_like(energy, dtype=torch.bool) if valid is None else valid.reshape(-1)),
            )
            self._record_routing(place.row, spread(omega, len(energy)), energy, counted)

    @staticmethod
    def _track(tracker: CovarianceTracker, x: Tensor, valid: Tensor | None, energy: Tensor, watched: Watch) -> None:
        numbers = watched.numbers
        if numbers is None or x.dim() != 3 or len(numbers) != len(x):
            tracker.update(x, valid, energy)
            return
        slots = watched.once(
            ("slots", valid is None, x.shape[:2], tracker.token_stride), lambda: tracker.slots(x.shape, valid, numbers)
        )
        tracker.update(x, valid, energy, numbers, slots)

    def _energy_of(self, x: Tensor) -> Tensor:
        """‖x‖² of each token, computed once for all layers that read this tensor [tokens]."""
        if self._read is None or self._read[0]() is not x:
            rows = x.detach().reshape(-1, x.shape[-1])
            self._read = ref(x), squared_norms(rows, torch.promote_types(x.dtype, torch.float32))
        return self._read[1]

    def _record_routing(self, row: int, omega: Tensor, energy: Tensor, counted: Counted) -> None:
        valid = counted.valid
        if self.argmax:
            self.largest[row].index_add_(0, omega.argmax(-1), counted.ones)
        omega = torch.where(valid[:, None], omega, omega.new_zeros(()))
        self.weight[row] += omega.sum(0)
        self.energy[row] += torch.where(valid, energy, energy.new_zeros(())).to(omega.dtype) @ omega
        self.tokens[row] += counted.number

    def reduce(self, all_reduce: Callable[[Tensor], None], rank: int = 0, world: int = 1) -> None:
        """Sum over processes, in place.

        Args:
            all_reduce: sums a tensor over all processes, in place.
            rank: this process's number, for covariances that are no sums.
            world: number of processes.
        """
        for name in self.FIELDS:
            all_reduce(getattr(self, name))
        for tracker in self.trackers.values():
            tracker.reduce(all_reduce, rank, world)

    def mean_weight(self) -> Tensor:
        """Mean ω of each expert [layers, n]."""
        mean: Tensor = self.weight / self.tokens.clamp_min(1)[:, None]
        return mean

    def rows(self) -> list[dict[str, object]]:
        """One row a layer and expert: layer, input_key, expert, weight, argmax_share, tokens."""
        weight, tokens = self.mean_weight().tolist(), self.tokens.tolist()
        share = (self.largest / self.tokens.clamp_min(1)[:, None]).tolist()
        return [
            {
                "layer": layer.name,
                "input_key": layer.input_key,
                "expert": expert,
                "weight": weight[layer.row][expert],
                "argmax_share": share[layer.row][expert],
                "tokens": int(tokens[layer.row]),
            }
            for layer in self.layers.values()
            for expert in range(self.weight.shape[1])
        ]

    def state_dict(self) -> dict[str, Tensor]:
        return {name: getattr(self, name).clone() for name in self.FIELDS}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        for name in self.FIELDS:
            getattr(self, name).copy_(state[name])


class EntropyObservation(Observation):
    """Also how spread the routing of single tokens is, which their mean ω does not tell."""

    FIELDS = (*Observation.FIELDS, "entropy")

    def __init__(self, model: nn.Module, input_key: Callable[[str], str]) -> None:
        super().__init__(model, input_key)
        self.entropy = torch.zeros_like(self.tokens)

    def _record_routing(self, row: int, omega: Tensor, energy: Tensor, counted: Counted) -> None:
        super()._record_routing(row, omega, energy, counted)
        each = entropy(omega.double())
        self.entropy[row] += torch.where(counted.valid, each, each.new_zeros(())).sum()

    def entropies(self) -> dict[str, Any]:
        """Mean entropy of a token's ω in bits: of each layer, and their mean."""
        bits = (self.entropy / self.tokens.clamp_min(1) / math.log(2)).tolist()
        return {"mean": sum(bits) / len(bits), "layers": dict(zip(self.names, bits, strict=True))}

    def shares(self) -> dict[str, list[float]]:
        """Mean ω of each expert, by layer."""
        return dict(zip(self.names, self.mean_weight().tolist(), strict=True))

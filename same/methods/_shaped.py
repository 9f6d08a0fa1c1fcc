"""Shared by the methods that shape one LoRA's changes by statistics of past tasks: what is counted, when it is used."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from same.errors import InputError
from same.maths.covariance import CovarianceSettings, CovarianceTracker
from same.methods._base import ROWS, Batch, Layout, Needs, Step, TaskContext
from same.methods._lora import LoraConfig, LoraMethod
from same.tuner.kernel import at_full_precision


@dataclass(frozen=True)
class ShapedConfig(LoraConfig):
    """Size of the adapter, and how covariances are stored.

    Args:
        exact_max_dim: widest input whose covariance is stored in full; wider ones by a Nyström sketch.
        sketch_size: directions that a sketch holds.
        token_stride: one in so many valid tokens counts.
    """

    exact_max_dim: int = CovarianceSettings.exact_max_dim
    sketch_size: int = CovarianceSettings.sketch_size
    token_stride: int = CovarianceSettings.token_stride

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("sketch_size", "token_stride"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1; got {getattr(self, name)}.")
        if self.exact_max_dim < 0:
            raise InputError(f"exact_max_dim must be at least 0 (a sketch always); got {self.exact_max_dim}.")

    @property
    def storage(self) -> CovarianceSettings:
        return CovarianceSettings(
            exact_max_dim=self.exact_max_dim, sketch_size=self.sketch_size, token_stride=self.token_stride
        )


@dataclass
class ShapedLayer:
    """An adapted layer: its factors A [r, d] and B [m, r], and the key of the input that it reads."""

    key: str
    a: nn.Parameter
    b: nn.Parameter
    before: list[Tensor] = field(default_factory=list)


class ShapedMethod(LoraMethod):
    """One LoRA whose gradients and finished updates are shaped alike, from the second task on.

    Only forward passes of training are counted, and of these the valid tokens; each distinct input once.
    """

    Config = ShapedConfig
    parity = "lora"
    outputs: ClassVar[bool] = False  # True: the gradients of the layers' outputs are counted too

    def attach(self, model: nn.Module, backbone: Layout) -> nn.Module:
        attached = super().attach(model, backbone)
        self.shaped: dict[str, ShapedLayer] = {}
        self.current: dict[str, CovarianceTracker] = {}
        self._watched: tuple[Tensor, Tensor | None] | None = None
        self._widths: dict[str, int] = {}
        base: nn.Module = self.attached.get_base_model()
        for name, layer in base.named_modules():
            if isinstance(layer, LoraLayer):
                padded = backbone.unpadded is None or not re.fullmatch(backbone.unpadded, name)
                self._watch(name, backbone.input_key(name), layer, padded)
        return attached

    def _watch(self, name: str, key: str, layer: LoraLayer, padded: bool) -> None:
        factors = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        self.shaped[name] = ShapedLayer(key, *factors)
        module: Any = layer
        if key not in self._widths:
            self._widths[key] = layer.in_features
            module.register_forward_pre_hook(lambda _, given: self._count(key, given[0], padded))
        if self.outputs:
            self._widths[name] = layer.out_features
            module.register_forward_hook(lambda _, __, output: self._count_gradient(name, output, padded))

    @torch.no_grad()
    def _count(self, key: str, x: Tensor, padded: bool, watched: tuple[Tensor, Tensor | None] | None = None) -> None:
        watched = watched or self._watched
        if watched is None:
            return
        valid, rows = watched
        if padded and valid.shape != x.shape[:-1]:
            return
        numbered = rows if x.dim() == 3 and rows is not None and len(rows) == len(x) else None
        with at_full_precision(x):
            self.current[key].update(x, valid if padded else None, streams=numbered)

    def _count_gradient(self, name: str, output: Tensor, padded: bool) -> None:
        watched = self._watched
        if watched is not None and output.requires_grad:
            # What is averaged over processes is, on each of them, so many times its part.
            output.register_hook(lambda gradient: self._count(name, gradient / self._world, padded, watched))

    @contextmanager
    def _watching(self, batch: Batch) -> Iterator[None]:
        self._watched = batch["attention_mask"].bool(), batch.get(ROWS)
        try:
            yield
        finally:
            self._watched = None

    def forward_context(self, batch: Batch) -> AbstractContextManager[None]:
        return self._watching(batch)

    def begin_task(self, task: TaskContext) -> None:
        self.current, self._world = self.trackers(), task.world
        self.acts = task.index > 0
        self.prepare()

    def trackers(self) -> dict[str, CovarianceTracker]:
        """Empty trackers of all that is counted."""
        place = next(iter(self.weights.values())).device
        return {key: self.config.storage.tracker(width, device=place) for key, width in self._widths.items()}

    def needs(self) -> Needs:
        """Sums of past and present; a basis of the past is no larger."""
        kept = sum(each.nbytes for tracker in self.trackers().values() for each in tracker.state_dict().values())
        return Needs(device=2 * kept, snapshot=kept)

    def end_task(self, task: TaskContext) -> None:
        for tracker in self.current.values():
            tracker.reduce(task.reduce, task.rank, task.world)
        self.consolidate()
        self.current = {}

    @torch.no_grad()
    def before_step(self, step: Step) -> None:
        if not self.acts:
            return
        for name, layer in self.shaped.items():
            layer.before = [layer.a.detach().clone(), layer.b.detach().clone()]
            if layer.a.grad is not None and layer.b.grad is not None:
                a, b = self.shape(name, layer, layer.a.grad, layer.b.grad)
                layer.a.grad.copy_(a)
                layer.b.grad.copy_(b)

    @torch.no_grad()
    def after_step(self, step: Step) -> None:
        if not self.acts:
            return
        for name, layer in self.shaped.items():
            old_a, old_b = layer.before
            new_a, new_b = layer.a.detach().clone(), layer.b.detach().clone()
            layer.a.copy_(old_a)  # rules that ask for the factors get those the step began with
            layer.b.copy_(old_b)
            a, b = self.shape(name, layer, new_a - old_a, new_b - old_b)
            layer.a.add_(a)
            layer.b.add_(b)
            layer.before = []

    def prepare(self) -> None:
        """Make the rules of a task from what is known of the past."""

    @abstractmethod
    def consolidate(self) -> None:
        """Take what the task counted, in `current`, into what is known of the past."""

    @abstractmethod
    def shape(self, name: str, layer: ShapedLayer, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """Changes of A and B as the rule lets them pass."""

"""What a row is about, by the backbone's own frozen parts: its instruction and its picture as one vector each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from same.data.collate import IGNORED
from same.methods._base import Batch, Reduce


@torch.no_grad()
def instruction_features(model: nn.Module, batch: Batch) -> Tensor:
    """Mean input embedding of each row's words, without answers and pictures [rows, width]."""
    anyone: Any = model
    words = batch["attention_mask"].bool() & (batch["input_ids"] != _image_token(model))
    if "labels" in batch:
        words &= batch["labels"] == IGNORED
    embedded: Tensor = anyone.get_input_embeddings()(batch["input_ids"]).float()
    return (embedded * words[..., None]).sum(1) / words.sum(1, keepdim=True).clamp_min(1)


@torch.no_grad()
def image_features(model: nn.Module, batch: Batch) -> Tensor:
    """Mean of what the language model is given of each row's pictures; 0 for a row without [rows, width]."""
    anyone: Any = model
    ids = batch["input_ids"]
    width = anyone.get_input_embeddings().weight.shape[1]
    if "pixel_values" not in batch:
        return torch.zeros(len(ids), width, device=ids.device)
    given: dict[str, Tensor] = {}

    def listen(_: nn.Module, __: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        given["embeds"] = named["inputs_embeds"]
        raise _Heard

    base: Any = getattr(model, "get_base_model", lambda: model)()
    handle = base.model.language_model.register_forward_pre_hook(listen, with_kwargs=True)
    try:
        anyone(**{name: value for name, value in batch.items() if name != "labels"}, use_cache=False)
    except _Heard:
        pass
    finally:
        handle.remove()
    pictures = (ids == _image_token(model))[..., None]
    return (given["embeds"].float() * pictures).sum(1) / pictures.sum(1).clamp_min(1)


class _Heard(Exception):
    """What was listened for has come by."""


def _image_token(model: nn.Module) -> int:
    config: Any = model.config
    return int(config.image_token_id)


FEATURES = {"instruction": instruction_features, "image": image_features}


class Anchors:
    """The mean feature of each task's training rows.

    Args:
        centre: compare features after taking the mean anchor away, from two tasks on: what all instructions share
            (the chat template's words) otherwise drowns what tells them apart.
    """

    def __init__(self, centre: bool = True) -> None:
        self.centre = centre
        self.means = torch.empty(0, 0)
        self._sum: Tensor | None = None
        self._rows = 0

    def add(self, features: Tensor) -> None:
        """Count rows of the task that trains [rows, width]."""
        total = features.sum(0)
        self._sum = total if self._sum is None else self._sum + total
        self._rows += len(features)

    def close(self, reduce: Reduce, width: int, device: torch.device) -> None:
        """The task has ended: its mean, over all processes, is the next anchor."""
        total = torch.zeros(width + 1, device=device)
        if self._sum is not None:
            total[:-1] = self._sum
        total[-1] = self._rows
        reduce(total)
        mean = (total[:-1] / total[-1].clamp_min(1))[None]
        self.means = mean if not len(self.means) else torch.cat([self.means, mean])
        self._sum, self._rows = None, 0

    def similarity(self, features: Tensor) -> Tensor:
        """Cosine of each row with each anchor [rows, tasks]."""
        shift = self.means.mean(0) if self.centre and len(self.means) > 1 else torch.zeros_like(self.means[0])
        return functional.cosine_similarity((features - shift)[:, None], (self.means - shift)[None], dim=-1)

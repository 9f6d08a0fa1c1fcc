"""What a row is about: its instruction and its pictures as one vector each, by frozen parts alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModel, AutoTokenizer

from same.backbones._base import checkpoint_digest
from same.data.collate import IGNORED
from same.errors import InputError
from same.methods._base import ROWS, Batch, Method, MethodConfig, Reduce


@dataclass(frozen=True)
class FeatureConfig(MethodConfig):
    """Where the features of instructions come from.

    Args:
        encoder: folder or hub name of a text encoder whose mean last state is an instruction's feature (none: the mean
            of the backbone's own input embeddings).
    """

    encoder: str | None = None

    def described(self) -> dict[str, Any]:
        return {**super().described(), "encoder": self.encoder and checkpoint_digest(self.encoder)}


class FeatureMethod(Method):
    """A method that chooses by what a row is about."""

    kinds: ClassVar[tuple[str, ...]] = ("image", "instruction")  # of features that it looks at

    def __init__(self, config: MethodConfig | None = None) -> None:
        super().__init__(config)
        self._encoder = None if self.config.encoder is None else TextEncoder(self.config.encoder)

    def features(self, batch: Batch) -> dict[str, Tensor]:
        """By kind, of each row [rows, width]."""
        if self.model is None:
            raise RuntimeError("attach(model, backbone) must be called first.")
        given = {kind: image_features(self.model, batch) for kind in self.kinds if kind == "image"}
        if "instruction" in self.kinds:
            embed = instruction_features if self._encoder is None else self._encoder.features
            given["instruction"] = embed(self.model, batch)
        return given

    def widths(self, model: nn.Module) -> dict[str, int]:
        """By kind, of the features beside a model."""
        anyone: Any = model
        own = int(anyone.get_input_embeddings().weight.shape[1])
        read = own if self._encoder is None else self._encoder.width
        return {kind: read if kind == "instruction" else own for kind in self.kinds}


def words_of(model: nn.Module, batch: Batch) -> Tensor:
    """Which tokens are words of an instruction: no answers, pictures or padding [rows, tokens]."""
    words = batch["attention_mask"].bool() & (batch["input_ids"] != _image_token(model))
    return words & (batch["labels"] == IGNORED) if "labels" in batch else words


@torch.no_grad()
def instruction_features(model: nn.Module, batch: Batch) -> Tensor:
    """Mean input embedding of each row's words [rows, width]."""
    anyone: Any = model
    words = words_of(model, batch)
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
        anyone(**{name: value for name, value in batch.items() if name not in ("labels", ROWS)}, use_cache=False)
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


class TextEncoder:
    """A frozen encoder of sentences.

    Args:
        name: folder or hub name.

    Raises:
        InputError: it is not there.
    """

    def __init__(self, name: str) -> None:
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(name)
            self._encoder: Any = AutoModel.from_pretrained(name).eval().requires_grad_(False)
        except (OSError, ValueError) as error:
            raise InputError(
                f"encoder must be a text encoder in a folder, or on the hub and reachable; {name!r} is not "
                f"({str(error).splitlines()[0]}). Download it first, or leave encoder out for the backbone's own words."
            ) from None
        self.width = int(self._encoder.config.hidden_size)
        self._words: Any = None  # the backbone's tokenizer

    @torch.no_grad()
    def features(self, model: nn.Module, batch: Batch) -> Tensor:
        """Mean last state of each row's instruction [rows, width]."""
        if self._words is None:
            base: Any = getattr(model, "get_base_model", lambda: model)()
            self._words = AutoTokenizer.from_pretrained(base.name_or_path)
        ids, words = batch["input_ids"], words_of(model, batch)
        said = [self._words.decode(row[kept], skip_special_tokens=True) for row, kept in zip(ids, words, strict=True)]
        found = self._tokenizer(said, padding=True, truncation=True, return_tensors="pt").to(ids.device)
        states: Tensor = self._encoder.to(ids.device)(**found).last_hidden_state.float()
        mask = found["attention_mask"][..., None]
        mean: Tensor = (states * mask).sum(1) / mask.sum(1).clamp_min(1)
        return mean


class Anchors:
    """The mean feature of each task's training rows.

    Args:
        width: of a feature.
        centre: compare features after taking the mean anchor away, from two tasks on: what all instructions share
            (the chat template's words) otherwise drowns what tells them apart.
    """

    def __init__(self, width: int, centre: bool = True) -> None:
        self.width, self.centre = width, centre
        self.means = torch.empty(0, width)
        self._sum: Tensor | None = None
        self._rows = 0

    def add(self, features: Tensor) -> None:
        """Count rows of the task that trains [rows, width]."""
        total = features.sum(0)
        self._sum = total if self._sum is None else self._sum + total
        self._rows += len(features)

    def close(self, reduce: Reduce, device: torch.device) -> None:
        """The task has ended: its mean, over all processes, is the next anchor."""
        total = torch.zeros(self.width + 1, device=device)
        if self._sum is not None:
            total[:-1] = self._sum
        total[-1] = self._rows
        reduce(total)
        self.means = torch.cat([self.means.to(device), (total[:-1] / total[-1].clamp_min(1))[None]])
        self._sum, self._rows = None, 0

    def similarity(self, features: Tensor) -> Tensor:
        """Cosine of each row with each anchor [rows, tasks]."""
        shift = self.means.mean(0) if self.centre and len(self.means) > 1 else torch.zeros_like(self.means[0])
        return functional.cosine_similarity((features - shift)[:, None], (self.means - shift)[None], dim=-1)

"""A few prompt tokens for each task; those whose task is most like the question come before it.

A prompt P_t [length, d] is read by two small networks φ as an image prototype and an instruction prototype. A row with
features f_I, f_T and task t have the likeness

    a_t = λ cos(φ_I(P_t), f_I) + (1 − λ) cos(φ_T(P_t), f_T) ,

and the prompts of the k tasks with the largest come before the row's tokens, the best first. In training the task's own
prompt stands there, and

    loss + (1 − cos(φ_I(P_t), f_I)) + (1 − cos(φ_T(P_t), f_T))

draws its prototypes to its rows. Prompts and networks of past tasks are frozen.

Source: Zeng et al., "ModalPrompt: dual-modality guided prompt for continual learning of large multimodal models", EMNLP
2025. Features are the backbone's own (projected patches, input embeddings of the words) instead of CLIP's encoders;
each task has its own pair of networks, so that an old task's likeness does not move.

Logged: `alignment`, the two terms' sum in the last step reported.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from same.data.collate import IGNORED
from same.errors import InputError, SnapshotError
from same.methods._base import Batch, Layout, Needs, TaskContext
from same.methods._features import FeatureConfig, FeatureMethod


class Prompt(nn.Module):
    """One task's prompt and the networks that read it."""

    def __init__(self, tokens: Tensor, hidden: int, widths: Mapping[str, int]) -> None:
        super().__init__()
        self.tokens = nn.Parameter(tokens)
        self.image, self.instruction = (
            nn.Sequential(nn.Linear(tokens.shape[1], hidden), nn.GELU(), nn.Linear(hidden, widths[kind]))
            for kind in ("image", "instruction")
        )

    def prototypes(self) -> tuple[Tensor, Tensor]:
        """Of images and of instructions [width]."""
        mean = self.tokens.mean(0)
        return self.image(mean), self.instruction(mean)


class ModalPrompt(FeatureMethod):
    """ModalPrompt."""

    title = "ModalPrompt"
    paper = "Zeng et al., ModalPrompt: dual-modality guided prompt for continual learning, EMNLP 2025"
    notes = "Adapts no layer: prompts stand before the tokens, chosen by likeness, not by a task's number."
    budget_reason = "trains prompt tokens and small networks, which have far fewer parameters than adapted layers"

    rate = 50.0  # a few tokens must move far

    @dataclass(frozen=True)
    class Config(FeatureConfig):
        """Size of the prompts, and how they are chosen.

        Args:
            length: tokens of a task's prompt.
            chosen: prompts that stand before a row at inference, at most.
            balance: λ, the weight of the image's likeness beside the instruction's.
            hidden: width of the networks that read a prompt.
        """

        length: int = 10
        chosen: int = 3
        balance: float = 0.5
        hidden: int = 64

        def __post_init__(self) -> None:
            super().__post_init__()
            for name in ("length", "chosen", "hidden"):
                if getattr(self, name) < 1:
                    raise InputError(f"{name} must be at least 1; got {getattr(self, name)}.")
            if not 0 <= self.balance <= 1:
                raise InputError(f"balance must lie in [0, 1]; got {self.balance}.")

    def attach(self, model: nn.Module, backbone: Layout) -> nn.Module:
        attached: Any = super().attach(model, backbone)
        self.prompts = nn.ModuleList([self._new_prompt()])
        attached.modal_prompts = self.prompts  # so that optimiser and devices find them
        self._shown: Tensor | None = None  # [rows or 1, tokens, width] before each row
        self._features: tuple[Tensor, Tensor] | None = None
        self._training: Any = None  # the prompt that trains, while its own forward passes come
        self._prototypes: tuple[Tensor, Tensor] | None = None  # of it
        self._alignment: Tensor | None = None
        language = attached.model.language_model
        language.register_forward_pre_hook(self._prepend, with_kwargs=True)
        language.register_forward_hook(self._cut, with_kwargs=True)
        return model

    def _new_prompt(self) -> Prompt:
        embeddings: Any = self.model
        weight = embeddings.get_input_embeddings().weight
        noise = torch.randn(self.config.length, weight.shape[1], device=weight.device)
        tokens = weight.detach().float().std() * noise
        return Prompt(tokens, self.config.hidden, self.widths(embeddings)).to(weight.device)

    def begin_task(self, task: TaskContext) -> None:
        self.prompts.requires_grad_(False)
        while len(self.prompts) <= task.index:
            self.prompts.append(self._new_prompt())
        self.prompts[-1].requires_grad_(True)

    def forward_context(self, batch: Batch) -> AbstractContextManager[None]:
        self._features = self._features_of(batch)
        self._training = self.prompts[-1]
        return nullcontext()

    def _features_of(self, batch: Batch) -> tuple[Tensor, Tensor]:
        self._shown = self._training = None
        found = self.features(batch)
        return found["image"], found["instruction"]

    def loss(self, loss: Tensor, batch: Batch) -> Tensor:
        if self._features is None or self._prototypes is None:
            return loss
        pairs = zip(self._prototypes, self._features, strict=True)
        tokens = (batch["labels"][:, 1:] != IGNORED).sum(1).float()  # rows weigh as in the loss, on any process
        likeness = torch.stack([functional.cosine_similarity(own[None], rows) for own, rows in pairs])
        alignment = ((1 - likeness) * tokens / tokens.sum().clamp_min(1)).sum()
        self._alignment = alignment.detach()
        return loss + alignment

    @torch.no_grad()
    def route(self, batch: Batch) -> None:
        rows = self._features_of(batch)
        prompts: Any = self.prompts
        prototypes = [torch.stack(each) for each in zip(*(prompt.prototypes() for prompt in prompts), strict=True)]
        likeness = [
            functional.cosine_similarity(f[:, None], p[None], dim=-1) for f, p in zip(rows, prototypes, strict=True)
        ]
        weighed = self.config.balance * likeness[0] + (1 - self.config.balance) * likeness[1]
        best = weighed.topk(min(self.config.chosen, len(prompts)), dim=1).indices
        tokens = torch.stack([prompt.tokens for prompt in prompts])
        self._shown = tokens[best].flatten(1, 2)

    def _prepend(self, _: nn.Module, args: Any, given: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
        """Put the prompts before the tokens of a first pass, and make room for them in a cached one."""
        if self._training is not None:
            self._prototypes = self._training.prototypes()
            graph = sum(prototype.sum() for prototype in self._prototypes)
            self._shown = self._training.tokens[None] + 0 * graph  # or DDP takes the networks for unused
        if self._shown is None:
            return None
        inputs, mask, cache = given["inputs_embeds"], given.get("attention_mask"), given.get("past_key_values")
        given = dict(given)
        count = self._shown.shape[1]
        first = cache is None or not cache.get_seq_length()
        if mask is not None:
            given["attention_mask"] = torch.cat([mask.new_ones(len(mask), count), mask], 1)
        if given.get("position_ids") is not None:
            places = given["position_ids"] + count
            if first:
                before = torch.arange(count, device=places.device).expand(*places.shape[:-1], count)
                places = torch.cat([before, places], -1)
            given["position_ids"] = places
        if first:
            shown = self._shown.expand(len(inputs), -1, -1).to(inputs.dtype)
            given["inputs_embeds"] = torch.cat([shown, inputs], 1)
        return args, given

    def _cut(self, _: nn.Module, args: Any, given: dict[str, Any], output: Any) -> Any:
        """Leave out what the language model made of the prompts themselves."""
        count = 0 if self._shown is None else self._shown.shape[1]
        if count and given["inputs_embeds"].shape[1] > count and output.last_hidden_state.shape[1] > count:
            output.last_hidden_state = output.last_hidden_state[:, count:]
        return output

    def step_metrics(self) -> dict[str, Any]:
        return {} if self._alignment is None else {"alignment": float(self._alignment)}

    def needs(self) -> Needs:
        size = sum(parameter.nbytes for parameter in self.prompts[0].parameters())
        return Needs(device_per_task=size, snapshot_per_task=size)

    def state_dict(self) -> dict[str, Tensor]:
        return {name: value.clone() for name, value in self.prompts.state_dict().items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        count = 1 + max((int(name.partition(".")[0]) for name in state), default=-1)
        del self.prompts[:]
        self.prompts.extend(self._new_prompt() for _ in range(count))
        self.prompts[:-1].requires_grad_(False)
        try:
            self.prompts.load_state_dict(dict(state))
        except RuntimeError as error:
            raise SnapshotError(
                f"the method's state must hold prompts of these sizes; {error}. Use the snapshot of a run with the "
                "same method and settings."
            ) from None

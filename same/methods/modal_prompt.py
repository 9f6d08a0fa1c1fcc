"""A few prompt tokens for each task; those whose task is most like the question come before it.

A prompt P_t [length, d] is read by two small networks φ as an image prototype and an instruction prototype. A row with
features f_I, f_T and task t have the likeness

    a_t = λ cos(φ_I(P_t) − m_I, f_I − m_I) + (1 − λ) cos(φ_T(P_t) − m_T, f_T − m_T)

of directions (vectors of length 1), m their mean over the prototypes. The prompts of the k tasks with the largest come
before the row's tokens, the best nearest to them. In training the task's own prompt stands there, after the k − 1 past
ones most like the row, and

    loss + (1 − cos(φ_I(P_t), f_I)) + (1 − cos(φ_T(P_t), f_T))

draws its prototypes to its rows. Prompts and networks of past tasks are frozen.

Source: Zeng et al., "ModalPrompt: dual-modality guided prompt for continual learning of large multimodal models", EMNLP
2025; the order of prompts and their beginning, at embeddings of random words, by its published code. Features are the
backbone's own (projected patches, input embeddings of the words) instead of CLIP's encoders, and all rows share the
words of the chat template: hence m, which the paper does not take away. Each task has its own pair of networks, so that
an old task's likeness does not move. Published runs take ten epochs: here a prompt moves `REACH` times as far as the
optimiser's steps say.

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

REACH = 50.0
"""How much farther a prompt moves than the optimiser's steps say: published runs take ten epochs."""


class Prompt(nn.Module):
    """One task's prompt and the networks that read it.

    Args:
        tokens: where the prompt begins [length, d].
        hidden: width of the networks.
        widths: of the features, by kind.
    """

    start: Tensor

    def __init__(self, tokens: Tensor, hidden: int, widths: Mapping[str, int]) -> None:
        super().__init__()
        self.register_buffer("start", tokens)
        self.moves = nn.Parameter(torch.zeros_like(tokens))
        self.image, self.instruction = (
            nn.Sequential(nn.Linear(tokens.shape[1], hidden), nn.GELU(), nn.Linear(hidden, widths[kind]))
            for kind in ("image", "instruction")
        )

    @property
    def tokens(self) -> Tensor:
        """The prompt [length, d]."""
        return self.start + REACH * self.moves

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

    @dataclass(frozen=True)
    class Config(FeatureConfig):
        """Size of the prompts, and how they are chosen.

        Args:
            length: tokens of a task's prompt.
            chosen: prompts that stand before a row, at most.
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
        self._shown: Tensor | None = None  # [rows, tokens, width] before each row
        self._past: Tensor | None = None  # the part of it that does not train
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
        weight = embeddings.get_input_embeddings().weight.detach()
        words = torch.randint(len(weight), (self.config.length,), device=weight.device)
        return Prompt(weight[words].float(), self.config.hidden, self.widths(embeddings)).to(weight.device)

    def begin_task(self, task: TaskContext) -> None:
        self.prompts.requires_grad_(False)
        while len(self.prompts) <= task.index:
            self.prompts.append(self._new_prompt())
        self.prompts[-1].requires_grad_(True)

    def forward_context(self, batch: Batch) -> AbstractContextManager[None]:
        self._features = self._features_of(batch)
        past = len(self.prompts) - 1
        self._past = self._nearest(self._features, past, self.config.chosen - 1)
        self._training = self.prompts[past]
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

    def route(self, batch: Batch) -> None:
        self._shown = self._nearest(self._features_of(batch), len(self.prompts), self.config.chosen)

    @torch.no_grad()
    def _nearest(self, features: tuple[Tensor, Tensor], first: int, most: int) -> Tensor:
        """Of the first prompts those most like each row, the best last [rows, tokens, width]."""
        prompts: Any = self.prompts
        prototypes = zip(*(prompt.prototypes() for prompt in prompts), strict=True)
        image, words = (_likeness(f, torch.stack(p)) for f, p in zip(features, prototypes, strict=True))
        weighed = self.config.balance * image + (1 - self.config.balance) * words
        best = weighed[:, :first].topk(min(most, first), dim=1).indices.flip(1)
        return torch.stack([prompt.tokens for prompt in prompts])[best].flatten(1, 2)

    def _prepend(self, _: nn.Module, args: Any, given: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
        """Put the prompts before the tokens of a first pass, and make room for them in a cached one."""
        if self._training is not None:
            self._prototypes = self._training.prototypes()
            graph = sum(prototype.sum() for prototype in self._prototypes)
            own = self._training.tokens[None] + 0 * graph  # or DDP takes the networks for unused
            self._shown = own if self._past is None else torch.cat([self._past, own.expand(len(self._past), -1, -1)], 1)
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


def _likeness(features: Tensor, prototypes: Tensor) -> Tensor:
    """Cosine of rows with tasks, after what all tasks have in common is taken away [rows, tasks]."""
    rows, tasks = functional.normalize(features, dim=-1), functional.normalize(prototypes, dim=-1)
    mean = tasks.mean(0) if len(tasks) > 1 else torch.zeros_like(tasks[0])
    return functional.cosine_similarity((rows - mean)[:, None], (tasks - mean)[None], dim=-1)

"""Conversations about pictures in few tokens: turns share the picture's tokens and are blind to each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerFast

from same.data.collate import IGNORED

Turn = tuple[list[int], list[int]]  # token ids of question and answer
BLOCK = 16  # batches that are cut from pictures sorted by length together
SHARED, PADDING = -2, -1  # turn numbers of the prefix with the picture, and of padding


@dataclass(frozen=True)
class Packed:
    """What follows prefix and picture, for a batch of pictures.

    Args:
        ids: [B, S] token ids.
        positions: [B, S] position of each token as if its turn stood alone.
        turns: [B, S] number of its turn, PADDING where there is none.
        labels: [B, S] the next token where it belongs to an answer, IGNORED elsewhere.
    """

    ids: Tensor
    positions: Tensor
    turns: Tensor
    labels: Tensor


def tokenise(tokenizer: PreTrainedTokenizerFast, talk: Sequence[Sequence[tuple[str, str]]]) -> list[list[Turn]]:
    """Each turn as the chat template writes it after the picture."""
    known: dict[str, list[int]] = {}

    def encode(text: str) -> list[int]:
        if text not in known:
            known[text] = tokenizer(text, add_special_tokens=False)["input_ids"]
        return known[text]

    return [[(encode(f"\n{q} ASSISTANT:"), encode(f" {a}</s>")) for q, a in turns] for turns in talk]


def some_turns(generator: np.random.Generator, turns: Sequence[Turn], most: int) -> list[Turn]:
    """At most so many of a picture's turns, chosen at random."""
    return [turns[i] for i in generator.permutation(len(turns))[:most]]


def alike(generator: np.random.Generator, talk: Sequence[Sequence[Turn]], size: int) -> Iterator[np.ndarray]:
    """One epoch of batches whose pictures have conversations of like length, so that little is padding."""
    lengths = np.array([sum(len(q) + len(a) for q, a in turns) for turns in talk])
    order = generator.permutation(len(talk))
    for start in range(0, len(order) - BLOCK * size + 1, BLOCK * size):
        block = order[start : start + BLOCK * size]
        block = block[np.argsort(lengths[block], kind="stable")]
        for piece in generator.permutation(BLOCK):
            yield block[piece * size : (piece + 1) * size]


def pack(talk: Sequence[Sequence[Turn]], offset: int, padding: int) -> Packed:
    """Lay out turns side by side; ``offset`` is the length of prefix and picture, ``padding`` the pad token's id."""
    length = max(sum(len(q) + len(a) for q, a in turns) for turns in talk)
    ids = torch.full((len(talk), length), padding)
    positions, numbers, labels = torch.zeros_like(ids), torch.full_like(ids, PADDING), torch.full_like(ids, IGNORED)
    for row, turns in enumerate(talk):
        at = 0
        for number, (question, answer) in enumerate(turns):
            tokens = question + answer
            end = at + len(tokens)
            ids[row, at:end] = torch.tensor(tokens)
            positions[row, at:end] = offset + torch.arange(len(tokens))
            numbers[row, at:end] = number
            labels[row, at + len(question) - 1 : end - 1] = torch.tensor(answer)
            at = end
    return Packed(ids, positions, numbers, labels)


def packed_loss(
    model: LlavaForConditionalGeneration, prefix: Tensor, features: Tensor, packed: Packed, shown: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Cross entropy over the answers, and the share of their tokens that come first.

    Args:
        model: gives projector, language model and head; its vision tower is not run.
        prefix: [P] token ids that stand before each picture.
        features: [B, patches, width] what the vision tower made of each picture.
        packed: the turns.
        shown: [B, patches] the token that names what each patch shows; adds half the cross entropy of saying it at
            the patch's own place, which ties what the tower sees to the words for it.
    """
    llama, size = model.model.language_model, len(features)
    seen = len(prefix) + features.shape[1]
    before = llama.embed_tokens(prefix).expand(size, -1, -1)
    inputs = torch.cat([before, model.model.multi_modal_projector(features), llama.embed_tokens(packed.ids)], 1)
    positions = torch.cat([torch.arange(seen).expand(size, -1), packed.positions], 1)
    turns = torch.cat([torch.full((size, seen), SHARED), packed.turns], 1)
    causal = torch.ones(inputs.shape[1], inputs.shape[1], dtype=torch.bool).tril()
    visible = (turns[:, :, None] == turns[:, None, :]) | (turns[:, None, :] == SHARED)
    # Additive, not Boolean: eager attention adds whatever it is given.
    mask = torch.zeros((), dtype=inputs.dtype).expand(size, 1, *causal.shape)
    mask = mask.masked_fill(~(causal & visible)[:, None], torch.finfo(inputs.dtype).min)
    hidden = llama(inputs_embeds=inputs, position_ids=positions, attention_mask=mask, use_cache=False).last_hidden_state
    wanted = packed.labels != IGNORED
    logits, targets = model.lm_head(hidden[:, seen:][wanted]).float(), packed.labels[wanted]
    loss = functional.cross_entropy(logits, targets)
    if shown is not None:
        named = model.lm_head(hidden[:, len(prefix) : seen]).float()
        loss = loss + 0.5 * functional.cross_entropy(named.flatten(0, 1), shown.flatten())
    return loss, (logits.argmax(-1) == targets).float().mean()

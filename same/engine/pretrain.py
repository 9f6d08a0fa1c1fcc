"""The recipe of the embedded backbone, tiny-llava: from packaged data to a checkpoint in Hugging Face layout.

1. The vision tower learns what is where: for each patch the label, colour and box of the thing it belongs to.
2. Projector and language model learn to talk about the tower's features: captions and questions with whole-sentence
   answers. The questions about one picture share its image tokens in one sequence and do not see each other.

Only the training sources are used, and no answer has a benchmark's format.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm.auto import tqdm
from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerFast
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from same.backbones._tiny import IMAGE_TOKENS, PATCH, SIDE, build_model, build_processor, build_tokenizer
from same.data import mini
from same.data.mini._world import HUES, Sample

T = TypeVar("T")
TASKS = ("scienceqa", "textvqa", "imagenet", "gqa", "vizwiz", "grounding", "vqav2", "ocrvqa")
WEIGHTS = {"scienceqa": 1.5, "textvqa": 1.0, "imagenet": 0.8, "gqa": 1.5, "vizwiz": 0.8, "grounding": 1.2, "vqav2": 1.2, "ocrvqa": 1.0}
HELD_OUT = 10_000_000  # first index of the held-out pictures: training sources, other draws
GRID = SIDE // PATCH


@dataclass(frozen=True)
class Recipe:
    """Settings of the two stages; one unit of ``pictures`` is shared over the tasks by WEIGHTS."""

    seed: int = 0
    pictures: int = 40_000
    held_out: int = 1_600
    tower_epochs: float = 3.0
    tower_batch: int = 64
    tower_rate: float = 1e-3
    language_steps: int = 4_000
    language_batch: int = 32
    language_rate: float = 2e-3
    turns: int = 4
    weight_decay: float = 0.02
    minutes: float = 0.0  # a limit for each stage's schedule; 0 means by steps alone


@dataclass(frozen=True)
class World:
    """Drawn pictures with what is where in them and what is said about them.

    Args:
        pictures: [N, SIDE, SIDE, 3] uint8.
        labels: [N, patches] index into ``names``.
        colours: [N, patches] index into the hues, -100 where a thing has none.
        boxes: [N, patches, 4] fractions of the sides, NaN on the backdrop.
        talk: for each picture its (question, sentence) pairs.
    """

    pictures: np.ndarray
    labels: np.ndarray
    colours: np.ndarray
    boxes: np.ndarray
    talk: list[tuple[tuple[str, str], ...]]


def _drawn(task: str, seed: int, index: int) -> Sample:
    return mini.sample(task, "train", index, seed)


def draw_world(seed: int, count: int, first: int, names: dict[str, int]) -> World:
    """Draw ``count`` pictures over the tasks; ``names`` grows by the labels met."""
    total = sum(WEIGHTS.values())
    pictures, labels, colours, boxes, talk = [], [], [], [], []
    hues = list(HUES)
    with ProcessPoolExecutor() as pool:
        for task in tqdm(TASKS, desc="drawing", leave=False):
            indices = range(first, first + round(count * WEIGHTS[task] / total))
            for sample in pool.map(partial(_drawn, task, seed + 1), indices, chunksize=256):
                pictures.append(np.asarray(sample.image))
                label = np.full((GRID, GRID), names.setdefault(f"on {sample.backdrop}", len(names)))
                colour, box = np.full((GRID, GRID), -100), np.full((GRID, GRID, 4), np.nan, np.float32)
                for part in sample.parts:
                    left, top, right, bottom = np.clip(part.box, 0, SIDE)
                    # patches whose centre lies in the part's box
                    columns = slice(max(0, math.ceil(left / PATCH - 0.5)), max(0, math.ceil(right / PATCH - 0.5)))
                    rows = slice(max(0, math.ceil(top / PATCH - 0.5)), max(0, math.ceil(bottom / PATCH - 0.5)))
                    label[rows, columns] = names.setdefault(part.label, len(names))
                    colour[rows, columns] = hues.index(part.colour) if part.colour else -100
                    box[rows, columns] = np.array([left, top, right, bottom]) / SIDE
                labels.append(label.ravel())
                colours.append(colour.ravel())
                boxes.append(box.reshape(-1, 4))
                talk.append(sample.talk)
    return World(np.stack(pictures), np.stack(labels), np.stack(colours), np.stack(boxes), talk)


def _normalised(pictures: np.ndarray) -> Tensor:
    """What the shipped processor makes of pictures that already have its size: [N, 3, SIDE, SIDE]."""
    pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
    return (pixels - torch.tensor(OPENAI_CLIP_MEAN).view(3, 1, 1)) / torch.tensor(OPENAI_CLIP_STD).view(3, 1, 1)


def _cosine(optimizer: torch.optim.Optimizer, rate: float, progress: float) -> None:
    factor = min(1.0, progress / 0.05) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    for group in optimizer.param_groups:
        group["lr"] = rate * max(factor, 0.002)


class _Log:
    """Measured rows, printed and kept for the recipe's record."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float | str]] = []
        self.start = time.monotonic()

    def add(self, stage: str, **values: float) -> None:
        row = {"stage": stage, "seconds": round(time.monotonic() - self.start, 1), **{k: round(v, 4) for k, v in values.items()}}
        self.rows.append(row)
        print(json.dumps(row), flush=True)


class TowerHeads(nn.Module):
    """Linear read-outs of each patch: label, colour and box; thrown away after the first stage."""

    def __init__(self, width: int, labels: int) -> None:
        super().__init__()
        self.label, self.colour, self.box = nn.Linear(width, labels), nn.Linear(width, len(HUES)), nn.Linear(width, 4)

    def loss(self, features: Tensor, labels: Tensor, colours: Tensor, boxes: Tensor) -> Tensor:
        """Cross entropy of label and colour plus the absolute error of the box edges."""
        loss = functional.cross_entropy(self.label(features).float().flatten(0, 1), labels.flatten())
        coloured = functional.cross_entropy(self.colour(features).float().flatten(0, 1), colours.flatten(), reduction="sum")
        error = (self.box(features).float() - boxes).abs().nansum(-1)
        return loss + 0.5 * coloured / (colours >= 0).sum().clamp(min=1) + error.sum() / (error > 0).sum().clamp(min=1)


def _features(model: LlavaForConditionalGeneration, pixels: Tensor) -> Tensor:
    hidden = model.model.vision_tower(pixels, output_hidden_states=True).hidden_states[model.config.vision_feature_layer]
    return hidden[:, 1:]


def train_tower(model: LlavaForConditionalGeneration, world: World, held: World, names: int, recipe: Recipe, log: _Log) -> None:
    """Stage 1; the tower's weights change in place."""
    heads = TowerHeads(model.config.vision_config.hidden_size, names)
    tower = model.model.vision_tower
    optimizer = torch.optim.AdamW([*tower.parameters(), *heads.parameters()], recipe.tower_rate, weight_decay=recipe.weight_decay)
    generator = np.random.default_rng(recipe.seed)
    per_epoch = len(world.pictures) // recipe.tower_batch
    steps, begun = round(recipe.tower_epochs * per_epoch), time.monotonic()
    order = np.concatenate([generator.permutation(len(world.pictures))[: per_epoch * recipe.tower_batch] for _ in range(math.ceil(recipe.tower_epochs))])
    for step in range(steps):
        progress = max(step / steps, (time.monotonic() - begun) / (60 * recipe.minutes) if recipe.minutes else 0)
        if progress >= 1:
            break
        rows = np.sort(order[step * recipe.tower_batch : (step + 1) * recipe.tower_batch])
        _cosine(optimizer, recipe.tower_rate, progress)
        pixels = _normalised(world.pictures[rows])
        targets = (torch.from_numpy(array[rows]) for array in (world.labels, world.colours, world.boxes))
        with torch.autocast("cpu", torch.bfloat16):
            loss = heads.loss(_features(model, pixels), *targets)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(tower.parameters(), 1.0)
        optimizer.step()
        if step % 100 == 99:
            log.add("tower", step=step + 1, loss=loss.item())
    with torch.no_grad():
        features = torch.cat([_features(model, _normalised(held.pictures[i : i + 128])) for i in range(0, len(held.pictures), 128)])
        labels, boxes = torch.from_numpy(held.labels), torch.from_numpy(held.boxes)
        inside = ~boxes[..., 0].isnan()
        right = (heads.label(features).argmax(-1) == labels)[inside].float().mean().item()
        error = (heads.box(features)[inside] - boxes[inside]).abs().mean().item() * SIDE
    log.add("tower held-out", patch_label_accuracy=right, box_edge_error_pixels=error)


@dataclass(frozen=True)
class Packed:
    """Conversations about a batch of pictures: turns share the picture's tokens and are blind to each other."""

    ids: Tensor  # [B, S] token ids after the shared prefix and picture
    positions: Tensor  # [B, S] position of each token as if its turn stood alone
    turns: Tensor  # [B, S] turn number, -1 for padding
    labels: Tensor  # [B, S] next-token targets, -100 outside answers


def pack(tokenizer: PreTrainedTokenizerFast, talk: list[list[tuple[list[int], list[int]]]], offset: int) -> Packed:
    """Lay out tokenised (question, answer) turns side by side; ``offset`` is the length of prefix and picture."""
    length = max(sum(len(q) + len(a) for q, a in turns) for turns in talk)
    ids = torch.full((len(talk), length), tokenizer.pad_token_id)
    positions, turn_of, labels = torch.zeros_like(ids), torch.full_like(ids, -1), torch.full_like(ids, -100)
    for row, turns in enumerate(talk):
        at = 0
        for number, (question, answer) in enumerate(turns):
            tokens = question + answer
            end = at + len(tokens)
            ids[row, at:end] = torch.tensor(tokens)
            positions[row, at:end] = offset + torch.arange(len(tokens))
            turn_of[row, at:end] = number
            labels[row, at + len(question) - 1 : end - 1] = torch.tensor(answer)
            at = end
    return Packed(ids, positions, turn_of, labels)


def _packed_loss(model: LlavaForConditionalGeneration, prefix: Tensor, features: Tensor, packed: Packed) -> tuple[Tensor, Tensor]:
    """Cross entropy over answers, and the share of answer tokens that are right."""
    llama = model.model.language_model
    size, seen = len(features), len(prefix) + IMAGE_TOKENS
    embed = llama.embed_tokens
    head = embed(prefix).expand(size, -1, -1)
    inputs = torch.cat([head, model.model.multi_modal_projector(features), embed(packed.ids)], 1)
    positions = torch.cat([torch.arange(seen).expand(size, -1), packed.positions], 1)
    turns = torch.cat([torch.full((size, seen), -2), packed.turns], 1)
    total = inputs.shape[1]
    causal = torch.ones(total, total, dtype=torch.bool).tril()
    same_turn = (turns[:, :, None] == turns[:, None, :]) | (turns[:, None, :] == -2)
    hidden = llama(inputs_embeds=inputs, position_ids=positions, attention_mask=(causal & same_turn)[:, None], use_cache=False)
    wanted = packed.labels >= 0
    logits = model.lm_head(hidden.last_hidden_state[:, seen:][wanted])
    targets = packed.labels[wanted]
    return functional.cross_entropy(logits.float(), targets), (logits.argmax(-1) == targets).float().mean()


def _tokenised(tokenizer: PreTrainedTokenizerFast, world: World) -> list[list[tuple[list[int], list[int]]]]:
    """Each turn as the chat template writes it after the picture."""
    known: dict[str, list[int]] = {}

    def encode(text: str) -> list[int]:
        if text not in known:
            known[text] = tokenizer(text, add_special_tokens=False)["input_ids"]
        return known[text]

    return [[(encode(f"\n{q} ASSISTANT:"), encode(f" {a}</s>")) for q, a in talk] for talk in world.talk]


def _some_turns(generator: np.random.Generator, turns: list[T], most: int) -> list[T]:
    return [turns[i] for i in generator.permutation(len(turns))[:most]]


def _alike(generator: np.random.Generator, talk: list[list[tuple[list[int], list[int]]]], size: int) -> Iterator[np.ndarray]:
    """One epoch of batches whose pictures have conversations of similar length, so that little is padding."""
    lengths = np.array([sum(len(q) + len(a) for q, a in turns) for turns in talk])
    order = generator.permutation(len(talk))
    for start in range(0, len(order) - 16 * size + 1, 16 * size):
        block = order[start : start + 16 * size]
        block = block[np.argsort(lengths[block], kind="stable")]
        for piece in generator.permutation(16):
            yield block[piece * size : (piece + 1) * size]


def train_language(model: LlavaForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, world: World, held: World, recipe: Recipe, log: _Log) -> None:
    """Stage 2; projector and language model change in place, the tower does not."""
    prefix = torch.tensor(tokenizer("USER: ", add_special_tokens=False)["input_ids"])
    offset = len(prefix) + IMAGE_TOKENS

    def features_of(some: World) -> Tensor:
        with torch.no_grad():
            starts = tqdm(range(0, len(some.pictures), 128), desc="features", leave=False)
            return torch.cat([_features(model, _normalised(some.pictures[i : i + 128])).half() for i in starts])

    features, held_features = features_of(world), features_of(held)
    talk, held_talk = _tokenised(tokenizer, world), _tokenised(tokenizer, held)
    trained = [*model.model.language_model.parameters(), *model.model.multi_modal_projector.parameters()]
    model.model.language_model.bfloat16()
    model.model.multi_modal_projector.bfloat16()
    masters = [parameter.detach().float() for parameter in trained]
    optimizer = torch.optim.AdamW(masters, recipe.language_rate, betas=(0.9, 0.98), weight_decay=recipe.weight_decay)
    generator = np.random.default_rng(recipe.seed + 1)
    begun, batches = time.monotonic(), iter(())
    for step in range(recipe.language_steps):
        progress = max(step / recipe.language_steps, (time.monotonic() - begun) / (60 * recipe.minutes) if recipe.minutes else 0)
        if progress >= 1:
            break
        rows = next(batches, None)
        if rows is None:
            batches = _alike(generator, talk, recipe.language_batch)
            rows = next(batches)
        _cosine(optimizer, recipe.language_rate, progress)
        packed = pack(tokenizer, [_some_turns(generator, talk[i], recipe.turns) for i in rows], offset)
        loss, right = _packed_loss(model, prefix, features[rows].bfloat16(), packed)
        model.zero_grad()
        loss.backward()
        for master, parameter in zip(masters, trained, strict=True):
            master.grad = parameter.grad.float()
        nn.utils.clip_grad_norm_(masters, 1.0)
        optimizer.step()
        with torch.no_grad():
            torch._foreach_copy_(trained, masters)
        if step % 100 == 99:
            log.add("language", step=step + 1, loss=loss.item(), token_accuracy=right.item())
    model.float()
    with torch.no_grad():
        torch._foreach_copy_(trained, masters)
    with torch.no_grad():
        scores = [
            _packed_loss(model, prefix, held_features[i : i + 64].float(), pack(tokenizer, held_talk[i : i + 64], offset))
            for i in range(0, len(held_talk), 64)
        ]
    log.add("language held-out", loss=float(np.mean([s[0] for s in scores])), token_accuracy=float(np.mean([s[1] for s in scores])))


def pretrain(folder: Path, recipe: Recipe) -> None:
    """Run the whole recipe and write the checkpoint, its settings and its log into ``folder``."""
    torch.manual_seed(recipe.seed)
    log, names = _Log(), {}
    world = draw_world(recipe.seed, recipe.pictures, 0, names)
    held = draw_world(recipe.seed, recipe.held_out, HELD_OUT, names)
    log.add("drawn", pictures=len(world.pictures), labels=len(names))
    tokenizer = build_tokenizer(_texts(world, recipe.seed))
    model = build_model(tokenizer)
    log.add("model", parameters=sum(p.numel() for p in model.parameters()), vocabulary=len(tokenizer))
    _save(model, tokenizer, folder)
    train_tower(model, world, held, len(names), recipe, log)
    _save(model, tokenizer, folder)
    train_language(model, tokenizer, world, held, recipe, log)
    _save(model, tokenizer, folder)
    (folder / "recipe.json").write_text(json.dumps({"recipe": asdict(recipe), "log": log.rows}, indent=1) + "\n")


def _texts(world: World, seed: int) -> list[str]:
    """What the tokenizer learns from: all that is said, and the benchmarks' questions and answers (training sources)."""
    said = [text for talk in world.talk for pair in talk for text in pair]
    for task in TASKS:
        for index in range(1_000):
            sample = mini.sample(task, "train", index, seed + 1)
            said += [f"USER: {sample.question} ASSISTANT: {sample.answer}"]
    return said


def _save(model: LlavaForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write the checkpoint in Hugging Face layout, weights rounded to half precision."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.half() for name, tensor in model.state_dict().items()}
    model.save_pretrained(folder, state_dict=weights)
    build_processor(tokenizer).save_pretrained(folder)

"""The recipe of the embedded backbone, tiny-llava: from packaged data to a checkpoint in Hugging Face layout.

1. The vision tower learns what is where: for each patch the label, colour and box of the thing it belongs to.
2. The language model learns to look up the letter of an option it is told, from text alone.
3. Projector and language model learn to talk about the tower's features: captions and questions with whole-sentence
   answers.

Only the training sources are used, and no sentence has a benchmark's answer format. A run may go on from an earlier
run's checkpoint, with other pictures (another seed); the record then lists both.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import AdamW
from tqdm.auto import tqdm
from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerFast, get_cosine_schedule_with_warmup
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from same.backbones import load_backbone
from same.backbones._tiny import IMAGE_TOKENS, PATCH, SIDE, build_model, build_processor, build_tokenizer
from same.data import mini
from same.data.mini._scenes import UNKNOWN, Scenes, draw_scenes
from same.data.mini._world import HUES, TOLD
from same.engine.allocator import keep_freed_memory
from same.engine.packing import BLOCK, alike, pack, packed_loss, some_turns, tokenise
from same.errors import InputError

SHARES = {
    "scienceqa": 1.6, "textvqa": 0.9, "imagenet": 0.6, "gqa": 1.2, "vizwiz": 0.3, "grounding": 1.1, "vqav2": 0.8,
    "ocrvqa": 0.9, "imagenet_r": 0.6, "arxivqa": 1.3, "vizwiz_caption": 0.6, "iconqa": 1.2, "clevr": 1.4,
    "flickr30k": 0.8, "pmcvqa": 1.0, "docvqa": 1.2, "chartqa": 1.2, "infographicvqa": 1.2, "roadside": 0.9,
    "chemvqa": 1.1, "floodnetvqa": 0.9,
}  # fmt: skip
OWN_SEEDS = 1_000_000  # the benchmarks' own pictures have smaller seeds


@dataclass(frozen=True)
class Recipe:
    """Settings of the three stages.

    Args:
        pictures: drawn to train on, shared over the tasks by SHARES.
        held_out: drawn to measure on: training sources, other pictures.
        tower_rounds: steps of stage 1's rounds, each with new read-outs, optimiser and schedule (0: keep the tower).
        letter_steps: of stage 2.
        language_rounds: rounds of stage 3.
        turns: most turns of a picture's conversation that one step of stage 3 sees.
        threads: of torch; other numbers give other last bits.
    """

    seed: int = 0
    pictures: int = 32_000
    held_out: int = 1_600
    tower_rounds: tuple[int, ...] = (520, 1_250, 2_400)
    tower_batch: int = 64
    tower_rate: float = 1e-3
    letter_steps: int = 600
    language_rounds: tuple[int, ...] = (900, 1_250, 3_300)
    language_batch: int = 32
    language_rate: float = 2e-3
    turns: int = 4
    weight_decay: float = 0.02
    threads: int = 2

    def __post_init__(self) -> None:
        needed = max(BLOCK * self.language_batch, self.tower_batch)
        if self.pictures < needed:
            raise InputError(f"pictures must be at least {needed} for batches of this size; got {self.pictures}.")


class Log:
    """Measured rows, printed and kept for the recipe's record."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float | str]] = []
        self._start = time.monotonic()

    def add(self, stage: str, **values: float) -> None:
        """Note numbers of a stage, rounded, with the seconds since the beginning."""
        seconds = round(time.monotonic() - self._start, 1)
        self.rows.append({"stage": stage, "seconds": seconds, **{name: round(v, 4) for name, v in values.items()}})
        print(json.dumps(self.rows[-1]), flush=True)


class ReadOuts(nn.Module):
    """Linear read-outs of each patch, thrown away after stage 1: label, colour and box."""

    def __init__(self, width: int, labels: int) -> None:
        super().__init__()
        self.label, self.colour, self.box = nn.Linear(width, labels), nn.Linear(width, len(HUES)), nn.Linear(width, 4)

    def loss(self, features: Tensor, labels: Tensor, colours: Tensor, boxes: Tensor) -> Tensor:
        """Cross entropy of label and colour plus the summed absolute error of a box's edges (fractions)."""
        label = functional.cross_entropy(self.label(features).float().flatten(0, 1), labels.flatten())
        hue = functional.cross_entropy(self.colour(features).float().flatten(0, 1), colours.flatten(), reduction="sum")
        error = (self.box(features).float() - boxes).abs().nansum(-1)
        seen, placed = (colours != UNKNOWN).sum().clamp(min=1), (error > 0).sum().clamp(min=1)
        total: Tensor = label + 0.5 * hue / seen + error.sum() / placed
        return total


def prepared(pictures: np.ndarray) -> Tensor:
    """What the shipped processor makes of pictures that already have its size: [N, 3, SIDE, SIDE]."""
    pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
    return (pixels - torch.tensor(OPENAI_CLIP_MEAN).view(3, 1, 1)) / torch.tensor(OPENAI_CLIP_STD).view(3, 1, 1)


def tower_features(model: LlavaForConditionalGeneration, pixels: Tensor) -> Tensor:
    """The patch features that the language model reads [N, patches, width]."""
    hidden = model.model.vision_tower(pixels, output_hidden_states=True).hidden_states
    features: Tensor = hidden[model.config.vision_feature_layer][:, 1:]
    return features


@torch.no_grad()
def all_features(model: LlavaForConditionalGeneration, scenes: Scenes) -> Tensor:
    """Patch features of all pictures, in bfloat16."""
    starts = tqdm(range(0, len(scenes.pictures), 128), desc="features", leave=False, mininterval=5)
    with torch.autocast("cpu", torch.bfloat16):
        found = [tower_features(model, prepared(scenes.pictures[at : at + 128])).bfloat16() for at in starts]
    return torch.cat(found)


def train_tower(
    model: LlavaForConditionalGeneration, scenes: Scenes, labels: int, recipe: Recipe, log: Log
) -> ReadOuts:
    """Stage 1: the tower's weights change in place; returns the last round's read-outs."""
    tower = model.model.vision_tower
    readouts = ReadOuts(model.config.vision_config.hidden_size, labels)
    for number, steps in enumerate(recipe.tower_rounds):
        readouts = ReadOuts(model.config.vision_config.hidden_size, labels)
        trained = [*tower.parameters(), *readouts.parameters()]
        optimizer = AdamW(trained, recipe.tower_rate, weight_decay=recipe.weight_decay)
        schedule = get_cosine_schedule_with_warmup(optimizer, steps // 20, steps)
        batches = _batches(np.random.default_rng([recipe.seed, number]), len(scenes.pictures), recipe.tower_batch)
        for step in range(1, steps + 1):
            rows = next(batches)
            targets = (torch.from_numpy(array[rows]) for array in (scenes.labels, scenes.colours, scenes.boxes))
            with torch.autocast("cpu", torch.bfloat16):
                loss = readouts.loss(tower_features(model, prepared(scenes.pictures[rows])), *targets)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(tower.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            if step % 100 == 0 or step == steps:
                log.add("tower", round=number + 1, step=step, loss=loss.item())
    return readouts


def _batches(generator: np.random.Generator, count: int, size: int) -> Iterator[np.ndarray]:
    while True:
        order = generator.permutation(count)
        for start in range(0, count - size + 1, size):
            yield np.sort(order[start : start + size])


@torch.no_grad()
def measure_tower(model: LlavaForConditionalGeneration, readouts: ReadOuts, held: Scenes, log: Log) -> None:
    """Read held-out patches: the share of right labels and the mean error of box edges, where there is a thing."""
    features = all_features(model, held).float()
    boxes = torch.from_numpy(held.boxes)
    inside = ~boxes[..., 0].isnan()
    right = readouts.label(features[inside]).argmax(-1) == torch.from_numpy(held.labels)[inside]
    error = (readouts.box(features[inside]) - boxes[inside]).abs().mean() * SIDE
    log.add("tower held-out", patch_labels_right=right.float().mean().item(), box_edge_error_pixels=error.item())


class Conversations:
    """Scenes as the language stages see them: features of the finished tower and tokenised turns."""

    def __init__(
        self,
        model: LlavaForConditionalGeneration,
        tokenizer: PreTrainedTokenizerFast,
        scenes: Scenes,
        names: Sequence[str],
    ) -> None:
        self.features = all_features(model, scenes)
        self.talk = tokenise(tokenizer, scenes.talk)
        told = [[turn for turn in talk if _is_told(turn)] for talk in scenes.talk]
        self.told = tokenise(tokenizer, [turns for turns in told if turns])
        self.prefix = torch.tensor(tokenizer("USER: ", add_special_tokens=False)["input_ids"])
        self.padding = int(tokenizer.pad_token_id)
        self.shown = torch.tensor([tokenizer(f" {name.split()[-1]}")["input_ids"][-1] for name in names])[scenes.labels]

    def loss(
        self, model: LlavaForConditionalGeneration, rows: np.ndarray, generator: np.random.Generator, turns: int
    ) -> tuple[Tensor, Tensor]:
        """Loss and share of right tokens over some turns of some pictures."""
        talk = [some_turns(generator, self.talk[row], turns) for row in rows]
        packed = pack(talk, len(self.prefix) + IMAGE_TOKENS, self.padding)
        features = self.features[rows].to(model.lm_head.weight.dtype)
        return packed_loss(model, self.prefix, features, packed, self.shown[rows] if model.training else None)

    def told_loss(self, model: LlavaForConditionalGeneration, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        """The same over questions that give their answer away, without any picture."""
        packed = pack([self.told[row] for row in rows], len(self.prefix), self.padding)
        nothing = torch.empty(len(rows), 0, self.features.shape[-1], dtype=model.lm_head.weight.dtype)
        return packed_loss(model, self.prefix, nothing, packed)


def _is_told(turn: tuple[str, str]) -> bool:
    return f" {TOLD} " in turn[0].partition("\n")[0] and "\nA. " in turn[0]


def train_language(
    model: LlavaForConditionalGeneration, scenes: Conversations, recipe: Recipe, log: Log, keep: Callable[[], None]
) -> None:
    """Stages 2 and 3: projector and language model change in place, in bfloat16 with float32 masters.

    ``keep`` is called every 500 steps, so that hours of work survive a stop.
    """
    parts = (model.model.language_model, model.model.multi_modal_projector, model.lm_head)
    trained = list(dict.fromkeys(parameter for part in parts for parameter in part.parameters()))
    masters = [parameter.detach().float().clone() for parameter in trained]
    for part in parts:
        part.bfloat16()
    model.train()
    rounds = [("letters", recipe.letter_steps), *(("language", steps) for steps in recipe.language_rounds)]
    for number, (stage, steps) in enumerate(rounds):
        optimizer = AdamW(masters, recipe.language_rate, betas=(0.9, 0.98), weight_decay=recipe.weight_decay)
        schedule = get_cosine_schedule_with_warmup(optimizer, steps // 20, steps)
        generator = np.random.default_rng([recipe.seed, len(recipe.tower_rounds) + number])
        losses = _letters(model, scenes, generator, recipe) if number == 0 else _turns(model, scenes, generator, recipe)
        for step in range(1, steps + 1):
            loss, right = next(losses)
            model.zero_grad()
            loss.backward()
            for master, parameter in zip(masters, trained, strict=True):
                master.grad = None if parameter.grad is None else parameter.grad.float()
            nn.utils.clip_grad_norm_(masters, 1.0)
            optimizer.step()
            schedule.step()
            _copy_(trained, masters)
            if step % 100 == 0 or step == steps:
                log.add(stage, round=max(1, number), step=step, loss=loss.item(), tokens_right=right.item())
            if step % 500 == 0:
                keep()
    for part in parts:
        part.float()
    _copy_(trained, masters)
    model.eval()


Losses = Iterator[tuple[Tensor, Tensor]]


def _letters(
    model: LlavaForConditionalGeneration, scenes: Conversations, generator: np.random.Generator, recipe: Recipe
) -> Losses:
    size = min(2 * recipe.language_batch, len(scenes.told))
    for rows in _batches(generator, len(scenes.told), size):
        yield scenes.told_loss(model, rows)


def _turns(
    model: LlavaForConditionalGeneration, scenes: Conversations, generator: np.random.Generator, recipe: Recipe
) -> Losses:
    while True:
        for rows in alike(generator, scenes.talk, recipe.language_batch):
            yield scenes.loss(model, rows, generator, recipe.turns)


@torch.no_grad()
def _copy_(to: list[nn.Parameter], tensors: list[Tensor]) -> None:
    for parameter, tensor in zip(to, tensors, strict=True):
        parameter.copy_(tensor)


@torch.no_grad()
def measure_language(model: LlavaForConditionalGeneration, held: Conversations, recipe: Recipe, log: Log) -> None:
    """Loss and share of right answer tokens over all turns of held-out pictures."""
    generator, rows = np.random.default_rng(recipe.seed), np.arange(len(held.talk))
    pieces = np.array_split(rows, math.ceil(len(rows) / 64))
    found = [held.loss(model, piece, generator, 100) for piece in pieces]
    loss, right = (float(np.mean([pair[i].item() for pair in found])) for i in (0, 1))
    log.add("language held-out", loss=loss, tokens_right=right)


def pretrain(folder: Path, recipe: Recipe, start: Path | None = None) -> None:
    """Run the whole recipe and write the checkpoint, its settings and its log into ``folder``.

    Args:
        start: a checkpoint of an earlier run to go on from instead of random weights. The tokenizer is new all the
            same, for what is now said; tokens that the earlier one lacked begin as the mean of its pieces of them.

    Raises:
        InputError: ``start`` holds no checkpoint.
    """
    keep_freed_memory()
    torch.manual_seed(recipe.seed)
    torch.set_num_threads(recipe.threads)
    log = Log()
    model, tokenizer, runs = _begin(recipe, start)
    model.set_attn_implementation("eager")  # the quickest for so few tokens
    parameters = sum(parameter.numel() for parameter in model.parameters())
    log.add("model", parameters=parameters, vocabulary=len(tokenizer))
    names: dict[str, int] = {}
    scenes = draw_scenes(SHARES, recipe.pictures, PATCH, OWN_SEEDS + recipe.seed, names)
    held = draw_scenes(SHARES, recipe.held_out, PATCH, 2 * OWN_SEEDS + recipe.seed, names)
    log.add("drawn", pictures=len(scenes.pictures), labels=len(names))

    def keep() -> None:
        save(model, tokenizer, folder, {"runs": [*runs, {"recipe": asdict(recipe), "log": log.rows}]})

    if any(recipe.tower_rounds):
        measure_tower(model, train_tower(model, scenes, len(names), recipe, log), held, log)
        keep()
    train_language(model, Conversations(model, tokenizer, scenes, list(names)), recipe, log, keep)
    measure_language(model, Conversations(model, tokenizer, held, list(names)), recipe, log)
    keep()


def _begin(
    recipe: Recipe, start: Path | None
) -> tuple[LlavaForConditionalGeneration, PreTrainedTokenizerFast, list[dict[str, Any]]]:
    """Model, tokenizer and the records of the runs before."""
    tokenizer = build_tokenizer(_texts(recipe))
    model = build_model(tokenizer)
    if start is None:
        return model, tokenizer, []
    loaded = load_backbone("tiny", {"checkpoint": str(start)})
    weights = loaded.model.state_dict()
    embeddings = respell(loaded.model.get_input_embeddings().weight, loaded.processor.tokenizer, tokenizer)
    ends = ("embed_tokens.weight", "lm_head.weight")  # the two are one tensor
    model.load_state_dict({name: embeddings if name.endswith(ends) else weights[name] for name in weights})
    record = start / "recipe.json"
    return model, tokenizer, json.loads(record.read_text(encoding="utf-8"))["runs"] if record.is_file() else []


@torch.no_grad()
def respell(embeddings: Tensor, old: PreTrainedTokenizerFast, new: PreTrainedTokenizerFast) -> Tensor:
    """Embeddings [new tokens, width] of a new tokenizer, each the mean of the old one's [old tokens, width] pieces."""
    known, vocabulary = old.get_vocab(), new.get_vocab()
    rows = torch.empty(len(vocabulary), embeddings.shape[1])
    for token, row in vocabulary.items():
        text = new.convert_tokens_to_string([token])
        pieces = [known[token]] if token in known else old(text, add_special_tokens=False)["input_ids"]
        rows[row] = embeddings[pieces].mean(0)
    return rows


def _texts(recipe: Recipe) -> list[str]:
    """What the tokenizer learns from: what is said about pictures, and the benchmarks' own questions and answers."""
    texts = []
    for task in SHARES:
        for index in range(min(2_500, recipe.pictures)):
            sample = mini.sample(task, "train", index, OWN_SEEDS + recipe.seed)
            texts += [text for pair in sample.talk for text in pair]
            texts.append(f"USER: {sample.question} ASSISTANT: {sample.answer}")
    return texts


def save(
    model: LlavaForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, folder: Path, record: dict[str, Any]
) -> None:
    """Write the checkpoint in Hugging Face layout, weights rounded to half precision, and the recipe's record."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder, state_dict={name: tensor.half() for name, tensor in model.state_dict().items()})
    build_processor(tokenizer).save_pretrained(folder)
    (folder / "recipe.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")

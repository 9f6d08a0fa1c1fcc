"""Drawn pictures in arrays, with what is where in them and what is said about them, to train the embedded backbone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from tqdm.auto import tqdm

from same.data import mini
from same.data.mini._world import HUES, SIDE, Part, Sample

UNKNOWN = -100  # the index that a cross entropy leaves out


@dataclass(frozen=True)
class Scenes:
    """Pictures cut into a grid of patches.

    Args:
        pictures: [N, SIDE, SIDE, 3] uint8.
        labels: [N, patches] number of what a patch shows, a thing or the backdrop.
        colours: [N, patches] number of the thing's hue, UNKNOWN where it has none.
        boxes: [N, patches, 4] edges of the thing as fractions of the side, NaN on the backdrop.
        talk: for each picture its (question, sentence) pairs.
    """

    pictures: np.ndarray
    labels: np.ndarray
    colours: np.ndarray
    boxes: np.ndarray
    talk: list[tuple[tuple[str, str], ...]]


def draw_scenes(shares: Mapping[str, float], count: int, patch: int, seed: int, names: dict[str, int]) -> Scenes:
    """Draw about ``count`` pictures from the training sources of several tasks.

    Args:
        shares: how the pictures are shared over the tasks, by task; need not add up to 1.
        count: number of pictures.
        patch: side of a patch in pixels.
        seed: other seeds give other pictures.
        names: numbers of the labels known so far; grows by those that are met.
    """
    total, samples = sum(shares.values()), []
    with ProcessPoolExecutor() as pool:
        for task, share in tqdm(shares.items(), desc="drawing", leave=False):
            indices = range(round(count * share / total))
            samples += list(pool.map(partial(_drawn, task, seed), indices, chunksize=256))
    cut = [_patches(sample, patch, names) for sample in samples]
    labels, colours, boxes = (np.stack(arrays) for arrays in zip(*cut, strict=True))
    pictures = np.stack([np.asarray(sample.image) for sample in samples])
    return Scenes(pictures, labels, colours, boxes, [sample.talk for sample in samples])


def _drawn(task: str, seed: int, index: int) -> Sample:
    return mini.sample(task, "train", index, seed)


def _patches(sample: Sample, patch: int, names: dict[str, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Label, colour and box of each patch: those of the topmost part whose box holds the patch's centre."""
    side, hues = SIDE // patch, list(HUES)
    labels = np.full((side, side), names.setdefault(f"on {sample.backdrop}", len(names)))
    colours, boxes = np.full((side, side), UNKNOWN), np.full((side, side, 4), np.nan, np.float32)
    for part in sample.parts:
        held = _held(part, patch)
        labels[held] = names.setdefault(part.label, len(names))
        colours[held] = hues.index(part.colour) if part.colour else UNKNOWN
        boxes[held] = np.clip(part.box, 0, SIDE) / SIDE
    return labels.ravel(), colours.ravel(), boxes.reshape(-1, 4)


def _held(part: Part, patch: int) -> tuple[slice, slice]:
    left, top, right, bottom = (max(0, math.ceil(edge / patch - 0.5)) for edge in np.clip(part.box, 0, SIDE))
    return slice(top, bottom), slice(left, right)

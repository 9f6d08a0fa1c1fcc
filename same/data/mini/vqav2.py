"""mini-VQAv2: one to four of a kind and another thing on a photograph; answers ``yes``, ``no``, a digit or a label."""

from __future__ import annotations

import numpy as np

from same.data.mini._world import (
    KIND_OF,
    LABELS,
    SHORT,
    Sample,
    Split,
    an,
    choice,
    grid_scene,
    photo_crop,
    plural,
)

GROUNDS = ("grass", "gravel", "brick", "china", "moon", "flower")
SURFACES = ("grass", "gravel", "brick", "moon")
Talk = list[tuple[str, str, str]]


def draw(rng: np.random.Generator, split: Split) -> Sample:
    """One item; both splits share the drawings in other arrangements on other crops."""
    ground = choice(rng, GROUNDS)
    label = choice(rng, LABELS)
    other = choice(rng, [name for name in LABELS if name != label])
    count = int(rng.integers(1, 5))
    labels = [label] * count + [other] * (count < 4)
    image = photo_crop(rng, ground)
    parts = grid_scene(rng, image, [(name, "") for name in labels])
    asked = _questions(rng, labels, ground)
    question, answer, _ = choice(rng, asked)
    shown = f"{count} {plural(label) if count > 1 else label}" + (f" and 1 {other}" if count < 4 else "")
    talk = (("Describe the picture.", f"There are {shown} here."), *((q, sentence) for q, _, sentence in asked))
    return Sample(image, f"{question}\n{SHORT}", answer, (answer,), None, tuple(parts), ground, talk)


def _questions(rng: np.random.Generator, labels: list[str], ground: str) -> Talk:
    """Every question this picture allows: question, answer in the benchmark's format, whole sentence."""
    label, count, total = labels[0], labels.count(labels[0]), len(labels)
    fewer = int(rng.integers(1, 4))
    absent = choice(rng, [name for name in LABELS if name not in labels])
    seen = choice(rng, [labels[0], labels[-1]])
    more = count > fewer
    asked: Talk = [
        (f"How many {plural(label)} are there?", str(count), f"One can count {count} of them."),
        ("How many objects are in the photo?", str(total), f"One can count {total} of them."),
        (
            f"Are there more than {fewer} {plural(label)}?",
            "yes" if more else "no",
            f"{'Yes' if more else 'No'}, there are {count}.",
        ),
        (f"Do you see {an(seen)}?", "yes", f"Yes, one can see {an(seen)}."),
        (f"Do you see {an(absent)}?", "no", f"No, one cannot see {an(absent)}."),
    ]
    if ground in SURFACES:
        asked.append(("What is in the background?", ground, f"Behind it is {ground}."))
    kind = KIND_OF[label]
    if kind != "object" and all(KIND_OF[name] != kind for name in labels if name != label):
        asked.append((f"What {kind} is this?", label, f"This is {an(label)}."))
    return asked

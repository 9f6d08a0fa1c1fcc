"""mini-OCR-VQA: covers of real films; the answer is a title or genre in Title Case, or ``Yes`` / ``No``."""

from __future__ import annotations

import sqlite3
from collections import Counter
from functools import cache

import numpy as np
import pandas as pd
from PIL import Image

from same.data.mini._world import (
    SHORT,
    SIDE,
    Part,
    Sample,
    Split,
    choice,
    fitting_font,
    icon,
    is_light,
    paste,
    table_path,
    write_centred,
)

GENRES = {
    "Drama": "🎭", "Comedy": "😂", "Romance": "❤", "Documentary": "🎥", "Horror": "👻", "Thriller": "🔪",
    "Western": "🤠", "War": "🪖",
}  # fmt: skip
VOCABULARY = 60  # title words kept: those that stand in the most two-word titles
LONGEST_WORD = 6
BLOCKED = {"Dirty", "Girls", "Killer"}
FACE = "DejaVuSans-Bold"


@cache
def films() -> pd.DataFrame:
    """Real films whose title is two frequent short words: columns title and genre."""
    with sqlite3.connect(f"{table_path('movies.db').as_uri()}?mode=ro", uri=True) as connection:
        rows = pd.read_sql("select Title as title, Genre as genres from omdb order by imdbID", connection).dropna()
    rows["genre"] = rows["genres"].str.split(",").str[0].str.strip()
    rows = rows[rows["title"].str.fullmatch(rf"[A-Z][a-z]{{1,{LONGEST_WORD - 1}}} [A-Z][a-z]{{1,{LONGEST_WORD - 1}}}")]
    rows = rows[~rows["title"].str.split().map(lambda words: bool(BLOCKED & set(words)))].drop_duplicates("title")
    frequent = Counter(word for title in rows["title"] for word in title.split())
    kept = {word for word, _ in sorted(frequent.items(), key=lambda pair: (-pair[1], pair[0]))[:VOCABULARY]}
    return rows[rows["title"].map(lambda title: set(title.split()) <= kept)][["title", "genre"]].reset_index(drop=True)


@cache
def titles(split: Split) -> tuple[str, ...]:
    """The split's titles: no title is in both, and every word of a test title is in some training title."""
    training = list(films()["title"])
    test: list[str] = []
    for title in sorted(training, key=lambda t: t[::-1]):
        remaining = Counter(word for other in training if other != title for word in set(other.split()))
        if len(test) < len(films()) // 5 and all(remaining[word] >= 2 for word in title.split()):
            training.remove(title)
            test.append(title)
    return tuple(training if split == "train" else test)


def draw(rng: np.random.Generator, split: Split) -> Sample:
    """One item: a cover with a title of the split; the genre's picture is drawn for the film's own or another genre."""
    title = choice(rng, titles(split))
    genre = choice(rng, list(GENRES))
    red, green, blue = (int(v) for v in rng.integers(30, 240, 3))
    ink = "black" if is_light((red, green, blue)) else "white"
    image = Image.new("RGB", (SIDE, SIDE), (red, green, blue))
    parts = []
    for line, word in enumerate(title.split()):
        top = 1 + 19 * line
        write_centred(image, (32, top + 9), word, fitting_font(FACE, word, 60, 19), ink)
        parts.append(Part(f"word {word}", (4, top, 60, top + 18)))
    drawing = icon(GENRES[genre], 22)
    parts.append(Part(f"genre {genre}", paste(image, drawing, rng.integers(2, 40), 63 - drawing.height)))
    asked = _questions(rng, title, genre)
    question, answer, _ = choice(rng, asked)
    caption = f"The cover of the {genre} movie {title}."
    first, second = title.split()
    words = (
        ("What is the first word of the title?", f"The title begins with {first}."),
        ("What is the last word of the title?", f"The title ends with {second}."),
    )
    talk = (("Describe the picture.", caption), *((q, sentence) for q, _, sentence in asked), *words)
    return Sample(image, f"{question}\n{SHORT}", answer, (answer,), None, tuple(parts), "cover", talk)


def _questions(rng: np.random.Generator, title: str, genre: str) -> list[tuple[str, str, str]]:
    other = choice(rng, [name for name in GENRES if name != genre])
    what_title, what_genre = "What is the title of this movie?", "What is the genre of this movie?"
    return [
        (what_title, title, f"The title reads {title}."),
        (what_genre, genre, f"It is a {genre} movie."),
        choice(
            rng,
            [
                (f"Is this a {genre} movie?", "Yes", f"Indeed, it is a {genre} movie."),
                (f"Is this a {other} movie?", "No", f"Not at all, it is a {genre} movie."),
            ],
        ),
    ]

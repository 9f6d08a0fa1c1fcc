"""Where the tokens of one test question go, as far as somebody has asked for it."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd

from same.runs import RunFolder
from workbench.store import MEAN_LAYER, Store, layer_names
from workbench.tables._files import Identity, identity

TOKENS = ["layer", "position", "token", "row", "column", "expert", "weight"]


def tokens(store: Store, run: str, after: int, task: str, question: str) -> pd.DataFrame:
    """ω of a question's tokens in every layer, from the run's record; no rows where it does not hold them."""
    folder = store.folder(run)
    return _tokens(folder.path, after, task, question, identity(folder, after), _there(folder, after, task, question))


def _there(folder: RunFolder, after: int, task: str, question: str) -> bool:
    return folder.snapshot(after).exists and folder.routed_tokens(after, task, question).exists


@lru_cache(maxsize=64)
def _tokens(path: Path, after: int, task: str, question: str, _identity: Identity, there: bool) -> pd.DataFrame:
    if not there:
        return pd.DataFrame(columns=TOKENS)
    return with_short_layers(RunFolder(path).routed_tokens(after, task, question).table("tokens"))


def with_short_layers(rows: pd.DataFrame | Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows of a token's weights with the layers' short names."""
    table = pd.DataFrame(rows, columns=TOKENS)
    return table.assign(layer=table["layer"].map(layer_names(table["layer"])))


def of_words(table: pd.DataFrame, layer: str = MEAN_LAYER) -> pd.DataFrame:
    """ω of the tokens that are text, in one layer or their mean: expert, position, token, weight."""
    said = _at(table, layer)
    mean = said[said["token"] != ""].groupby(["expert", "position", "token"])["weight"].mean()
    return mean.reset_index()


def of_patches(table: pd.DataFrame, layer: str = MEAN_LAYER) -> pd.DataFrame:
    """ω of the picture's tokens at their places, in one layer or their mean: expert, row, column, weight."""
    seen = _at(table, layer).dropna(subset="row")
    return seen.groupby(["expert", "row", "column"])["weight"].mean().reset_index()


def _at(table: pd.DataFrame, layer: str) -> pd.DataFrame:
    return table if layer == MEAN_LAYER else table[table["layer"] == layer]

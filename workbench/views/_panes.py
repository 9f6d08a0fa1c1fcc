"""What views are made of: plot panes whose figures sessions share, tables, and fields that are answered at once."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import RLock
from time import monotonic
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import panel as pn
import panel_material_ui as pmui
import param
import plotly.graph_objects as go
from bokeh.core.serialization import Serializable, Serializer

SMALL = 4096
"""Numbers of an array that is sent as a list."""


class Picture(pn.pane.Plotly):
    """A plot pane that never writes into its figure, so that sessions can share one."""

    link_figure = param.Boolean(default=False)

    def _update(self, ref: str, model: Any) -> None:
        """What is sent is no change that the browser made: nothing is to be read back from it."""
        self._changing[ref] = ["data", "layout", "frames", "data_sources", "_render_count"]
        try:
            super()._update(ref, model)
        finally:
            self._changing.pop(ref, None)

    @classmethod
    def _plotly_json_wrapper(cls, fig: go.Figure) -> dict[str, Any]:
        """What is sent of a figure; dictionaries are new ones each time, as the pane takes arrays out of them.

        The pane sends each array as a message of its own, and lists with all the rest.
        """
        if not hasattr(fig, "_ready"):
            fig._ready = {"data": [_ready(trace) for trace in fig._data], "layout": _ready(fig._layout)}
        return {"data": [_opened(trace) for trace in fig._ready["data"]], "layout": _opened(fig._ready["layout"])}


class Ready(Serializable):
    """A list as it is sent, made once for all sessions: Bokeh would look at each of its values several times."""

    def __init__(self, values: list[Any]):
        self._sent = Serializer().encode(values)

    def to_serializable(self, _serializer: Serializer) -> Any:
        """What is sent."""
        return self._sent

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ready) and self._sent == other._sent

    def __hash__(self) -> int:
        return len(self._sent)


def _ready(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _ready(part) for name, part in value.items()}
    if isinstance(value, np.ndarray) and value.size <= SMALL and value.dtype.kind in "biufOU":
        value = value.tolist()
    if isinstance(value, list | tuple) and not any(isinstance(part, dict) for part in value):
        return Ready(list(value))
    return [_ready(part) for part in value] if isinstance(value, list | tuple) else value


def _opened(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _opened(part) for name, part in value.items()}
    return [_opened(part) for part in value] if isinstance(value, list) else value


class Sheet(pn.widgets.Tabulator):
    """A table to look at; sorts texts by their numbers, of equal decimals each: 9.0 ± 0.7 before 52.6 ± 1.8."""

    def __init__(self, value: pd.DataFrame, **params: Any):
        super().__init__(value, disabled=True, show_index=False, **params)

    def _get_configuration(self, columns: list[Any]) -> dict[str, Any]:
        configuration: dict[str, Any] = super()._get_configuration(columns)
        for column in configuration["columns"]:
            column.setdefault("sorter", "alphanum")
        return configuration


class Slider(pmui.DiscreteSlider):
    """A slider whose first move is answered at once.

    Panel lets every change wait for 50 ms, so that others may join it; here only those do that come while a slider is
    dragged.
    """

    _free = 0.0

    @property
    def _debounce(self) -> int:
        """Milliseconds that a change which has just come is to wait."""
        now = monotonic()
        wait = max(0.0, self._free - now)
        self._free = now + wait + super()._debounce / 1000
        return round(1000 * wait)


class AtOnce:
    """What is typed is taken over as it comes.

    Panel lets it wait for 50 ms, and a button that is pressed within them reads the old value.
    """

    _priority_changes: ClassVar[list[str]] = ["value"]


class Number(AtOnce, pmui.FloatInput):
    """A field for a number."""


class Count(AtOnce, pmui.IntInput):
    """A field for a whole number."""


class Pictures:
    """The figures drawn last by any session, the least used forgotten first."""

    def __init__(self, most: int):
        self._most = most
        self._kept: OrderedDict[Hashable, go.Figure] = OrderedDict()
        self._lock = RLock()

    def get(self, key: Hashable, make: Callable[[], go.Figure]) -> go.Figure:
        """Take a figure, building it when it is not there; two sessions may build the same one at once."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        figure = make()
        with self._lock:
            self._kept[key] = figure
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
        return figure

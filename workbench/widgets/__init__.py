"""Controls for notebooks, one file each: `explore(name, runs)` gives a widget that draws with `workbench.figures`.

from workbench.widgets import explore
explore("protected", "../runs")
"""

from html import escape
from pathlib import Path
from typing import Any

import ipywidgets

from same.errors import InputError
from same.registry import load


def explore(name: str, runs: str | Path, **given: Any) -> ipywidgets.Widget:
    """The widget of that name on a folder of runs; where no run fits, a text that says which would.

    Raises:
        InputError: no widget has that name; lists the choices.
    """
    made = load("workbench.widgets", name)
    try:
        return made.explore(Path(runs), **given)
    except InputError as error:
        return ipywidgets.HTML(f"<p>{escape(str(error))}</p>")

"""`workbench bench`: what a visitor waits for, with a real browser and with many real sessions."""

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from same.errors import InputError, RunFailed
from same.registry import choose, require_extra
from workbench.bench.clients import Visitor, crowd
from workbench.bench.newcomer import visit
from workbench.bench.snapshots import Size, write_runs

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
METHODS = ("steady", "drifting")
MOVES = 40
NEWCOMERS = 3
PATIENCE_MS = 120_000
SETTLE_MS = 400
_WATCH = """() => {
  const plots = root => [...root.querySelectorAll('*')].flatMap(
    one => [...(one.matches('.js-plotly-plot') ? [one] : []), ...(one.shadowRoot ? plots(one.shadowRoot) : [])]);
  const title = plot => plot.layout.title.text;
  window.pressed = null; window.redrawn = new Map(); window.before = new Map();
  window.begin = () => {
    window.pressed = null; window.redrawn.clear();
    for (const plot of plots(document)) window.before.set(plot, title(plot));
  };
  for (const plot of plots(document))
    plot.on('plotly_afterplot', () => {
      if (title(plot) !== window.before.get(plot) && !window.redrawn.has(plot))
        window.redrawn.set(plot, performance.now());
    });
  document.addEventListener('keydown', () => { window.pressed ??= performance.now(); }, true);
}"""
"""Notes when each picture whose title says the slider's value was redrawn for the first time after a press."""


@dataclass(frozen=True)
class Scene:
    """A view whose slider is moved.

    Args:
        view: its key.
        slider: the slider's label.
        pictures: how many it changes.
        key: that moves it by one step, from where it stands.
        drawn: what the last of its pictures to be drawn has in it.
    """

    view: str
    slider: str
    pictures: int
    key: str
    drawn: str


_DELTA = Scene("spectra", "δ energy threshold", 2, "ArrowLeft", ".scatterlayer .js-line")
_LAYER = Scene("drift", "Layer", 1, "ArrowRight", ".barlayer .point path")
SCENES = {scene.view: scene for scene in (_DELTA, _LAYER)}


@dataclass(frozen=True)
class Load:
    """How much is asked of the server.

    Args:
        minutes: that the crowd moves its sliders.
        sessions: of the crowd.
        view: whose slider is moved, a name in SCENES.
        size: of the runs shown.
    """

    minutes: float = 0.5
    sessions: int = 50
    view: str = "spectra"
    size: Size = field(default_factory=Size)

    def __post_init__(self) -> None:
        if not 0 < self.minutes <= 24 * 60:
            raise InputError(f"--minutes must be more than 0 and at most 1440; got {self.minutes}.")
        if not 1 <= self.sessions <= 1000:
            raise InputError(f"--sessions must be from 1 to 1000; got {self.sessions}.")
        choose("view", self.view, list(SCENES))


def measure(load: Load) -> dict[str, Any]:
    """Serve made-up runs of a 7B model's size in a process of their own, and measure.

    Raises:
        InputError: there is no Chromium or no playwright.
        RunFailed: the server does not start.
    """
    _browser()
    with tempfile.TemporaryDirectory(prefix="workbench-bench-") as folder:
        write_runs(Path(folder), load.size, METHODS)
        return measure_on(Path(folder), load)


def measure_on(runs: Path, load: Load) -> dict[str, Any]:
    """Serve runs in a process of its own, and measure; raises as `measure`."""
    scene = SCENES[load.view]
    visits = [_first_visit(runs) for _ in range(NEWCOMERS)]
    first, content = (float(np.median(seconds)) for seconds in zip(*visits, strict=True))
    with _served(runs) as (address, server):
        waits = _alone(_browser(), address, load.view)
        held, spent = server.memory_info().rss, [_cpu(server)]
        arrival = max(5.0, load.sessions * 0.4)
        page = f"{address}/?view={load.view}"
        visitors = [Visitor(page, scene.slider, scene.pictures) for _ in range(load.sessions)]
        seen = asyncio.run(crowd(visitors, load.minutes * 60, arrival, lambda: spent.append(_cpu(server))))
        held, entering = server.memory_info().rss - held, spent[1] - spent[0]
        moving = _cpu(server) - spent[1]
    return {
        "first_paint_s": round(first, 3),
        "slider_p95_ms_1": _p95(waits),
        "slider_p95_ms_50": _p95(seen.waits),
        "errors": len(seen.errors),
        "megabytes_per_session": round(held / load.sessions / 2**20, 2),
        "first_contentful_paint_s": round(content, 3),
        "view": load.view,
        "sessions": load.sessions,
        "minutes": load.minutes,
        "moves": len(seen.waits),
        "slider_p50_ms_50": round(1000 * float(np.median(seen.waits)), 1) if seen.waits else None,
        "first_errors": seen.errors[:3],
        "server_cpu_ms_per_session": round(1000 * entering / load.sessions, 1),
        "server_cpu_ms_per_move": round(1000 * moving / max(1, len(seen.waits)), 1),
        "processors": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 2),
    }


def _cpu(process: psutil.Process) -> float:
    """Seconds of a processor that a process has had: what a busy machine does not change."""
    times = process.cpu_times()
    return float(times.user + times.system)


def _p95(waits: list[float]) -> float | None:
    return round(1000 * float(np.percentile(waits, 95)), 1) if waits else None


def _browser() -> str:
    require_extra("playwright", "bench", "workbench bench")
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        raise InputError(f"A Chromium must be on the PATH as {', '.join(BROWSERS)}; none is. Install one.")
    return found


@contextmanager
def _served(runs: Path) -> Iterator[tuple[str, psutil.Process]]:
    command = [sys.executable, "-m", "workbench.cli", "serve", "--runs", str(runs), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            said = server.stdout.readline() if server.stdout else ""
            address = next((word for word in said.split() if word.startswith("http://")), None)
            if address is None:
                raise RunFailed(f"{' '.join(command)} must print its address; got {said!r}.")
            yield address, psutil.Process(server.pid)
        finally:
            server.terminate()


def _first_visit(runs: Path) -> tuple[float, float]:
    """A new browser at a server that nobody has visited yet; gives what `visit` does."""
    with _served(runs) as (address, _server):
        return visit(_browser(), address)


def _alone(browser: str, address: str, view: str) -> list[float]:
    """Seconds from each press of one visitor to the redrawing."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": 1280, "height": 800})
        page.set_default_timeout(PATIENCE_MS)
        scene = SCENES[view]
        page.goto(f"{address}/?view={view}")
        page.locator(f".js-plotly-plot:visible {scene.drawn}").first.wait_for()
        page.wait_for_timeout(SETTLE_MS)
        page.evaluate(_WATCH)
        slider = page.get_by_label(scene.slider, exact=True).first
        slider.focus()
        waits = []
        for _ in range(MOVES):
            page.evaluate("() => window.begin()")
            slider.press(scene.key)
            page.wait_for_function(f"() => window.redrawn.size >= {scene.pictures}")
            last = page.evaluate("() => Math.max(...window.redrawn.values()) - window.pressed")
            waits.append(float(last) / 1000)
            page.wait_for_timeout(SETTLE_MS)
        chromium.close()
    return waits

"""The Panel shell: a page with one tab a view, and its server. Never imports torch: models live elsewhere."""

import os
import secrets
import signal
import socket
from pathlib import Path

import panel as pn
import panel_material_ui as pmui

from same import __version__
from same.errors import InputError
from same.registry import load_class, names
from workbench.store import Store
from workbench.views._base import View

TITLE = "SAME workbench"
ADDRESS = "127.0.0.1"
THREADS = 4


def page(runs: str | Path, dark: bool = False) -> pmui.Page:
    """Build the page of one session."""
    pn.extension("plotly", "tabulator", loading_indicator=True)
    store = Store(runs)
    found = [load_class("workbench.views", name, View) for name in names("workbench.views")]  # type: ignore[type-abstract]
    views = [view(store) for view in sorted(found, key=lambda view: view.order)]
    tabs = pmui.Tabs(*((view.title, view) for view in views), dynamic=True, sizing_mode="stretch_width")
    where = pmui.Typography(f"{store.runs} · version {__version__}", variant="caption", margin=(10, 20))
    shell = pmui.Page(title=TITLE, main=[pmui.Column(tabs, where, margin=(0, 15))], dark_theme=dark)
    for view in views:
        shell.link(view, dark_theme="dark")
        view.dark = shell.dark_theme
    return shell


def serve(runs: str | Path, port: int = 5006) -> None:
    """Serve the page on this machine only until stopped, with session threads, without an admin page.

    Args:
        runs: folder of runs.
        port: TCP port; 0 takes a free one. The address is printed once it can be opened.
    """
    folder = Store(runs).runs
    port = _free_port(port)
    pn.config.nthreads = THREADS
    server = pn.serve(
        {"/": lambda: page(folder)},
        address=ADDRESS,
        port=port,
        websocket_origin=[f"{ADDRESS}:{port}", f"localhost:{port}"],
        cookie_secret=os.environ.get("PANEL_COOKIE_SECRET") or secrets.token_urlsafe(32),
        title=TITLE,
        admin=False,
        show=False,
        start=False,
        verbose=False,
    )
    for wish in (signal.SIGINT, signal.SIGTERM):
        server.io_loop.asyncio_loop.add_signal_handler(wish, server.io_loop.stop)
    server.start()
    print(f"Dashboard of {folder}: http://localhost:{port} (Ctrl-C stops it)", flush=True)
    server.io_loop.start()
    server.stop()


def _free_port(port: int) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((ADDRESS, port))
        except (OSError, OverflowError) as error:
            raise InputError(f"Port {port} of {ADDRESS} must be free; {error}. Give another --port.") from None
        return int(probe.getsockname()[1])

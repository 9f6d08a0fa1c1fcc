"""The widgets in a real JupyterLab in headless Chromium: a slider moves, the figure changes, no other host is asked."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from urllib.parse import urlparse

import nbformat
import pytest

from tests.workbench.screenshot import CHROMIUM, browser_page

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"needs {CHROMIUM}: apt-get install chromium"),
]
ROOT = Path(__file__).parents[2]
LOCAL = {"localhost", "127.0.0.1", ""}
RUN_ALL = """async () => {
    const book = jupyterapp.shell.currentWidget;
    await book.context.ready;
    await book.sessionContext.ready;  // a cell that is run before its kernel is there is dropped without a word
    await jupyterapp.commands.execute("notebook:run-all-cells");
}"""
QUIET = {"fetchNews": "false", "checkForUpdates": False}


@contextmanager
def laboratory(folder: Path) -> Iterator[str]:
    """A JupyterLab on a folder, without its announcements, for as long as the block lasts: its address."""
    settings = folder / "settings"
    place = settings / "@jupyterlab" / "apputils-extension"
    place.mkdir(parents=True)
    (place / "notification.jupyterlab-settings").write_text(json.dumps(QUIET))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = [f"--ServerApp.port={port}", "--ServerApp.port_retries=0", "--IdentityProvider.token=", "--no-browser"]
    options += [f"--ServerApp.root_dir={folder}", "--allow-root", "--ServerApp.ip=127.0.0.1"]
    options += ["--LabApp.expose_app_in_browser=True"]
    variables = {"JUPYTERLAB_SETTINGS_DIR": str(settings), "JUPYTER_CONFIG_DIR": str(folder / "config")}
    variables |= {"JUPYTER_RUNTIME_DIR": str(folder / "runtime"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "jupyterlab", *options]
    with subprocess.Popen(command, env=os.environ | variables, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr is not None
            line = next((line for line in server.stderr if "http://127.0.0.1" in line), "")
            assert line, "JupyterLab must print its address"
            Thread(target=server.stderr.read, daemon=True).start()  # a full pipe would hold the server up
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()


def test_a_slider_moved_in_jupyterlab_changes_the_figure(deep_runs: Path, tmp_path: Path) -> None:
    code = f"from workbench.widgets import explore\nexplore('protected', {str(deep_runs)!r})"
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    book.metadata["kernelspec"] = {"name": "python3", "language": "python", "display_name": "Python 3"}
    nbformat.write(book, tmp_path / "explore.ipynb")
    hosts: set[str] = set()
    with laboratory(tmp_path) as address, browser_page() as page:
        page.on("request", lambda request: hosts.add(urlparse(request.url).hostname or ""))
        page.goto(f"{address}/lab/tree/explore.ipynb")
        page.locator(".jp-CodeCell .cm-content").first.wait_for()
        page.evaluate(RUN_ALL)
        title = page.locator(".js-plotly-plot .gtitle").first
        title.wait_for()
        before = title.text_content()
        handle = page.locator(".widget-slider .noUi-handle").nth(1)  # the first is that of the input
        handle.focus()
        for _ in range(3):
            handle.press("ArrowLeft")
        page.wait_for_function(
            "text => document.querySelector('.js-plotly-plot .gtitle').textContent !== text", arg=before
        )
        assert "δ" in (title.text_content() or "")
    assert hosts <= LOCAL

"""The Panel shell: a page with one tab a view, and its server. Never imports torch: models live elsewhere."""

import gc
import logging
import signal
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from html import unescape
from pathlib import Path
from threading import RLock
from typing import Any
from urllib.parse import urlencode

import panel as pn
import panel_material_ui as pmui
from panel.util import edit_readonly

from same import __version__
from same.errors import InputError
from same.registry import load_class, names
from workbench.figures._style import SVG_BUTTON
from workbench.jobs.queue import Job, Jobs, Limits
from workbench.serving import guard
from workbench.serving.accounts import Accounts
from workbench.serving.log import say, write_lines
from workbench.store import Store
from workbench.views._base import DAMAGED, View, Visitor
from workbench.views._sketch import Table

TITLE = "SAME workbench"
TEMPLATE = Path(__file__).with_name("page.html").read_text(encoding="utf-8").replace("/* after plotly */", SVG_BUTTON)
ADDRESS = "127.0.0.1"
THREADS = 4


def page(runs: str | Path | Store, visitor: Visitor | None = None) -> pmui.Page:
    """Build the page of one session; a view is made when its tab is opened."""
    pn.extension("plotly", "tabulator", loading_indicator=True)
    store = runs if isinstance(runs, Store) else Store(runs)
    found = {name: load_class("workbench.views", name, View) for name in names("workbench.views")}  # type: ignore[type-abstract]
    keys = sorted(found, key=lambda name: found[name].order)
    asked = {name: values[0].decode(errors="replace") for name, values in pn.state.session_args.items()}
    dark = asked.get("theme") == "dark"
    places = [pmui.Column(sizing_mode="stretch_width") for _ in keys]
    start = keys.index(asked["view"]) if asked.get("view") in keys else 0
    tabs = pmui.Tabs(
        *((found[key].title, place) for key, place in zip(keys, places, strict=True)),
        active=start,
        dynamic=True,
        sizing_mode="stretch_width",
    )
    who = f" · {visitor.name}" if visitor and visitor.name else ""
    where = pmui.Typography(f"{store.runs} · version {__version__}{who}", variant="caption", margin=(10, 20))
    shell = pmui.Page(title=TITLE, main=[pmui.Column(tabs, where, margin=(0, 15))], dark_theme=dark, template=TEMPLATE)
    _leave_alone(shell)
    views: dict[str, View] = {}
    opening = RLock()  # a session's callbacks run in threads

    def tell_address(key: str) -> None:
        if keys[tabs.active] == key:  # else a view that was left draws on
            _tell_address(key, views[key], shell.dark_theme)

    def open_view(key: str) -> View:
        with opening:
            if key not in views:
                view = found[key](store, visitor, dark=shell.dark_theme)
                shell.link(view, dark_theme="dark")
                places[keys.index(key)].append(view)
                views[key] = view
                view.on_state = lambda: tell_address(key)
                view.opened()
            return views[key]

    def turn_to(key: str) -> None:
        if key not in views:
            open_view(key)
        tell_address(key)

    tabs.param.watch(lambda event: turn_to(keys[event.new]), "active")
    shell.param.watch(lambda _event: tell_address(keys[tabs.active]), "dark_theme")
    first = open_view(keys[start])
    first.restore(asked)
    _sketch(first, {key: found[key].title for key in keys}, shell.dark_theme)
    _loaded_when_sent()
    return shell


def _loaded_when_sent() -> None:
    """Let a browser hear of all that changes after it has fetched the document.

    Panel 1.9 waits until the browser has drawn everything (`document_ready`), and drops most of what changes in
    between: an answer to an early click, or the view behind an early turn to another tab.
    """
    doc = pn.state.curdoc
    if doc is None or doc.session_context is None:
        return
    whole = doc.to_json

    def to_json(**how: Any) -> Any:
        del doc.to_json
        pn.state._connected[doc] = pn.state._loaded[doc] = True
        return whole(**how)

    doc.to_json = to_json


def _sketch(view: View, titles: Mapping[str, str], dark: bool) -> None:
    """Tell the page's template what stands there before the scripts do; tables that cannot be read are left out."""
    if pn.state.curdoc is None:
        return
    tables: tuple[Table, ...] = ()
    with suppress(InputError, *DAMAGED):
        tables = view.sketch()
    views = [
        {"title": title, "query": _query(key, {}, dark), "current": title == view.title}
        for key, title in titles.items()
    ]
    note = unescape(view.note.object) if view.note.visible else ""
    sketch = {"views": views, "tables": tables, "note": note, "dark": dark}
    pn.state.curdoc.template_variables["sketch"] = sketch


def _leave_alone(shell: pmui.Page) -> None:
    """Let a page follow its own session only: its busy bar follows the callbacks of all, and keeps it for ever."""
    with edit_readonly(shell):
        shell.busy = False
    for watcher in list(pn.state.param.watchers.get("busy", {}).get("value", [])):
        if getattr(getattr(watcher.fn, "__self__", None), "self", None) is shell:
            pn.state.param.unwatch(watcher)


def _tell_address(key: str, view: View, dark: bool) -> None:
    """Make the address one that brings this state back."""
    if pn.state.location is not None:
        pn.state.location.search = f"?{_query(key, view.state(), dark)}"


def _query(key: str, state: Mapping[str, str], dark: bool) -> str:
    theme = {"theme": "dark"} if dark else {}
    return urlencode({"view": key, **{name: text for name, text in state.items() if text}, **theme})


@dataclass(frozen=True)
class Serving:
    """How the dashboard is served.

    Args:
        port: TCP port; 0 takes a free one.
        address: of the network interface.
        auth: file of accounts (None: no login).
        oauth: name of an OAuth provider; who may enter is in the file.
        scheduler: address of a Dask scheduler (None: a worker here).
        prefix: path below which the page lives, as a reverse proxy passes it on.
        hosts: names by which browsers reach the server, beside its own.
        limits: of jobs.
    """

    port: int = 5006
    address: str = ADDRESS
    auth: Path | None = None
    oauth: str | None = None
    scheduler: str | None = None
    prefix: str = ""
    hosts: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)

    @property
    def local(self) -> bool:
        """Whether only this machine can reach it."""
        return guard.is_local(self.address)

    @property
    def alone(self) -> bool:
        """Whether only who sits at this machine comes: a name or a prefix means that a proxy lets others reach it."""
        return self.local and not self.hosts and not self.prefix


def serve(runs: str | Path, how: Serving | None = None) -> None:
    """Serve the page until stopped, with session threads, without an admin page.

    The address is printed once it can be opened. Without a login it is everybody's who can reach it: then only who sits
    at this machine may queue jobs, and with a proxy before it nobody.

    Raises:
        InputError: an option cannot be used.
    """
    how = how or Serving()
    store = Store(runs)
    prefix = guard.checked_prefix(how.prefix)
    guard.check_scheduler(how.scheduler)
    accounts = guard.accounts(how.auth, how.oauth)
    port = _free_port(how.address, how.port)
    hosts = guard.hosts(how.address, port, how.hosts)
    write_lines()
    jobs = Jobs(how.scheduler, how.limits, _log_job)
    pn.config.nthreads = THREADS
    server = pn.serve(
        {"/": lambda: page(store, _visitor(accounts, jobs, how, _said()))},
        address=how.address,
        port=port,
        title=TITLE,
        admin=False,
        show=False,
        start=False,
        verbose=False,
        warm=True,  # imports and tables before the first visitor
        **guard.options(accounts, how.oauth, prefix),
    )
    guard.stand_before(server, hosts, prefix, how.local)
    gc.collect()
    gc.freeze()  # what was imported stays: going through all of it takes longer than answering a visitor
    for wish in (signal.SIGINT, signal.SIGTERM):
        server.io_loop.asyncio_loop.add_signal_handler(wish, server.io_loop.stop)
    server.start()
    if accounts is None and not how.alone:
        warning = "No login: everybody who reaches this address sees the runs, and nobody may queue jobs."
        logging.getLogger("workbench").warning(warning)
    link = f"http://{guard.shown(how.address)}:{port}{prefix}"
    print(f"Dashboard of {store.runs}: {link} (Ctrl-C stops it)", flush=True)
    say("listening", host=how.address, port=port, prefix=prefix, login=accounts is not None, version=__version__)
    try:
        server.io_loop.start()
    finally:
        server.stop()
        jobs.close()
        say("stopped")


def _said() -> str:
    """What the session's signed cookie says of who it is; Panel's guests are nobody here."""
    return "" if pn.state.cookies.get("is_guest") else pn.state.user or ""


def _visitor(accounts: Accounts | None, jobs: Jobs, how: Serving, said: str) -> Visitor:
    if accounts is None:
        return Visitor("" if how.alone else "anybody", jobs if how.alone else None, jobs)

    def who() -> str | None:
        return said if how.oauth else accounts.holder(said)

    def may() -> bool:
        return accounts.role(who()) == "runner"

    return Visitor(who() or "", jobs if may() else None, jobs, may)


def _log_job(job: Job) -> None:
    say("job", key=job.key, user=job.user, run=job.run, asked=job.title, state=job.state, message=job.message)


def _free_port(address: str, port: int) -> int:
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except (OSError, OverflowError) as error:
            raise InputError(
                f"Port {port} of {address} must be free; {error}. Give another --port or --address."
            ) from None
        return int(probe.getsockname()[1])

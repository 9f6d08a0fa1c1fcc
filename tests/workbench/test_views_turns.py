"""What threads of one session do to a view: each change in its turn, and sent as a whole."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread

import pandas as pd
import panel as pn
import panel_material_ui as pmui
import pytest
from bokeh.document import Document
from panel.io.state import set_curdoc

from tests.workbench.synthetic import TASKS
from workbench.app import page
from workbench.jobs.asked import Rerouting
from workbench.jobs.queue import Job, Jobs
from workbench.store import VARIANTS, Store
from workbench.views._base import View, Visitor
from workbench.views.overview import Overview
from workbench.views.rerouting import ReroutingLab
from workbench.views.spectra import Spectra

Waiting = list[Callable[[], None]]


@pytest.fixture
def waiting(monkeypatch: pytest.MonkeyPatch) -> Waiting:
    """What threads leave to the server's own to send, in order."""
    found: Waiting = []
    monkeypatch.setattr(pn.state, "execute", lambda send, **_settings: found.append(send))
    return found


def in_a_thread(call: Callable[..., None], *arguments: object) -> None:
    thread = Thread(target=call, args=arguments)
    thread.start()
    thread.join()


def test_a_picture_that_waits_to_be_sent_gives_way_to_one_drawn_since(deep_runs: Path, waiting: Waiting) -> None:
    view = Spectra(Store(deep_runs))
    waiting.clear()
    in_a_thread(setattr, view.threshold, "value", 0.6)
    (send,) = waiting
    view.threshold.value = 0.99
    newest = view.ranks.object
    send()
    assert view.ranks.object is newest


def test_what_refresh_draws_in_a_thread_waits_for_its_turn(deep_runs: Path, waiting: Waiting) -> None:
    view = Spectra(Store(deep_runs))
    waiting.clear()
    before = view.ranks.object
    in_a_thread(setattr, view.threshold, "value", 0.6)
    in_a_thread(view.refresh)
    assert view.ranks.object is before
    moved, refreshed, idle = waiting
    moved()
    refreshed()
    assert view.refresh_button.loading
    idle()
    assert not view.refresh_button.loading
    assert view.ranks.object.layout.title.text == "k at δ = 0.6"


def test_a_theme_that_changes_in_a_thread_waits_for_its_turn(runs: Path, waiting: Waiting) -> None:
    view = Overview(Store(runs))
    waiting.clear()
    before = view.matrix.object
    in_a_thread(setattr, view, "dark", True)
    assert view.matrix.object is before
    (send,) = waiting
    send()
    assert view.matrix.object.layout.font.color.startswith("rgba(255")


@pytest.fixture
def jobs() -> Iterator[Jobs]:
    found = Jobs()
    yield found
    found.close()


def put(jobs: Jobs, job: Job) -> None:
    """Let the queue hold a job that no worker is sent."""
    jobs._jobs[job.key] = job


def pair(key: str, view: View, **known: object) -> Job:
    return Job(key, "alice", view.run.value, Rerouting(TASKS[0], ("0",), (1,)), **known)


def test_what_a_look_at_the_queue_draws_waits_for_its_turn(runs: Path, jobs: Jobs, waiting: Waiting) -> None:
    view = ReroutingLab(Store(runs), Visitor("alice", jobs, jobs))
    waiting.clear()
    before = view.curve.object
    put(jobs, pair("first", view, state="running", curve=((1, 2.0), (2, 1.0))))
    in_a_thread(view.poll)
    assert view.curve.object is before
    (send,) = waiting
    send()
    assert list(view.curve.object.data[0].y) == [2.0, 1.0]
    in_a_thread(view.poll)
    assert waiting == [send], "a look at a queue that stands still sends nothing"


def test_the_job_that_was_selected_is_cancelled_also_while_rows_move(runs: Path, jobs: Jobs) -> None:
    view = ReroutingLab(Store(runs), Visitor("alice", jobs, jobs))
    put(jobs, pair("first", view))
    view.poll()
    view.queue.selection = [0]
    put(jobs, pair("second", view))
    click = Thread(target=view.cancel_button.param.trigger, args=("clicks",))

    def while_rows_move(_event: object) -> None:
        click.start()
        click.join(0.5)  # it may have to wait for the lock of this thread

    watcher = view.queue.param.watch(while_rows_move, "value")
    view.poll()
    view.queue.param.unwatch(watcher)
    click.join()
    assert {job.key: job.state for job in jobs.listed()} == {"first": "cancelled", "second": "waiting"}
    view.poll()
    assert list(view.queue.value["state"]) == ["waiting", "cancelled"]
    assert view.queue.selection == [1]


def test_without_a_selection_ones_own_newest_job_that_is_open_is_cancelled(runs: Path, jobs: Jobs) -> None:
    view = ReroutingLab(Store(runs), Visitor("alice", jobs, jobs))
    for job in (pair("first", view), pair("second", view), pair("third", view, state="done")):
        put(jobs, job)
    put(jobs, replace(pair("fourth", view), user="bob"))
    view.poll()
    states = {"first": "waiting", "second": "waiting", "third": "done", "fourth": "waiting"}
    for key in ("second", "first"):
        view.cancel_button.param.trigger("clicks")
        states[key] = "cancelled"
        assert {job.key: job.state for job in jobs.listed()} == states
        assert not view.note.visible
    view.cancel_button.param.trigger("clicks")
    assert "none does. Queue one above first." in view.note.object


class Slow(Store):
    """Lets who reads its table wait while it is told to."""

    def __init__(self, runs: Path):
        super().__init__(runs)
        self.go, self.came = Event(), Event()
        self.go.set()

    def overview(self, variant: str = VARIANTS[0]) -> pd.DataFrame:
        self.came.set()
        assert self.go.wait(60)
        return super().overview(variant)


def test_a_view_that_is_opened_twice_while_it_is_built_is_built_once_and_leaves_the_address_alone(runs: Path) -> None:
    store = Slow(runs)
    with set_curdoc(Document()):
        (tabs,) = page(store).select(pmui.Tabs)
        turns = []
        store.go.clear()
        for to in (1, 0, 1, 0):
            store.came.clear()
            turns.append(Thread(target=turn, args=(pn.state.curdoc, tabs, to)))
            turns[-1].start()
            if to:
                store.came.wait(0.5)  # the second time nobody may come
            else:
                turns[-1].join()
        store.go.set()
        for one in turns:
            one.join()
        assert [len(place) for place in tabs.objects[:2]] == [1, 1]
        assert "view=overview" in pn.state.location.search


def turn(doc: Document, tabs: pmui.Tabs, to: int) -> None:
    with set_curdoc(doc):
        tabs.active = to

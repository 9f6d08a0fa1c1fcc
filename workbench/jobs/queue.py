"""The queue of a server: who asked for what, how far it is, and the way to Dask and back."""

import logging
import tempfile
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from same.errors import InputError
from same.registry import choose
from same.runs import RunFolder
from workbench.jobs.asked import Asked
from workbench.jobs.process import work

LOG = logging.getLogger("workbench")
FINISHED = ("done", "failed", "cancelled")
NOT_BEGUN = "before it began"
LOST = "The scheduler or the worker that had it is gone. Ask again."
_ROUTES = ("distributed.scheduler.http.routes", "distributed.worker.http.routes")
"""Dask always opens ports for its pages: local ones, with no page."""
_KEPT = 200


@dataclass(frozen=True)
class Limits:
    """What one may ask for.

    Args:
        per_user: jobs of one user that wait or run.
        waiting: jobs of everybody that wait or run.
        minutes: how long a job may run.
        gigabytes: memory of a job's processes together.
    """

    per_user: int = 3
    waiting: int = 20
    minutes: float = 60.0
    gigabytes: float = 8.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise InputError(f"The limit {name} must be positive; got {value}.")


@dataclass(frozen=True)
class Job:
    """One entry of the queue as it stands; times in seconds since the epoch."""

    key: str
    user: str
    run: str
    asked: Asked
    state: str = "waiting"
    submitted: float = field(default_factory=time.time)
    started: float | None = None
    ended: float | None = None
    share: float = 0.0
    """Of the work done, in [0, 1]."""
    message: str = ""
    curve: tuple[tuple[int, float], ...] = ()
    """Steps and losses of the router that is being trained."""
    answered: int = 0
    """How many of the results."""
    results: tuple[str, ...] = ()
    """Keys of what joined the run's record, known at the end."""

    @property
    def title(self) -> str:
        """What is asked, in a few words."""
        return self.asked.title


@dataclass(frozen=True)
class _Sent:
    """A job that Dask has, and how it learns that nobody wants it."""

    future: Any
    wish: Any

    def stop(self, began: bool) -> None:
        """Tell its process, and take it from those that wait if it has not begun; the scheduler may take its time."""
        if self.future.client.status != "running":
            return  # the job is lost, which its future tells
        try:
            self.wish.set()
            if not began:
                self.future.cancel()
        except Exception:  # of a library's own classes; nobody else looks at this thread
            LOG.exception("job not stopped")


class Jobs:
    """The queue of this server.

    Args:
        scheduler: address of a Dask scheduler; None starts a worker here when the first job comes.
        limits: what one may ask for.
        notify: told of each job that is new or ended, for the log.
        patience: seconds in which a scheduler must answer.
    """

    def __init__(
        self,
        scheduler: str | None = None,
        limits: Limits | None = None,
        notify: Callable[[Job], None] = lambda _job: None,
        patience: float = 20.0,
    ):
        self.limits = limits or Limits()
        self._scheduler = scheduler
        self._notify = notify
        self._patience = patience
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._sent: dict[str, _Sent] = {}
        self._lock = threading.RLock()
        self._starter = ThreadPoolExecutor(1, "jobs")  # connecting takes seconds: nobody waits for it
        self._client: Any = None
        self._closed = False

    def submit(self, user: str, run: RunFolder, name: str, asked: Asked) -> Job:
        """Queue a job; where one that asks the same of the run waits or runs, give that one, whosever it is.

        Args:
            user: whose it is.
            run: folder of the run, looked up by its name, not joined from it.
            name: of the run, as shown.
            asked: the question.

        Raises:
            InputError: the question does not fit the run, the user or the server has too many jobs, or the server ends.
        """
        asked.check(run)
        job = Job(uuid.uuid4().hex[:12], user, name, asked)
        with self._lock:
            if self._closed:
                raise InputError("The server must go on to take jobs; it is ending. Ask again when it is back.")
            open_jobs = [other for other in self._jobs.values() if other.state not in FINISHED]
            for other in open_jobs:
                if (other.run, other.asked) == (name, asked) and other.state != "stopping":
                    return other
            own = sum(other.user == user for other in open_jobs)
            if own >= self.limits.per_user or len(open_jobs) >= self.limits.waiting:
                whose, count = ("you have", own) if own >= self.limits.per_user else ("the server has", len(open_jobs))
                raise InputError(f"No more jobs can wait: {whose} {count}. Cancel one, or wait until one has ended.")
            self._jobs[job.key] = job
            old = [key for key, other in self._jobs.items() if other.state in FINISHED]
            for key in old[: max(0, len(self._jobs) - _KEPT)]:
                del self._jobs[key]
            self._starter.submit(self._send, job.key, asked.command(run))
        self._notify(job)
        return job

    def listed(self) -> list[Job]:
        """Every job of this server, the newest first."""
        with self._lock:
            return list(reversed(self._jobs.values()))

    def job(self, key: str) -> Job:
        """One job by its key."""
        with self._lock:
            return self._jobs[choose("job", key, list(self._jobs))]

    def cancel(self, key: str, user: str) -> None:
        """Stop a job.

        Raises:
            InputError: it is another user's.
        """
        job = self.job(key)
        if job.user != user:
            raise InputError(f"A job can be cancelled by its user; this one is {job.user}'s. Ask them.")
        with self._lock:
            sent = self._sent.get(key)
            began = self.job(key).state != "waiting"
            if began:
                changed = self._change(key, state="stopping", message="stopping …")
            else:
                changed = self._change(key, state="cancelled", ended=time.time(), message=NOT_BEGUN)
            if changed is not None and sent is not None and not self._closed:
                self._starter.submit(sent.stop, began)
        if changed is not None and not began:
            self._notify(changed)

    def close(self) -> None:
        """Stop every job and the worker."""
        with self._lock:
            self._closed = True
        self._starter.shutdown(wait=True, cancel_futures=True)  # from now on nothing is sent
        for job in self.listed():
            sent = self._sent.get(job.key)
            if sent is not None:
                sent.stop(began=job.state != "waiting")
            elif job.state not in FINISHED:
                self._end(job.key, "cancelled", NOT_BEGUN)
        if self._client is not None:
            if self._client.status == "running":
                self._let_end()
            self._leave()

    def _let_end(self) -> None:
        """Wait until running jobs have ended their processes."""
        import distributed

        with self._lock:
            began = {key for key, job in self._jobs.items() if job.state in ("running", "stopping")}
            running = [sent.future for key, sent in self._sent.items() if key in began]
        if running:
            with suppress(TimeoutError, distributed.CancelledError):
                distributed.wait(running, timeout=20)

    def _leave(self) -> None:
        """Close what leads to Dask."""
        client, self._client = self._client, None
        with suppress(OSError):  # a scheduler that is lost does not answer
            client.close(timeout=10)
        if client.cluster is not None:
            client.cluster.close(timeout=10)

    # -- towards Dask ---------------------------------------------------------------------------------------------

    def _send(self, key: str, command: Sequence[str]) -> None:
        if not self._wanted(key):
            return
        try:
            client = self._connected()
            with self._lock:  # connecting takes seconds: who cancelled meanwhile found nothing to stop
                if not self._wanted(key):
                    return
                self._sent[key] = sent = self._asked_of(client, key, command)
        except Exception as error:  # of a library's own classes; nobody else looks at this thread
            LOG.exception("job not sent")
            self._end(key, "failed", f"The scheduler {self._scheduler or 'here'} must answer; {error}.")
            return
        sent.future.add_done_callback(lambda done: self._done(key, done))

    def _wanted(self, key: str) -> bool:
        with self._lock:
            job = self._jobs.get(key)
            return job is not None and job.state not in FINISHED and not self._closed

    def _asked_of(self, client: Any, key: str, command: Sequence[str]) -> "_Sent":
        import distributed

        client.subscribe_topic(f"job-{key}", lambda event: self._heard(key, event[1]))
        limits = (self.limits.minutes * 60, self.limits.gigabytes)
        future = client.submit(work, list(command), key, *limits, key=key, pure=False, retries=0)
        return _Sent(future, distributed.Event(f"stop-{key}", client=client))

    def _connected(self) -> Any:
        if self._client is not None and self._client.status != "running":
            self._leave()  # it lost its scheduler
        if self._client is None:
            import dask
            import distributed

            dask.config.set({"temporary-directory": tempfile.gettempdir(), **{name: [] for name in _ROUTES}})
            if self._scheduler:
                self._client = distributed.Client(self._scheduler, timeout=self._patience, set_as_default=False)
            else:
                cluster = distributed.LocalCluster(
                    n_workers=1,
                    threads_per_worker=1,
                    processes=False,
                    memory_limit=0,
                    dashboard_address="127.0.0.1:0",
                    worker_dashboard_address="127.0.0.1:0",
                )
                self._client = distributed.Client(cluster, set_as_default=False)
        return self._client

    def _heard(self, key: str, event: Mapping[str, Any]) -> None:
        job, kind = self._jobs.get(key), event.get("kind")
        if job is None:
            return
        whole = 1 / job.asked.count
        begun = job.answered * whole
        if kind == "start":
            self._change(key, state="running", started=time.time(), message="starting")
        elif kind == "load":
            self._change(key, message="loading the backbone")
        elif kind == "retrain":
            new = [] if event["step"] == 1 else list(job.curve)
            curve = (*new, (int(event["step"]), float(event["loss"])))
            share = begun + whole * 0.5 * event["step"] / max(1, event["steps"])
            message = f"routers: step {event['step']} of {event['steps']}, loss {event['loss']:.3f}"
            self._change(key, curve=curve, share=share, message=message)
        elif kind == "answer":
            part = event["answered"] / max(1, event["total"])
            share = max(job.share, begun + whole * (0.5 + 0.5 * part if job.curve else part))
            self._change(key, share=share, message=f"answered {event['answered']} of {event['total']}")
        elif kind == "result":
            self._change(key, answered=event["results"], share=event["results"] * whole)

    def _done(self, key: str, future: Any) -> None:
        try:
            if future.status == "finished":
                self._end(key, *future.result(timeout=self._patience))
            elif future.status == "error":
                self._end(key, "failed", str(future.exception(timeout=self._patience)))
            else:
                self._end(key, *self._lost())
            if future.client.status == "running":
                future.client.unsubscribe_topic(f"job-{key}")
        except Exception as error:  # of a library's own classes; nobody else looks at this thread
            if not self._closed:  # else what leads to Dask is being taken away
                LOG.exception("job lost")
            self._end(key, *self._lost(f" {error}"))
        with self._lock:
            self._sent.pop(key, None)

    def _lost(self, why: str = "") -> tuple[str, str]:
        """How a job ends of whose process nothing more is heard."""
        return ("cancelled", "the server ended") if self._closed else ("failed", f"{LOST}{why}")

    def _change(self, key: str, **changes: Any) -> Job | None:
        """Let a job go on; None for one that has ended, which stays as it is."""
        with self._lock:
            job = self._jobs.get(key)
            if job is None or job.state in FINISHED:
                return None
            changed = self._jobs[key] = replace(job, **changes)
            return changed

    def _end(self, key: str, state: str, message: str, results: Sequence[str] = ()) -> None:
        whole = {"share": 1.0} if state == "done" else {}
        ended = self._change(key, state=state, ended=time.time(), message=message, results=tuple(results), **whole)
        if ended is not None:
            self._notify(ended)

"""The queue of a server: who asked for what, how far it is, and the way to Dask and back."""

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

FINISHED = ("done", "failed", "cancelled")
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
        self._stops: dict[str, Any] = {}
        self._sent: dict[str, Any] = {}
        self._lock = threading.RLock()
        self._starter = ThreadPoolExecutor(1, "jobs")  # connecting takes seconds: nobody waits for it
        self._client: Any = None
        self._closed = False

    def submit(self, user: str, run: RunFolder, name: str, asked: Asked) -> Job:
        """Queue a job.

        Args:
            user: whose it is.
            run: folder of the run, looked up by its name, not joined from it.
            name: of the run, as shown.
            asked: the question.

        Raises:
            InputError: the question does not fit the run, or the user or the server has too many jobs.
        """
        asked.check(run)
        job = Job(uuid.uuid4().hex[:12], user, name, asked)
        with self._lock:
            open_jobs = [other for other in self._jobs.values() if other.state not in FINISHED]
            own = sum(other.user == user for other in open_jobs)
            if own >= self.limits.per_user or len(open_jobs) >= self.limits.waiting:
                whose, count = ("you have", own) if own >= self.limits.per_user else ("the server has", len(open_jobs))
                raise InputError(f"No more jobs can wait: {whose} {count}. Cancel one, or wait until one has ended.")
            self._jobs[job.key] = job
            while len(self._jobs) > _KEPT:
                self._jobs.popitem(last=False)
        self._notify(job)
        self._starter.submit(self._send, job.key, asked.command(run))
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
        self._change(key, message="stopping …")
        with self._lock:
            stop = self._stops.get(key)
        if stop is None:
            self._end(key, "cancelled", "before it began")
        else:
            stop()

    def close(self) -> None:
        """Stop every job and the worker."""
        with self._lock:
            self._closed = True
            stops = list(self._stops.values())
        for stop in stops:
            stop()
        self._starter.shutdown(wait=True, cancel_futures=True)
        if self._client is not None:
            self._let_end()
            self._client.close(timeout=10)
            if self._client.cluster is not None:
                self._client.cluster.close(timeout=10)

    def _let_end(self) -> None:
        """Wait until running jobs have ended their processes."""
        import distributed

        with self._lock:
            running = [future for key, future in self._sent.items() if self.job(key).state == "running"]
        if running:
            with suppress(TimeoutError):
                distributed.wait(running, timeout=20)

    # -- towards Dask ---------------------------------------------------------------------------------------------

    def _send(self, key: str, command: Sequence[str]) -> None:
        if self._closed or self.job(key).state in FINISHED:
            return
        try:
            client = self._connected()
            import distributed

            topic, wish = f"job-{key}", distributed.Event(f"stop-{key}", client=client)
            client.subscribe_topic(topic, lambda event: self._heard(key, event[1]))
            future = client.submit(
                work,
                list(command),
                key,
                self.limits.minutes * 60,
                self.limits.gigabytes,
                key=key,
                pure=False,
                retries=0,
            )
        except (OSError, ValueError, RuntimeError) as error:
            self._end(key, "failed", f"The scheduler {self._scheduler or 'here'} must answer; {error}.")
            return

        def stop() -> None:
            wish.set()
            if self.job(key).state == "waiting":
                future.cancel()

        with self._lock:
            self._stops[key], self._sent[key] = stop, future
        future.add_done_callback(lambda done: self._done(key, done))

    def _connected(self) -> Any:
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
        job, kind = self.job(key), event.get("kind")
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
        if future.cancelled():
            self._end(key, "cancelled", "before it began")
        elif future.status == "error":
            self._end(key, "failed", str(future.exception()))
        else:
            state, message, results = future.result()
            self._end(key, state, message, results)
        if self._client is not None and not self._closed:
            self._client.unsubscribe_topic(f"job-{key}")

    def _change(self, key: str, **changes: Any) -> None:
        with self._lock:
            job = self._jobs.get(key)
            if job is not None and job.state not in FINISHED:
                self._jobs[key] = replace(job, **changes)

    def _end(self, key: str, state: str, message: str, results: Sequence[str] = ()) -> None:
        whole = {"share": 1.0} if state == "done" else {}
        self._change(key, state=state, ended=time.time(), message=message, results=tuple(results), **whole)
        with self._lock:
            self._stops.pop(key, None)
            self._sent.pop(key, None)
            job = self._jobs.get(key)
        if job is not None:
            self._notify(job)

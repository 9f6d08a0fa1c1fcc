"""On a worker: one job's process, what it prints, and its end."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from same.errors import RunFailed

_POLL_S = 0.5
_PATIENCE_S = 10.0
_TAIL = 2000


def work(command: Sequence[str], key: str, seconds: float, gigabytes: float) -> tuple[str, str, list[str]]:
    """Run one job's process on a Dask worker, telling what it prints; gives what `watch` does.

    Args:
        command: arguments of this worker's own Python, which need not be where the server's is.
        key: of the job.
        seconds: it may run.
        gigabytes: its processes may hold together.
    """
    import distributed

    worker = distributed.get_worker()
    stop = distributed.Event(f"stop-{key}", client=distributed.get_client())
    if stop.is_set():
        return "cancelled", "before it began", []
    worker.log_event(f"job-{key}", {"kind": "start"})
    own = [sys.executable, *command]
    return watch(own, lambda event: worker.log_event(f"job-{key}", event), stop.is_set, seconds, gigabytes)


def watch(
    command: Sequence[str],
    tell: Callable[[dict[str, Any]], None],
    stopping: Callable[[], bool],
    seconds: float,
    gigabytes: float,
) -> tuple[str, str, list[str]]:
    """Run a process that prints JSON lines until it ends, must stop, or takes more time or memory than it may.

    Args:
        command: its arguments.
        tell: given each line that is an object with a kind.
        stopping: whether it must stop.
        seconds: it may run.
        gigabytes: its processes may hold together.

    Returns:
        done, failed or cancelled, a sentence, and the keys of the results.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PANEL_")}
    with tempfile.TemporaryFile("w+", encoding="utf-8") as errors:
        process = subprocess.Popen(
            list(command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, text=True,
            env=environment | {"PYTHONUNBUFFERED": "1"}, start_new_session=True,
        )  # fmt: skip
        results: list[str] = []
        reader = threading.Thread(target=_listen, args=(process, tell, results), daemon=True)
        reader.start()
        try:
            reason = _until_ended(process, stopping, seconds, gigabytes)
        finally:
            _end_group(process)
        reader.join(timeout=10)
        errors.seek(0)
        said = errors.read()[-_TAIL:].strip()
    if reason == "cancelled":
        return "cancelled", "while it ran; what was finished is kept", results
    if process.returncode and not reason:
        reason = said.splitlines()[-1] if said else f"The process ended with {process.returncode}."
    return "failed" if reason else "done", reason, results


def _listen(process: "subprocess.Popen[str]", tell: Callable[[dict[str, Any]], None], results: list[str]) -> None:
    for line in process.stdout or ():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict) and event.get("kind") == "result":
            results.append(str(event.get("id")))
            tell({"kind": "result", "results": len(results)})
        elif isinstance(event, dict) and "kind" in event:
            tell(event)


def _until_ended(
    process: "subprocess.Popen[str]", stopping: Callable[[], bool], seconds: float, gigabytes: float
) -> str:
    began = time.monotonic()
    while True:
        try:
            process.wait(_POLL_S)
        except subprocess.TimeoutExpired:
            if stopping():
                return "cancelled"
            if time.monotonic() - began > seconds:
                return f"It took more than the {seconds / 60:g} minutes a job may take. Ask for fewer items or steps."
            if _memory(process.pid) > gigabytes * 2**30:
                return f"It took more than the {gigabytes:g} GB a job may take. Use a smaller backbone or batch."
        else:
            return ""


def _memory(pid: int) -> int:
    import psutil

    total = 0
    try:
        root = psutil.Process(pid)
        for process in [root, *root.children(recursive=True)]:
            total += process.memory_info().rss
    except psutil.Error:
        return total
    return total


def _end_group(process: "subprocess.Popen[str]") -> None:
    """End a process, if it has not ended, and whatever it started: it is asked first, the rest is told."""
    with suppress(ProcessLookupError):
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(_PATIENCE_S)
        os.killpg(process.pid, signal.SIGKILL)  # children may outlive it
    try:
        process.wait(_PATIENCE_S)
    except subprocess.TimeoutExpired:
        raise RunFailed(f"Process {process.pid} must end; it does not.") from None

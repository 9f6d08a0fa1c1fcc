"""What a worker of a sweep does: one training run as a process of its own, by the command line."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from same.runs import RunFolder

ASK_SECONDS = 0.5
STOP_SECONDS = 300  # a step and the answers to a batch end well before
LINES = 60


def run_cell(arguments: list[str], path: str, threads: int, stop: str) -> tuple[int, str]:
    """Train, and give the exit code and the end of what was printed.

    A run of a worker that was lost goes on by itself; the same command then shows it to its end.

    Args:
        arguments: of `same train`.
        path: of the run folder, where what is printed is kept.
        threads: for torch.
        stop: name of the event that is set when the sweep is to stop.
    """
    code, printed = _run(arguments, threads, stop)
    if code and _held(path):  # a lost worker's process had not yet said that it trains there
        code, printed = _run(arguments, threads, stop)
    if Path(path).is_dir():
        (Path(path) / "train.log").write_text(printed, encoding="utf-8")
    return code, "\n".join(printed.splitlines()[-LINES:])


def _held(path: str) -> bool:
    from same.engine.launch import is_held

    return is_held(RunFolder(path))


def _run(arguments: list[str], threads: int, stop: str) -> tuple[int, str]:
    from distributed import Event

    asked = Event(stop)
    variables = {**os.environ, "OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
    command = [sys.executable, "-m", "same.cli", "train", *arguments]
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        # In a session of its own: Ctrl-C reaches the sweep alone, which asks the runs to stop.
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=variables, start_new_session=True
        )
        while process.poll() is None:
            if asked.is_set():
                _end(process)
            _wait(process, ASK_SECONDS)
        log.seek(0)
        return process.returncode, log.read()


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    if not _wait(process, STOP_SECONDS):
        process.kill()


def _wait(process: "subprocess.Popen[bytes]", seconds: float) -> bool:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def arguments_of(request: Mapping[str, Any]) -> list[str]:
    """A request, as its plain values by name, as arguments of `same train`."""
    return list(_arguments(request))


def _arguments(request: Mapping[str, Any]) -> Iterator[str]:
    for name, value in request.items():
        if name == "settings":
            for key, setting in value.items():
                yield from ("--set", f"{key}={_text(setting)}")
        elif value is True:
            yield f"--{name.replace('_', '-')}"
        elif value is not None and value is not False:
            yield from (f"--{name.replace('_', '-')}", str(value))


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)

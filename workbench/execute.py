"""Execute one notebook with papermill, in a process of its own: ``python -m workbench.execute REQUEST``.

REQUEST is JSON: notebook, output, parameters. Progress goes to standard output, one line a cell. It ends early when its
standard input does.
"""

import asyncio
import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import papermill
from filelock import FileLock
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbformat.v4 import new_output
from papermill.engines import NBClientEngine, papermill_engines

ENGINE = "telling"
START_TIMEOUT = 600  # seconds until a kernel must answer; a loaded machine needs minutes
GRACE = 3.0  # seconds for an interrupted cell to stop what it started
DIED = "the kernel must answer until the cell is done; it died (out of memory, or a crash). Run the chain again."


class Kernel(AsyncKernelManager):
    """A kernel of this very environment, whatever kernels are installed for the user; not over plain TCP."""

    stopping = False

    def __init__(self, **settings: Any):
        super().__init__(**{"transport_encryption": "auto", **settings})

    @property
    def kernel_spec(self) -> KernelSpec:
        """The command of this interpreter's own kernel."""
        command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        able = {"supported_encryption": ["curve"]}
        return KernelSpec(argv=command, display_name="Python 3", language="python", metadata=able)

    async def shutdown_kernel(self, now: bool = False, restart: bool = False) -> None:
        """Interrupt a cell that was asked to stop before its kernel goes, so that it can end what it started."""
        if Kernel.stopping:
            Kernel.stopping = False
            await self.interrupt_kernel()
            await asyncio.sleep(GRACE)
        await super().shutdown_kernel(now=now, restart=restart)


class TellingEngine(NBClientEngine):
    """Papermill's engine, saying which cell it has come to, and in the copy which cell a kernel died in."""

    @classmethod
    def execute_managed_notebook(cls, nb_man: Any, kernel_name: str, **settings: Any) -> Any:
        """Announce each cell and do what the parent class does; give the cell that a kernel died in an error."""
        start, count = nb_man.cell_start, len(nb_man.nb.cells)
        reached = -1

        def tell(cell: Any, index: int, **more: Any) -> None:
            nonlocal reached
            reached = index if cell.cell_type == "code" else reached
            print(f"cell {index + 1}/{count}", flush=True)
            start(cell, index, **more)

        nb_man.cell_start = tell
        try:
            return super().execute_managed_notebook(nb_man, kernel_name, **settings)
        except RuntimeError as error:  # papermill itself would call such a notebook completed
            if reached < 0:
                raise
            cell = nb_man.nb.cells[reached]
            cell.outputs.append(new_output("error", ename=type(error).__name__, evalue=DIED, traceback=[str(error)]))
            nb_man.cell_exception(cell, cell_index=reached)
            return nb_man.nb


def execute(notebook: str, output: str, parameters: dict[str, Any]) -> None:
    """Run a notebook into a copy; the copy is saved with its error when a cell fails."""
    papermill_engines.register(ENGINE, TellingEngine)
    papermill.execute_notebook(
        notebook,
        output,
        parameters=parameters,
        engine_name=ENGINE,
        kernel_name="python3",
        cwd=str(Path(notebook).parent),
        progress_bar=False,
        coalesce_streams=True,
        start_timeout=START_TIMEOUT,
        kernel_manager_class=Kernel,
    )


def _stop(_signal: int, _frame: object) -> None:
    Kernel.stopping = True
    raise KeyboardInterrupt


def _stop_when_left() -> None:
    """Stop when the other end of standard input is closed: whoever asked for the notebook is gone."""
    os.read(0, 1)  # not sys.stdin: a lock of Python's that is held when it ends is fatal
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    """Exit with 0 when every cell ran; say what went wrong on standard error and exit with 1 otherwise."""
    signal.signal(signal.SIGINT, _stop)
    signal.signal(signal.SIGTERM, _stop)
    threading.Thread(target=_stop_when_left, daemon=True).start()
    request = json.loads(sys.argv[1])
    try:
        copy = Path(request["output"])
        with FileLock(copy.with_name(f".{copy.stem}.lock")):  # what a killed chain left may be ending still
            execute(**request)
    except papermill.PapermillExecutionError as error:
        where = f"In [{error.exec_count}]" if error.exec_count else f"cell {error.cell_index + 1}"
        print(f"{where}: {error.ename}: {error.evalue}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()

"""The processes that train together: their number, what they sum, and how they agree to stop."""

import contextlib
import gc
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.utils import DistributedType
from torch import Tensor, distributed

from same.errors import RunFailed

KNOWN = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)
AGREE_EVERY = 4  # with several processes, one in so many calls of `stopping` asks the others


class Stopped(RunFailed):
    """The user asked the run to stop; every finished task is usable."""


class Processes:
    """This process among those of the run.

    Args:
        asked: how many there must be.
        strategy: how they share a model's state; the launcher only starts and joins them, whatever it is.

    Raises:
        RunFailed: the launcher started another number, or joined them in a way of its own.
    """

    def __init__(self, asked: int, strategy: str = "ddp") -> None:
        # Experts freeze in mid-task, so some parameters have no gradient; statistics are nobody's to broadcast.
        handler = DistributedDataParallelKwargs(find_unused_parameters=True, broadcast_buffers=False)
        self.accelerator = Accelerator(mixed_precision="no", kwargs_handlers=[handler])
        self.strategy = strategy
        self.count: int = self.accelerator.num_processes
        self.rank: int = self.accelerator.process_index
        self.device: torch.device = self.accelerator.device
        self.is_main = self.rank == 0
        self._asked_to_stop = False
        self._calls = 0
        if self.count != asked:
            raise RunFailed(
                f"The run must have {asked} processes; the launcher started {self.count}. Start it with `same train "
                f"--processes {asked}`, which chooses the launcher."
            )
        # Asking whether to stop goes past the devices, which would have to wait for it.
        self._hosts = distributed.new_group(backend="gloo") if self.count > 1 else None
        if self.accelerator.distributed_type not in KNOWN:
            found = self.accelerator.distributed_type.value
            raise RunFailed(
                f"accelerate's config must join the processes plainly (MULTI_GPU); got {found}. Use a file of "
                "same/engine/configs; FSDP2 and ZeRO-2 are the run's own --strategy fsdp and --strategy zero2."
            )

    @property
    def shards(self) -> bool:
        """Whether parameters are cut over the processes; alone, a process holds them all."""
        return self.strategy == "fsdp" and self.count > 1

    def reduce(self, tensor: Tensor) -> None:
        """Sum a tensor over all processes, in place."""
        if self.count > 1:
            here = tensor.to(self.device)
            distributed.all_reduce(here)
            if here is not tensor:
                tensor.copy_(here)

    def gather(self, tensor: Tensor) -> Tensor:
        """Stack the equal-shaped tensors of all processes along the first dimension."""
        if self.count == 1:
            return tensor
        here = tensor.to(self.device).contiguous()
        parts = [torch.empty_like(here) for _ in range(self.count)]
        distributed.all_gather(parts, here)
        return torch.cat(parts)

    def wait(self) -> None:
        """Go on when all processes are here."""
        self.accelerator.wait_for_everyone()

    @contextlib.contextmanager
    def main_first(self) -> Iterator[None]:
        """Let the main process do something before the others."""
        with self.accelerator.main_process_first():
            yield

    @contextlib.contextmanager
    def stoppable(self) -> Iterator[None]:
        """Turn SIGINT and SIGTERM into a request that is honoured after the step; a second SIGINT stops at once.

        Python lets the main thread alone do so; in any other, signals keep what they did.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def ask(number: int, _frame: FrameType | None) -> None:
            if self._asked_to_stop and number == signal.SIGINT:
                raise Stopped("Stopped at once; every finished task is kept. Run the same command to go on.")
            self._asked_to_stop = True

        old = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)

    def raise_if_stopping(self) -> None:
        """Raise Stopped on every process once one was asked to stop; all must call it equally often."""
        self._calls += 1
        if self.count == 1:
            agreed = self._asked_to_stop
        elif self._calls % AGREE_EVERY:
            return
        else:
            flag = torch.tensor(float(self._asked_to_stop))
            distributed.all_reduce(flag, group=self._hosts)
            agreed = bool(flag.item())
        if agreed:
            raise Stopped("Stopped on request; every finished task is kept. Run the same command to go on.")


def leave(code: int) -> None:
    """End this process; one of several on CPUs must not run the interpreter's own teardown, which can abort."""
    gc.collect()
    if distributed.is_available() and distributed.is_initialized():
        if code == 0:
            distributed.barrier()
        sys.stdout.flush()
        sys.stderr.flush()
        if distributed.get_backend() == "gloo":
            os._exit(code)
        distributed.destroy_process_group()
    sys.exit(code)

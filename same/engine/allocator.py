"""How this process's memory is had from the system."""

import ctypes
import platform

TRIM_THRESHOLD, MMAP_MAX = -1, -4  # of glibc's mallopt
MOST = 2**31 - 1


def keep_freed_memory() -> None:
    """Let glibc keep what is freed for what is asked next; elsewhere nothing is done.

    Otherwise blocks beyond 32 MB go back to the system at once and come anew, page by page. Below a Dask worker, whose
    environment tells glibc to give everything back (`MALLOC_TRIM_THRESHOLD_`), all do: half of a run's seconds were
    page faults there. What a call takes would also depend on the call before it. The price: the process holds its peak.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(MMAP_MAX, 0)
        libc.mallopt(TRIM_THRESHOLD, MOST)

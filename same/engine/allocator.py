"""How this process's memory is had from the system."""

import ctypes
import platform

TRIM_THRESHOLD, MMAP_MAX = -1, -4  # of glibc's mallopt
MOST = 2**31 - 1


def keep_freed_memory() -> None:
    """Let glibc keep what is freed for what is asked next; elsewhere nothing is done.

    By default it gives blocks of megabytes back to the system at once and gets them anew, page by page, in the next
    product. Training on a CPU then spends half its time in page faults (docs/benchmarks.md), and what a call takes
    depends on the call before it. The price: the process holds its peak until it ends.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(MMAP_MAX, 0)
        libc.mallopt(TRIM_THRESHOLD, MOST)

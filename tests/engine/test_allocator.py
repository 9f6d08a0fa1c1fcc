"""Freed memory is kept: seen in page faults, in a process of its own, as it cannot be taken back."""

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
import torch
from same.engine.allocator import keep_freed_memory

if "keep" in sys.argv:
    keep_freed_memory()


def blocks():  # beyond 32 MB, glibc's own limit of what it keeps
    for _ in range(12):
        torch.ones(10_000_000)


blocks()  # until other things have found their places
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
blocks()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(*arguments: str) -> int:
    found = subprocess.run([sys.executable, "-c", FAULTS, *arguments], capture_output=True, text=True, check=True)
    return int(found.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told")
def test_memory_that_was_freed_is_used_again_without_new_pages():
    assert faults("keep") * 10 < faults()

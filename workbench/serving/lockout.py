"""Wrong passwords cost time: after a few, a name, an address and both together wait, longer each time."""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

MOST = 10_000
"""Names and addresses remembered; the oldest go first, so that guessing cannot fill the memory."""


@dataclass(frozen=True)
class Limits:
    """How many failures are free, and how long one waits after more; times in seconds."""

    together: int = 5
    """Of one name from one address."""
    name: int = 20
    """Of one name from anywhere; where the name has logged in from before, a stranger's failures lock nobody out."""
    address: int = 20
    """From one address, whatever the names."""
    first_wait: float = 30.0
    """Doubles with each failure beyond."""
    longest_wait: float = 900.0
    forgotten_after: float = 3600.0
    known_for: float = 7 * 86400.0
    """How long an address is remembered from which a name has logged in."""


class Lockout:
    """Failures by name, by address and by both."""

    def __init__(self, limits: Limits | None = None, clock: Callable[[], float] = time.monotonic):
        self.limits = limits or Limits()
        self._clock = clock
        self._failures: OrderedDict[tuple[str, str], tuple[int, float]] = OrderedDict()
        self._known: OrderedDict[tuple[str, str], float] = OrderedDict()
        self._lock = Lock()

    def wait(self, name: str, address: str) -> float:
        """Seconds until the next attempt counts; 0 when it may be made now."""
        with self._lock:
            came = self._known.get((name, address))
            known = came is not None and self._clock() - came <= self.limits.known_for
            keys = self._keys(name, address)
            return max(self._wait(key, free) for key, free in keys if not (known and key == (name, "")))

    def failed(self, name: str, address: str) -> None:
        """Count a wrong password."""
        now = self._clock()
        with self._lock:
            for key, _ in self._keys(name, address):
                self._failures[key] = (self._count(key) + 1, now)
                self._failures.move_to_end(key)
            while len(self._failures) > MOST:
                self._failures.popitem(last=False)

    def succeeded(self, name: str, address: str) -> None:
        """Forget this name's failures and remember that it came from this address; failures of the address stay."""
        with self._lock:
            for key in ((name, address), (name, "")):
                self._failures.pop(key, None)
            self._known[name, address] = self._clock()
            self._known.move_to_end((name, address))
            while len(self._known) > MOST:
                self._known.popitem(last=False)

    def _keys(self, name: str, address: str) -> list[tuple[tuple[str, str], int]]:
        limits = self.limits
        return [((name, address), limits.together), ((name, ""), limits.name), (("", address), limits.address)]

    def _count(self, key: tuple[str, str]) -> int:
        count, last = self._failures.get(key, (0, 0.0))
        return 0 if self._clock() - last > self.limits.forgotten_after else count

    def _wait(self, key: tuple[str, str], free: int) -> float:
        beyond = self._count(key) - free
        if beyond < 0:
            return 0.0
        whole = min(self.limits.first_wait * 2.0 ** min(beyond, 30), self.limits.longest_wait)
        return max(0.0, self._failures[key][1] + whole - self._clock())

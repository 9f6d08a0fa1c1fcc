"""Wrong passwords cost time, by name and by address."""

from workbench.serving.lockout import Limits, Lockout


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_the_wait_begins_after_the_free_failures_and_doubles() -> None:
    clock = Clock()
    lockout = Lockout(Limits(together=3, first_wait=10, longest_wait=25), clock)
    for _ in range(2):
        lockout.failed("a", "1.1.1.1")
    assert lockout.wait("a", "1.1.1.1") == 0
    waits = []
    for _ in range(3):
        lockout.failed("a", "1.1.1.1")
        waits.append(lockout.wait("a", "1.1.1.1"))
    assert waits == [10, 20, 25]
    assert lockout.wait("a", "2.2.2.2") == 0  # the person elsewhere
    assert lockout.wait("b", "1.1.1.1") == 0
    clock.now += 25
    assert lockout.wait("a", "1.1.1.1") == 0


def test_guessing_many_names_from_one_address_locks_the_address() -> None:
    lockout = Lockout(Limits(), Clock())
    for number in range(20):
        lockout.failed(f"name{number}", "1.1.1.1")
    assert lockout.wait("alice", "1.1.1.1") > 0
    assert lockout.wait("alice", "2.2.2.2") == 0


def test_guessing_one_name_from_many_addresses_locks_the_name() -> None:
    lockout = Lockout(Limits(), Clock())
    for number in range(20):
        lockout.failed("alice", f"1.1.1.{number}")
    assert lockout.wait("alice", "9.9.9.9") > 0
    assert lockout.wait("bob", "9.9.9.9") == 0


def test_guesses_from_elsewhere_do_not_lock_out_who_has_logged_in_from_here() -> None:
    clock = Clock()
    lockout = Lockout(Limits(), clock)
    lockout.succeeded("alice", "9.9.9.9")
    for number in range(30):
        lockout.failed("alice", f"1.1.1.{number}")
    assert lockout.wait("alice", "9.9.9.9") == 0
    assert lockout.wait("alice", "1.1.1.99") > 0
    for _ in range(5):
        lockout.failed("alice", "9.9.9.9")
    assert lockout.wait("alice", "9.9.9.9") > 0  # here, too, one may not guess on
    clock.now += 8 * 86400
    for number in range(30):
        lockout.failed("alice", f"1.1.1.{number}")
    assert lockout.wait("alice", "9.9.9.9") > 0  # long ago


def test_a_right_password_forgets_the_names_failures_and_time_forgets_all() -> None:
    clock = Clock()
    lockout = Lockout(Limits(together=2), clock)
    lockout.failed("a", "1.1.1.1")
    lockout.succeeded("a", "1.1.1.1")
    lockout.failed("a", "1.1.1.1")
    assert lockout.wait("a", "1.1.1.1") == 0
    lockout.failed("a", "1.1.1.1")
    assert lockout.wait("a", "1.1.1.1") > 0
    clock.now += 3601
    lockout.failed("a", "1.1.1.1")
    assert lockout.wait("a", "1.1.1.1") == 0

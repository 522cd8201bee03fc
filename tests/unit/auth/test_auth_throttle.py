"""The brake on guessing, on a clock of its own."""

import pytest

from edgeplane.auth import throttle as module
from edgeplane.auth.throttle import PER_ADDRESS, PER_USER_AND_ADDRESS, WINDOW_SECONDS, LoginThrottle
from edgeplane.model.errors import TooMany

HOME = "192.0.2.1"


class Clock:
    """Seconds, moved by hand."""

    now = 1000.0

    def __call__(self):
        """Tell the time."""
        return self.now


@pytest.fixture
def clock():
    """Make a clock."""
    return Clock()


@pytest.fixture
def throttle(clock):
    """Make a brake on that clock."""
    return LoginThrottle(clock)


def fail(throttle, number, user="ann", address=HOME):
    """Fail so many times."""
    for _ in range(number):
        throttle.check(user, address)
        throttle.failed(user, address)


def test_a_user_has_five_failures_a_minute(throttle, clock):
    """The sixth attempt waits until the first failure is a minute old; the error says how long."""
    for _ in range(PER_USER_AND_ADDRESS):
        fail(throttle, 1)
        clock.now += 10
    with pytest.raises(TooMany) as caught:
        throttle.check("ann", HOME)
    assert caught.value.retry_after == 11
    clock.now += 9.9
    with pytest.raises(TooMany) as caught:
        throttle.check("ann", HOME)
    assert caught.value.retry_after == 1
    clock.now += 0.1
    throttle.check("ann", HOME)
    fail(throttle, 1)
    with pytest.raises(TooMany):
        throttle.check("ann", HOME)


def test_who_waits_as_told_is_let_in(throttle, clock):
    """``retry_after`` is enough, whatever the fractions."""
    clock.now = 1000.7
    fail(throttle, PER_USER_AND_ADDRESS)
    clock.now = 1031.9
    with pytest.raises(TooMany) as caught:
        throttle.check("ann", HOME)
    clock.now += caught.value.retry_after
    throttle.check("ann", HOME)


def test_others_and_elsewhere_are_not_braked(throttle):
    """The count is of one user from one address: nobody can lock another out from afar."""
    fail(throttle, PER_USER_AND_ADDRESS)
    throttle.check("bob", HOME)
    throttle.check("ann", "192.0.2.2")
    with pytest.raises(TooMany):
        throttle.check("ann", HOME)


def test_an_address_has_thirty_failures_a_minute(throttle, clock):
    """One address trying many names is braked for all names, until the minute is over."""
    for number in range(PER_ADDRESS):
        fail(throttle, 1, f"user-{number}")
    with pytest.raises(TooMany):
        throttle.check("somebody new", HOME)
    throttle.check("somebody new", "192.0.2.2")
    clock.now += WINDOW_SECONDS
    throttle.check("somebody new", HOME)


def test_a_success_forgives_the_user_and_not_the_address(throttle):
    """The user's failures are forgotten; what the address did to others is not."""
    fail(throttle, PER_USER_AND_ADDRESS - 1)
    throttle.succeeded("ann", HOME)
    fail(throttle, PER_USER_AND_ADDRESS)
    with pytest.raises(TooMany):
        throttle.check("ann", HOME)
    rest = PER_ADDRESS - 2 * PER_USER_AND_ADDRESS + 1
    for number in range(rest):
        fail(throttle, 1, f"user-{number}")
    throttle.succeeded("user-0", HOME)
    with pytest.raises(TooMany):
        throttle.check("bob", HOME)


def test_what_is_remembered_is_bounded(throttle, monkeypatch):
    """However many names are tried, the memory stays small; the busiest address is kept."""
    monkeypatch.setattr(module, "_REMEMBERED", 10)
    for number in range(1000):
        throttle.failed(f"user-{number}", HOME)
    assert len(throttle._failures) <= 10
    assert all(len(times) <= PER_ADDRESS for times in throttle._failures.values())
    with pytest.raises(TooMany):
        throttle.check("ann", HOME)


def test_asking_costs_no_memory(throttle):
    """Whoever only logs in rightly leaves nothing behind."""
    for number in range(100):
        throttle.check(f"user-{number}", f"192.0.2.{number}")
        throttle.succeeded(f"user-{number}", f"192.0.2.{number}")
    assert len(throttle._failures) == 0
